"""Vectors of what waits: of all at once, or one by one where one of them is bad."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import structlog

from rec_pkg.encoder.item_text import item_text, item_title

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pgrec_worker.metrics import Metrics
    from pgrec_worker.space import Space
    from pgrec_worker.store import WaitingItem, WaitingText
    from rec_pkg.encoder import Encoder

    Vectors = NDArray[np.float32]

T = TypeVar("T")

log = structlog.get_logger("worker")


class Encoding:
    """An encoder at work for a worker."""

    def __init__(self, encoder: Encoder, metrics: Metrics) -> None:
        self._encoder = encoder
        self._metrics = metrics

    async def texts(self, texts: Sequence[WaitingText], space: Space) -> tuple[list[int], Vectors]:
        """Return the places of the texts that could be encoded, and their vectors in the space."""
        return await self._encode(texts, self._vectors_of_texts, space)

    async def items(self, items: Sequence[WaitingItem], space: Space) -> tuple[list[int], Vectors]:
        """Return the same of items."""
        return await self._encode(items, self._vectors_of_items, space)

    async def _encode(
        self, waiting: Sequence[T], encode: Callable[[Sequence[T]], Vectors], space: Space
    ) -> tuple[list[int], Vectors]:
        with self._metrics.encode_seconds.time():
            try:
                good, vectors = list(range(len(waiting))), await asyncio.to_thread(encode, waiting)
            except Exception as error:  # noqa: BLE001  # whatever it is, one text may be to blame
                log.warning("a batch cannot be encoded, encoding one by one", error=str(error))
                good, vectors = await self._encode_one_by_one(waiting, encode)
        vectors = space.place(vectors)
        usable = _usable(vectors)
        return [place for place, fits in zip(good, usable, strict=True) if fits], vectors[usable]

    async def _encode_one_by_one(
        self, waiting: Sequence[T], encode: Callable[[Sequence[T]], Vectors]
    ) -> tuple[list[int], Vectors]:
        good: list[int] = []
        vectors: list[Vectors] = []
        for place, one in enumerate(waiting):
            with suppress(Exception):  # the caller says which are missing
                vectors.append(await asyncio.to_thread(encode, [one]))
                good.append(place)
        empty = np.empty((0, self._encoder.dims), dtype=np.float32)
        return good, np.concatenate([empty, *vectors])

    def _vectors_of_texts(self, texts: Sequence[WaitingText]) -> Vectors:
        return self._encoder.encode([text.text for text in texts], "query")

    def _vectors_of_items(self, items: Sequence[WaitingItem]) -> Vectors:
        return self._encoder.encode_items(
            [item_title(item.title) for item in items],
            [item_text(item.title, item.body, item.attributes, item.tags) for item in items],
        )


def _usable(vectors: Vectors) -> NDArray[np.bool_]:
    """Return which vectors (n, dims) the tables take: finite in half precision, not all zero."""
    with np.errstate(over="ignore"):
        halves = vectors.astype(np.float16)
    return np.logical_and(np.isfinite(halves).all(axis=1), halves.any(axis=1))
