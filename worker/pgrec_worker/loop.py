"""The loop of a connected worker: drain the queue, sleep, drain again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
import structlog

from pgrec_worker.encoding import Encoding
from pgrec_worker.failures import blames_the_server, is_passing
from pgrec_worker.resting import Resting
from pgrec_worker.space import Space
from pgrec_worker.upkeep import Upkeep
from rec_pkg import schema
from rec_pkg.errors import Pooled, SchemaMismatch, SchemaMissing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pgrec_worker.metrics import Metrics
    from pgrec_worker.store import Store, WaitingItem, WaitingText
    from rec_pkg.encoder import Encoder
    from rec_pkg.settings import Settings

REST_S: Final = 0.1
FEW: Final = 250  # events; fewer than are folded in the time of a rest
SETTLING_S: Final = 0.2
MOST_ROUNDS: Final = 16  # of encoding texts before events are folded
MOST_RESTS: Final = 30  # before upkeep gets its turn, under a load that never ends
HEARING_S: Final = 5.0

log = structlog.get_logger("worker")


class Done(NamedTuple):
    """How much of each kind of work a round did, and how many notifications came meanwhile."""

    texts: int
    heard: int
    folded: int
    merged: int
    items: int


class Loop:
    """The work of one connected worker; it ends when `stopping` is set or the connection breaks."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        settings: Settings,
        metrics: Metrics,
        stopping: asyncio.Event,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._settings = settings
        self._metrics = metrics
        self._stopping = stopping
        self._encoding = Encoding(encoder, metrics)
        self._space = Space(encoder.fingerprint)
        self._upkeep = Upkeep(store, metrics)
        self._resting = Resting(store, self, settings.poll_seconds, stopping)
        self._new_vectors = False  # since events that wait for a vector were last retried
        self.drained = False
        """Whether the queue was empty at least once, which shows that the server is well."""

    async def prepare(self) -> None:
        """
        Check that database, package and encoder fit together, and that notifications arrive.

        Raises:
            SchemaMissing: if the database has no schema rec.
            SchemaMismatch: if another version migrated it.
            EncoderMismatch: if the database holds vectors of another encoder.
            Pooled: if notifications do not arrive.
        """
        try:
            digest = await self._store.sql_digest()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise SchemaMissing from error
        if digest != schema.sql_digest():
            raise SchemaMismatch
        if not await self._store.hears(HEARING_S):
            raise Pooled
        await self._store.register_encoder(self._encoder)
        await self._find_space()

    async def run(self, *, once: bool = False) -> None:
        """Drain and sleep in turn until told to stop; with `once`, until the queue is empty."""
        try:
            while not self._stopping.is_set():
                await self._upkeep.look()
                await self.drain(rest=not once)
                self.drained = True
                queue = await self._store.queue()
                self._metrics.observe(queue)
                await self._upkeep.hasten(queue)
                if not once:
                    await self._resting.sleep()
                elif queue.pending == 0:
                    await self._upkeep.finish()
                    return
                else:  # postponed, or claimed by another worker
                    await asyncio.sleep(await self._store.seconds_to_retry(longest=1))
        finally:
            await self._upkeep.stop()

    async def drain(self, *, rest: bool = False) -> None:
        """
        Work until nothing is left for this worker.

        Texts come first, because a person waits for their effect. Other workers are woken once if
        the first round left a backlog. With `rest`, events may gather between rounds that found
        few; after a limited number of such rounds the method returns, however many events remain.
        """
        rounds = rests = 0
        while not self._stopping.is_set():
            done = await self.round()
            if not any(done):
                break
            rounds += 1
            if rounds == 1 and await self._store.has_work():
                await self._store.wake_others()
            if rest and done.folded < FEW and not done.items:
                await self._resting.rest(REST_S)
                rests += 1
            if rests == MOST_RESTS:
                break

    async def round(self) -> Done:
        """Do one share of each kind of waiting work."""
        texts = await self.encode_all_texts()
        folding = asyncio.ensure_future(self._fold_and_merge())
        try:
            meanwhile, heard = await self._resting.encode_until(folding)
        finally:
            folded, merged = await folding
        items = await self._encode_items()
        if self._new_vectors and items < self._settings.encode_batch:
            self._new_vectors = False
            await self._store.hasten()
        return Done(texts + meanwhile, heard, folded, merged, items)

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

    async def _fold_and_merge(self) -> tuple[int, int]:
        return await self._fold(), await self._merge()

    async def _fold(self) -> int:
        with self._metrics.fold_seconds.time():
            try:
                folded = await self._store.apply_pending(self._settings.fold_batch)
            except psycopg.Error as error:
                self._refused("a batch cannot be folded, folding user by user", error)
                folded = await self._fold_one_by_one()
        self._metrics.folded.inc(folded)
        if folded:
            log.debug("folded", events=folded)
        return folded

    async def _merge(self) -> int:
        try:
            return await self._store.merge_deltas()
        except psycopg.Error as error:
            self._refused("counts cannot be merged now", error)
            return 0

    def _refused(self, what: str, error: psycopg.Error) -> None:
        """Log that a statement was refused; raise the error if no other would fare better."""
        if self._store.lines.broken or blames_the_server(error):
            raise error
        self._warn(what, error)

    def _warn(self, what: str, error: psycopg.Error) -> None:
        self._metrics.failures.inc()
        log.warning(what, error=str(error))

    async def _fold_one_by_one(self) -> int:
        folded = 0
        waiting = await self._store.oldest_pending(self._settings.fold_batch)
        for user_id in dict.fromkeys(user_id for user_id, _ in waiting):
            try:
                folded += await self._store.apply_user(user_id)
            except psycopg.Error as error:
                self._refused("events of a user cannot be folded together", error)
                for event_id in [event for owner, event in waiting if owner == user_id]:
                    folded += await self._fold_event(user_id, event_id)
        return folded

    async def _fold_event(self, user_id: str, event_id: int) -> bool:
        """Fold a single event. If it is refused even alone, it is the one to blame."""
        try:
            return await self._store.apply_event(user_id, event_id)
        except psycopg.Error as error:
            self._refused("an event cannot be folded", error)
            if not is_passing(error):
                await self._store.park(user_id, event_id, str(error))
        return False

    async def _encode_items(self) -> int:
        return await self._in_the_active_space(self._encode_claimed_items)

    async def _in_the_active_space(self, encode: Callable[[], Awaitable[int]]) -> int:
        """Encode and store; roll back and postpone what is refused since the vectors moved."""
        before = self._space
        try:
            encoded = await encode()
        except psycopg.errors.LockNotAvailable:
            await self._until_settled()
            await self._find_space()
        except psycopg.errors.ObjectNotInPrerequisiteState:
            await self._find_space()
            if self._space == before:
                raise
        else:
            self._new_vectors |= encoded > 0
            return encoded
        return 1

    async def _until_settled(self) -> None:
        log.info("vectors are being moved to another space, waiting")
        while not self._stopping.is_set() and not await self._store.settled():
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLING_S):
                    await self._stopping.wait()

    async def _find_space(self) -> None:
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
        async with self._store.transaction():
            texts = await self._store.claim_texts(self._settings.encode_batch)
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
        async with self._store.transaction():
            items = await self._store.claim_items(self._settings.encode_batch)
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
