"""Encodes waiting texts and items: all at once, or one by one if one of them is bad."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

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

REASON_CHARS: Final = 500
NO_VECTOR: Final = "its vector is zero, or not finite in half precision"

log = structlog.get_logger("worker")


class Encoded(NamedTuple):
    """The places that could be encoded, their vectors (n, dims), and why the others failed."""

    places: list[int]
    vectors: Vectors
    refused: dict[int, str]


class Encoding:
    """The encoder of a worker."""

    def __init__(self, encoder: Encoder, metrics: Metrics) -> None:
        self._encoder = encoder
        self._metrics = metrics

    async def texts(self, texts: Sequence[WaitingText], space: Space) -> Encoded:
        """Encode texts and place their vectors in the space."""
        return await self._encode(texts, self._vectors_of_texts, space)

    async def items(self, items: Sequence[WaitingItem], space: Space) -> Encoded:
        """Encode items and place their vectors in the space."""
        return await self._encode(items, self._vectors_of_items, space)

    async def _encode(
        self, waiting: Sequence[T], encode: Callable[[Sequence[T]], Vectors], space: Space
    ) -> Encoded:
        with self._metrics.encode_seconds.time():
            try:
                vectors = await asyncio.to_thread(encode, waiting)
                encoded = Encoded(list(range(len(waiting))), vectors, {})
            except Exception as error:  # noqa: BLE001  # whatever it is, one text may be to blame
                log.warning("a batch cannot be encoded, encoding one by one", error=_reason(error))
                encoded = await self._encode_one_by_one(waiting, encode)
        return _with_usable_vectors(encoded, space.place(encoded.vectors))

    async def _encode_one_by_one(
        self, waiting: Sequence[T], encode: Callable[[Sequence[T]], Vectors]
    ) -> Encoded:
        vectors: dict[int, Vectors] = {}
        refused: dict[int, str] = {}
        for place, one in enumerate(waiting):
            try:
                vectors[place] = await asyncio.to_thread(encode, [one])
            except Exception as error:  # noqa: BLE001  # whatever it is, this text is to blame
                refused[place] = _reason(error)
        empty = np.empty((0, self._encoder.dims), dtype=np.float32)
        return Encoded(list(vectors), np.concatenate([empty, *vectors.values()]), refused)

    def _vectors_of_texts(self, texts: Sequence[WaitingText]) -> Vectors:
        return self._encoder.encode([text.text for text in texts], "query")

    def _vectors_of_items(self, items: Sequence[WaitingItem]) -> Vectors:
        return self._encoder.encode_items(
            [item_title(item.title) for item in items],
            [
                item_text(item.title, item.body, json.loads(item.attributes), item.tags)
                for item in items
            ],
        )


def _reason(error: Exception) -> str:
    """Return the error in one line, in characters that Postgres can store."""
    said = ": ".join(filter(None, (type(error).__name__, str(error))))
    held = said.encode(errors="replace").decode().replace("\0", " ")
    return " ".join(held.split())[:REASON_CHARS]


def _with_usable_vectors(encoded: Encoded, vectors: Vectors) -> Encoded:
    usable = _usable(vectors)
    fits = dict(zip(encoded.places, usable, strict=True))
    refused = encoded.refused | {place: NO_VECTOR for place in fits if not fits[place]}
    return Encoded([place for place in fits if fits[place]], vectors[usable], refused)


def _usable(vectors: Vectors) -> NDArray[np.bool_]:
    """Return which vectors (n, dims) can be stored: finite in half precision, not all zero."""
    with np.errstate(over="ignore"):
        halves = vectors.astype(np.float16)
    return np.logical_and(np.isfinite(halves).all(axis=1), halves.any(axis=1))
