"""Every call that the worker makes to the database, and nothing else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, LiteralString, Self, TypeVar

import psycopg
from pgvector import HalfVector
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from pgrec_worker.lines import Lines, open_lines
from pgrec_worker.watch import PATIENCE_S
from rec_pkg import schema
from rec_pkg.encoder.store import ActiveEncoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rec_pkg.encoder import Encoder

Sleep = Literal["asleep", "guarded", "busy"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WaitingItem:
    """An item whose content has no vector yet; `attributes` are still encoded as JSON."""

    item_id: str
    title: str
    body: str
    attributes: str
    tags: list[str]
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class WaitingText:
    """A text of a queued event that has no vector yet."""

    text_hash: bytes
    text: str
    user_id: str
    event_id: int


@dataclass(frozen=True, slots=True)
class Queue:
    """The state of the queue at one moment; `lag_seconds` is the age of the oldest queued event."""

    pending: int
    parked: int
    lag_seconds: float
    items_to_encode: int


class Cleaner:
    """A connection that deletes expired and erased data."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def retain(self) -> str | None:
        """Delete one part of the expired data and return what it was; None if nothing is left."""
        cursor = self._connection.cursor(row_factory=scalar_row)
        await cursor.execute("select rec.apply_retention()")
        done: str | None = await cursor.fetchone()
        return done

    async def vacuum(self) -> int:
        """Clear the rows that erasures deleted; return the number of completed erasures."""
        begun = await self._connection.execute("select * from rec_internal.begin_vacuum()")
        plan = await begun.fetchall()
        for statement, _ in plan:
            await self._connection.execute(statement.encode())
        if not plan:
            return 0
        _, erasures = plan[0]
        await self._connection.execute("select rec_internal.end_vacuum(%s)", [erasures])
        return len(erasures)


