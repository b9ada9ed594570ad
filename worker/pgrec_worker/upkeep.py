"""The worker's periodic tasks: partitions, revival, retention, the vacuum after erasures."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psycopg
import structlog

if TYPE_CHECKING:
    from pgrec_worker.metrics import Metrics
    from pgrec_worker.store import Cleaner, Queue, Store

PARTITIONS_EVERY_S: Final = 6 * 3600.0
REVIVE_EVERY_S: Final = 300.0
HASTEN_EVERY_S: Final = 5.0
RETENTION_EVERY_S: Final = 24 * 3600.0
VACUUM_EVERY_S: Final = 600.0
RETRY_S: Final = 60.0

log = structlog.get_logger("worker")


class Upkeep:
    """The upkeep that is due between two rounds of work, by the clock of the event loop."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._partitions_due = 0.0
        self._revival_due = 0.0
        self._hasting_due = 0.0
        self._retention_due = 0.0
        self._vacuum_due = 0.0
        self._cleaning: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Do what is due: partitions immediately, long tasks in parallel with the work."""
        now = asyncio.get_running_loop().time()
        if now >= self._partitions_due:
            self._partitions_due = now + await self._make_partitions()
        if now >= self._revival_due:
            self._revival_due = now + REVIVE_EVERY_S
            await self._store.revive()
        if (self._cleaning is None or self._cleaning.done()) and await self._to_clean(now):
            self._cleaning = asyncio.create_task(self._clean(now))

    async def hasten(self, queue: Queue) -> None:
        """
        Retry events that wait for a vector although nothing is left to encode.

        The transaction that postponed them may not have committed when their vector came.
        """
        now = asyncio.get_running_loop().time()
        if queue.pending and not queue.items_to_encode and now >= self._hasting_due:
            self._hasting_due = now + HASTEN_EVERY_S
            await self._store.hasten()

    async def finish(self) -> None:
        """Wait for the cleanup that is in progress."""
        if self._cleaning is not None:
            await self._cleaning

    async def stop(self) -> None:
        """Cancel the cleanup that is in progress; this or another worker starts it again."""
        if self._cleaning is not None:
            self._cleaning.cancel()
            with suppress(asyncio.CancelledError):
                await self._cleaning

    async def _make_partitions(self) -> float:
        """Create the coming partitions and return the seconds until the next check."""
        try:
            made = await self._store.make_partitions()
        except psycopg.Error as error:
            if self._store.lines.broken:
                raise
            self._refused("partitions cannot be created now", error)
            return RETRY_S
        if made:
            log.info("partitions made", partitions=made)
        return PARTITIONS_EVERY_S

    async def _to_clean(self, now: float) -> bool:
        if now >= self._retention_due:
            return True
        return now >= self._vacuum_due and await self._store.vacuum_due()

    async def _clean(self, now: float) -> None:
        """Delete expired data and vacuum deleted rows, each independently of the other."""
        try:
            async with self._store.cleaner() as cleaner:
                if now >= self._retention_due:
                    await self._retain(cleaner, now)
                if cleared := await cleaner.vacuum():
                    self._vacuum_due = now + VACUUM_EVERY_S
                    log.info("deleted rows of erasures cleared", erasures=cleared)
        except psycopg.Error as error:
            self._vacuum_due = now + VACUUM_EVERY_S
            self._refused("erased data cannot be cleared now", error)

    async def _retain(self, cleaner: Cleaner, now: float) -> None:
        self._retention_due = now + RETRY_S
        try:
            while (done := await cleaner.retain()) is not None:
                log.info("old data dropped", what=done)
        except psycopg.Error as error:
            self._refused("old data cannot be dropped now", error)
        else:
            self._retention_due = now + RETENTION_EVERY_S

    def _refused(self, what: str, error: psycopg.Error) -> None:
        self._metrics.failures.inc()
        log.warning(what, error=str(error).strip())
