"""The loop of a connected worker: drain the queue, sleep, drain again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
import structlog

from pgrec_worker.claiming import Claims
from pgrec_worker.failures import blames_the_server, is_passing
from pgrec_worker.resting import Resting
from pgrec_worker.upkeep import Upkeep
from rec_pkg import schema
from rec_pkg.errors import Pooled, SchemaMismatch, SchemaMissing

if TYPE_CHECKING:
    from pgrec_worker.metrics import Metrics
    from pgrec_worker.store import Store
    from rec_pkg.encoder import Encoder
    from rec_pkg.settings import Settings

REST_S: Final = 0.1
FEW: Final = 250  # events; fewer than are folded in the time of a rest
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
        self._claims = Claims(store, encoder, metrics, settings.encode_batch, stopping)
        self._upkeep = Upkeep(store, metrics)
        self._resting = Resting(store, self._claims, settings.poll_seconds, stopping)
        self.drained = False
        """Whether the queue was empty at least once, which shows that the server is well."""

    async def prepare(self) -> None:
        """
        Check that database, package and encoder fit together, and that notifications arrive.

        Raises:
            SchemaMissing: if the database was never migrated.
            SchemaTorn: if only one of its two schemas is there.
            SchemaMismatch: if another version migrated it.
            EncoderMismatch: if the database holds vectors of another encoder.
            Pooled: if notifications do not arrive.
        """
        face, engine = await self._store.schemas()
        if not schema.is_whole(face=face, engine=engine):
            raise SchemaMissing
        if await self._store.sql_digest() != schema.sql_digest():
            raise SchemaMismatch
        if not await self._store.hears(HEARING_S):
            raise Pooled
        await self._store.register_encoder(self._encoder)
        await self._claims.find_space()

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
                    await self._resting.sleep(self._round)
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
            done = await self._round()
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

    async def _round(self) -> Done:
        """Do one share of each kind of waiting work."""
        texts = await self._claims.encode_all_texts()
        folding = asyncio.ensure_future(self._fold_and_merge())
        try:
            meanwhile, heard = await self._resting.encode_until(folding)
        finally:
            folded, merged = await folding
        items = await self._claims.encode_items()
        if self._claims.new_vectors and items < self._settings.encode_batch:
            self._claims.new_vectors = False
            await self._store.hasten()
        return Done(texts + meanwhile, heard, folded, merged, items)

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