class Store:
    """The worker's calls to its database, each on the connection meant for it."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    @classmethod
    @asynccontextmanager
    async def connect(cls, conninfo: str, patience_s: float = PATIENCE_S) -> AsyncIterator[Self]:
        """Open the connections, and close them at the end; `open_lines` says when they are cut."""
        async with open_lines(conninfo, patience_s) as lines:
            yield cls(lines)

    async def end_sessions(self, pids: list[int]) -> int:
        """End those of these worker sessions that still exist, and return how many there were."""
        return await self._value(int, "select rec_internal.end_sessions(%s)", pids)

    async def hears(self, timeout_s: float) -> bool:
        """Send a NOTIFY and return whether it arrives; through a pooler it may not."""
        await self.wake_others()
        if await self.notified(timeout_s):
            return True
        await self.lines.listener.execute("")  # an answer carries the notifications before it
        return await self.notified(0)

    async def schemas(self) -> tuple[bool, bool]:
        """Return whether schema `rec` and schema `rec_internal` are there."""
        cursor = await self.lines.work.execute(schema.FOUND)
        face, engine = await cursor.fetchone() or (False, False)
        return face, engine

    async def sql_digest(self) -> str:
        """Return the digest of the re-run objects that the database was migrated with."""
        return await self._value(str, "select sql_digest from rec_internal.state")

    async def register_encoder(self, encoder: Encoder) -> None:
        """Register an encoder; it becomes the active one if there is none yet."""
        await self._call(
            "select rec_internal.register_encoder(%s, %s, %s, %s)",
            encoder.fingerprint,
            encoder.record.name,
            Jsonb(encoder.record.model_dump(mode="json")),
            encoder.dims,
        )

    async def active_encoder(self) -> ActiveEncoder:
        """Return the encoder whose vectors are stored."""
        async with self.lines.work.cursor(row_factory=class_row(ActiveEncoder)) as cursor:
            await cursor.execute("select * from rec_internal.active_encoder()")
            active = await cursor.fetchone()
        if active is None:
            raise psycopg.DataError
        return active

    async def settled(self) -> bool:
        """Return whether vectors may be stored, because no calibration is moving them."""
        return await self._value(bool, "select rec_internal.try_share_space()")

    async def make_partitions(self) -> int:
        """Create the partitions of the coming months and return how many were missing."""
        return await self._value(int, "select rec.make_partitions()")

    async def vacuum_due(self) -> bool:
        """Return whether erasures left rows that a vacuum can clear."""
        return await self._value(bool, "select rec_internal.vacuum_due()")

    @asynccontextmanager
    async def cleaner(self) -> AsyncIterator[Cleaner]:
        """Open an additional connection, for work that may take minutes."""
        async with self.lines.one_more("cleans") as connection:
            yield Cleaner(connection)

    @asynccontextmanager
    async def claims(self) -> AsyncIterator[None]:
        """Release at the end what is claimed meanwhile; a broken connection has released it."""
        try:
            yield
        finally:
            if not (self.lines.work.closed or self.lines.work.broken):
                await self._call("select rec_internal.release_claims()")

    async def claim_items(self, limit: int) -> list[WaitingItem]:
        """Claim up to `limit` new or changed items."""
        async with self.lines.work.cursor(row_factory=class_row(WaitingItem)) as cursor:
            await cursor.execute("select * from rec_internal.claim_items(%s)", [limit])
            return await cursor.fetchall()

    async def claim_texts(self, limit: int) -> list[WaitingText]:
        """Claim up to `limit` texts of queued events."""
        async with self.lines.work.cursor(row_factory=class_row(WaitingText)) as cursor:
            await cursor.execute("select * from rec_internal.claim_texts(%s)", [limit])
            return await cursor.fetchall()

    async def store_items(
        self, fingerprint: str, items: Sequence[WaitingItem], vectors: NDArray[np.float32]
    ) -> int:
        """Store the vectors (n, dims) of items and return how many items still exist."""
        return await self._value(
            int,
            "select rec_internal.store_items(%s, %s, %s, %b)",
            fingerprint,
            [item.item_id for item in items],
            [item.content_hash for item in items],
            [HalfVector(vector) for vector in vectors],
        )

    async def store_texts(
        self, fingerprint: str, texts: Sequence[WaitingText], vectors: NDArray[np.float32]
    ) -> int:
        """Store the vectors (n, dims) of texts and return how many were new."""
        return await self._value(
            int,
            "select rec_internal.store_texts(%s, %s, %b)",
            fingerprint,
            [text.text_hash for text in texts],
            [HalfVector(vector) for vector in vectors],
        )

    async def fail_item(self, item: WaitingItem, error: str) -> None:
        """Record that this content of an item cannot be encoded."""
        await self._call(
            "select rec_internal.fail_item(%s, %s, %s)", item.item_id, item.content_hash, error
        )

    async def park_text(self, text: WaitingText, error: str) -> None:
        """Count a failure of a claimed text's event; after enough failures the event is parked."""
        await self._call(
            "select rec_internal.park(%s, %s, %s)", [text.user_id], [text.event_id], error
        )

    async def apply_pending(self, limit: int) -> int:
        """Fold about `limit` of the oldest queued events and return the number folded."""
        return await self._folding(int, "select rec.apply_pending(%s)", limit)

    async def apply_user(self, user_id: str) -> int:
        """Fold the queued events of one user and return the number folded."""
        return await self._folding(int, "select rec.apply_users(%s)", [user_id])

    async def apply_event(self, user_id: str, event_id: int) -> bool:
        """Fold one queued event and return whether it left the queue."""
        return await self._folding(
            bool, "select rec_internal.apply_event(%s, %s)", user_id, event_id
        )

    async def oldest_pending(self, limit: int) -> list[tuple[str, int]]:
        """Return user and event id of the oldest queued events."""
        cursor = await self.lines.folds.execute(
            "select * from rec_internal.oldest_pending(%s)", [limit]
        )
        return await cursor.fetchall()

    async def park(self, user_id: str, event_id: int, error: str) -> None:
        """Count a failure to fold an event; after enough failures it is parked."""
        await self.lines.folds.execute(
            "select rec_internal.park(%s, %s, %s)", ([user_id], [event_id], error)
        )

    async def merge_deltas(self) -> int:
        """Merge the deltas of folded events into the shared counts and return how many deltas."""
        return await self._folding(int, "select rec.merge_deltas()")

    async def hasten(self) -> int:
        """Make events that waited for a vector due now, and return how many."""
        return await self._value(int, "select rec_internal.retry_waiting()")

    async def revive(self) -> int:
        """Put parked events back in the queue whose item exists now, and return how many."""
        return await self._value(int, "select rec_internal.retry_known()")

    async def has_work(self) -> bool:
        """Return whether any work is queued."""
        return await self._value(bool, "select rec_internal.has_work()")

    async def seconds_to_retry(self, longest: float) -> float:
        """Return the seconds until a postponed event is due, at most `longest`."""
        return await self._value(float, "select rec_internal.seconds_to_retry(%s)", longest)

    async def queue(self) -> Queue:
        """Return the state of the queue, for the metrics."""
        async with self.lines.work.cursor(row_factory=class_row(Queue)) as cursor:
            await cursor.execute("select * from rec_internal.queue")
            queue = await cursor.fetchone()
        if queue is None:
            raise psycopg.DataError
        return queue

    async def wake_others(self) -> None:
        """Wake sleeping workers, because there is a backlog."""
        await self._call("select rec.wake()")

    async def try_sleep(self) -> Sleep:
        """Try to become the worker that writers notify."""
        return await self._try("select rec_internal.try_sleep(rec_internal.sleep_lock())")

    async def stop_sleeping(self) -> None:
        """Release the sleepers' lock."""
        await self.lines.listener.execute(
            "select rec_internal.stop_sleeping(rec_internal.sleep_lock())"
        )

    async def try_rest(self, patience_s: float) -> Sleep:
        """Try to become the worker that writers of texts notify; wait for those about to commit."""
        return await self._try(
            "select rec_internal.try_sleep(rec_internal.rest_lock(), %s)", patience_s
        )

    async def stop_resting(self) -> None:
        """Release the lock of resting workers."""
        await self.lines.listener.execute(
            "select rec_internal.stop_sleeping(rec_internal.rest_lock())"
        )

    async def _try(self, query: LiteralString, *parameters: object) -> Sleep:
        cursor = self.lines.listener.cursor(row_factory=scalar_row)
        await cursor.execute(query, parameters)
        state: Sleep | None = await cursor.fetchone()
        return state or "busy"

    async def notified(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for a NOTIFY and return whether one came."""
        heard = self.lines.listener.notifies(timeout=timeout_s, stop_after=1)
        return bool([notification async for notification in heard])

    async def _value(self, kind: type[T], query: LiteralString, *parameters: object) -> T:
        return await _one(self.lines.work, kind, query, parameters)

    async def _folding(self, kind: type[T], query: LiteralString, *parameters: object) -> T:
        return await _one(self.lines.folds, kind, query, parameters)

    async def _call(self, query: LiteralString, *parameters: object) -> None:
        await self.lines.work.execute(query, parameters)


async def _one(
    line: psycopg.AsyncConnection[Any],
    kind: type[T],
    query: LiteralString,
    parameters: Sequence[object],
) -> T:
    """
    Return the one value that a query returns.

    Raises:
        psycopg.DataError: if it is of another type.
    """
    cursor = line.cursor(row_factory=scalar_row)
    await cursor.execute(query, parameters)
    value = await cursor.fetchone()
    if not isinstance(value, kind):
        raise psycopg.DataError(f"{query} gave {value!r}")
    return value
