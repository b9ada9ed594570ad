"""What a worker encodes: it claims texts and items, encodes them, and stores the vectors."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psycopg
import structlog

from pgrec_worker.encoding import Encoding
from pgrec_worker.space import Space

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pgrec_worker.metrics import Metrics
    from pgrec_worker.store import Store, WaitingItem, WaitingText
    from rec_pkg.encoder import Encoder

SETTLING_S: Final = 0.2
MOST_ROUNDS: Final = 16  # of encoding texts before events are folded

log = structlog.get_logger("worker")


class Claims:
    """
    The encoding part of a worker's work, up to `batch` texts or items at a time.

    A claim is an advisory lock of the session. No transaction is open while vectors are computed,
    and a crash releases the claims with the session.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        metrics: Metrics,
        batch: int,
        stopping: asyncio.Event,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._metrics = metrics
        self._batch = batch
        self._stopping = stopping
        self._encoding = Encoding(encoder, metrics)
        self._space = Space(encoder.fingerprint)
        self.new_vectors = False
        """Whether vectors were stored since events that wait for one were last retried."""

    async def encode_all_texts(self) -> int:
        """Encode texts as long as new ones arrive, up to a limit of rounds."""
        encoded = 0
        for _ in range(MOST_ROUNDS):
            texts = await self.encode_texts()
            encoded += texts
            if not texts or self._stopping.is_set():
                break
        return encoded

    async def encode_texts(self) -> int:
        """Encode a batch of waiting texts and return its size."""
        return await self._in_the_active_space(self._encode_claimed_texts)

    async def encode_items(self) -> int:
        """Encode a batch of waiting items and return its size."""
        return await self._in_the_active_space(self._encode_claimed_items)

    async def _in_the_active_space(self, encode: Callable[[], Awaitable[int]]) -> int:
        """Encode and store; roll back and postpone what is refused since the vectors moved."""
        before = self._space
        try:
            encoded = await encode()
        except psycopg.errors.LockNotAvailable:
            await self._until_settled()
            await self.find_space()
        except psycopg.errors.ObjectNotInPrerequisiteState:
            await self.find_space()
            if self._space == before:
                raise
        else:
            self.new_vectors |= encoded > 0
            return encoded
        return 1

    async def _until_settled(self) -> None:
        log.info("vectors are being moved to another space, waiting")
        while not self._stopping.is_set() and not await self._store.settled():
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLING_S):
                    await self._stopping.wait()

    async def find_space(self) -> None:
        """
        Find the space of the stored vectors.

        Raises:
            EncoderMismatch: if they are those of another encoder.
        """
        before = self._space
        self._space = Space.of(await self._store.active_encoder(), self._encoder.fingerprint)
        if self._space != before:
            log.info(
                "vectors are stored in another space", fingerprint=self._space.fingerprint[:12]
            )

    async def _encode_claimed_texts(self) -> int:
        async with self._store.claims():
            texts = await self._store.claim_texts(self._batch)
            if not texts:
                return 0
            encoded = await self._encoding.texts(texts, self._space)
            stored = [texts[place] for place in encoded.places]
            await self._store.store_texts(self._space.fingerprint, stored, encoded.vectors)
            for place, reason in encoded.refused.items():
                await self._park_text(texts[place], reason)
        self._metrics.encoded.labels("text").inc(len(stored))
        return len(texts)

    async def _encode_claimed_items(self) -> int:
        async with self._store.claims():
            items = await self._store.claim_items(self._batch)
            if not items:
                return 0
            encoded = await self._encoding.items(items, self._space)
            stored = [items[place] for place in encoded.places]
            await self._store.store_items(self._space.fingerprint, stored, encoded.vectors)
            for place, reason in encoded.refused.items():
                await self._fail_item(items[place], reason)
        self._metrics.encoded.labels("item").inc(len(stored))
        return len(items)

    async def _park_text(self, text: WaitingText, reason: str) -> None:
        self._metrics.failures.inc()
        log.warning("a text cannot be encoded", event_id=text.event_id, error=reason)
        await self._store.park_text(text, f"the text cannot be encoded: {reason}")

    async def _fail_item(self, item: WaitingItem, reason: str) -> None:
        self._metrics.failures.inc()
        log.warning("an item cannot be encoded", item_id=item.item_id, error=reason)
        await self._store.fail_item(item, reason)
