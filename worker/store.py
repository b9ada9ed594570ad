"""Every call that the worker makes to the database, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, LiteralString, Self, TypeVar

import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector_async
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from rec_pkg.statements import ActiveEncoder
from worker.watch import PATIENCE_S, Line, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rec_pkg.encoder import Encoder

Vigil = Literal["asleep", "guarded", "busy"]
T = TypeVar("T")
KEEPALIVES: Final = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Both ends notice within a minute that the other one is gone, and the server frees our claims."""


@dataclass(frozen=True, slots=True)
class WaitingItem:
    """An item whose content has no vector yet."""

    item_id: str
    title: str
    body: str
    attributes: dict[str, Any]
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
    """What waits, as of a moment; `lag_seconds` is the age of the oldest queued event."""

    pending: int
    parked: int
    lag_seconds: float
    items_to_encode: int


class Cleaner:
    """A connection that drops what is not to stay."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def retain(self) -> str | None:
        """Drop a part of what is not to stay and say what; None if nothing is left."""
        cursor = self._connection.cursor(row_factory=scalar_row)
        await cursor.execute("select rec.apply_retention()")
        done: str | None = await cursor.fetchone()
        return done

    async def vacuum(self) -> int:
        """Clear the rows that erasures deleted; return how many erasures are done with."""
        begun = await self._connection.execute("select * from rec.begin_vacuum()")
        plan = await begun.fetchall()
        for statement, _ in plan:
            await self._connection.execute(statement.encode())
        if not plan:
            return 0
        _, erasures = plan[0]
        await self._connection.execute("select rec.end_vacuum(%s)", [erasures])
        return len(erasures)


class Store:
    """
    The connections of a worker: one stores vectors, one folds, one listens, at times one cleans.

    One may fold while the other stores: each is used by one task at a time. The listener holds the
    sleepers' lock for its session, so it must reach the server directly and not through a
    transaction pooler.
    """

    def __init__(
        self,
        work: psycopg.AsyncConnection[Any],
        folds: psycopg.AsyncConnection[Any],
        listener: psycopg.AsyncConnection[Any],
        conninfo: str,
        patience_s: float,
    ) -> None:
        self._work = work
        self._folds = folds
        self._listener = listener
        self._conninfo = conninfo
        self._patience_s = patience_s

    @classmethod
    @asynccontextmanager
    async def connect(cls, conninfo: str, patience_s: float = PATIENCE_S) -> AsyncIterator[Self]:
        """
        Open the connections, and close them at the end.

        They are cut when no answer has come for `patience_s` seconds and the server, asked, is not
        at work on it.
        """
        address = make_conninfo("", **(KEEPALIVES | conninfo_to_dict(conninfo)))
        async with (
            await _connect(address, "pgrec worker") as work,
            await _connect(address, "pgrec worker (folds)") as folds,
            await _connect(address, "pgrec worker (listens)") as listener,
        ):
            store = cls(work, folds, listener, address, patience_s)
            async with store._watched():
                await store._open()
                yield store

    @property
    def broken(self) -> bool:
        """Whether a connection that works or folds is lost."""
        return any(line.closed or line.broken for line in (self._work, self._folds))

    @property
    def place(self) -> str:
        """Which of the servers in the conninfo this is; a process id means nothing at another."""
        info = self._work.info
        return f"{info.hostaddr or info.host}:{info.port}"

    @property
    def sessions(self) -> list[int]:
        """Process ids of the server's side of the connections."""
        lines = (self._work, self._folds, self._listener)
        return [line.info.backend_pid for line in lines]

    async def end_sessions(self, pids: list[int]) -> int:
        """End what is left of these sessions of workers and return how many there were."""
        return await self._value(int, "select rec.end_sessions(%s)", pids)

    async def hears(self, timeout_s: float) -> bool:
        """Notify ourselves and return whether it is heard; through a pooler it may not be."""
        await self.wake_others()
        if await self.notified(timeout_s):
            return True
        await self._listener.execute("")  # an answer brings along what came before it
        return await self.notified(0)

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Have the lines cut when the server is silent without reason."""
        watching = asyncio.ensure_future(
            watch(
                [Line(self._work), Line(self._folds)],
                Line(self._listener),
                self._is_at_work,
                self._patience_s,
            )
        )
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _open(self) -> None:
        for connection in (self._work, self._folds, self._listener):
            await _keep_alive(connection)
        await register_vector_async(self._work)
        # What a crash of the server takes back of our work waits again, as a whole. So nothing of
        # it need be flushed by itself, and writers do not queue for the disk behind us.
        for connection in (self._work, self._folds):
            await connection.execute("select set_config('synchronous_commit', 'off', false)")
        await self._listener.execute("listen rec_events")

    async def _is_at_work(self, pid: int) -> bool:
        """Ask on the listening connection whether the server is busy with another one."""
        cursor = self._listener.cursor(row_factory=scalar_row)
        await cursor.execute("select rec.is_at_work(%s, %s)", [pid, self._patience_s])
        return bool(await cursor.fetchone())

    async def sql_digest(self) -> str:
        """Return the digest of the re-run objects that the database was migrated with."""
        return await self._value(str, "select sql_digest from rec.settings")

    async def register_encoder(self, encoder: Encoder) -> None:
        """Offer an encoder: it is the active one if there is none yet."""
        await self._call(
            "select rec.register_encoder(%s, %s, %s, %s)",
            encoder.fingerprint,
            encoder.record.name,
            Jsonb(encoder.record.model_dump(mode="json")),
            encoder.dims,
        )

    async def active_encoder(self) -> ActiveEncoder:
        """Return the encoder whose vectors are stored."""
        async with self._work.cursor(row_factory=class_row(ActiveEncoder)) as cursor:
            await cursor.execute("select * from rec.active_encoder()")
            active = await cursor.fetchone()
        if active is None:
            raise psycopg.DataError
        return active

    async def settled(self) -> bool:
        """Return whether vectors may be stored: no calibration is moving them."""
        return await self._value(bool, "select rec.try_share_space()")

    async def make_partitions(self) -> int:
        """Make the partitions of the months ahead and return how many were missing."""
        return await self._value(int, "select rec.make_partitions()")

    async def vacuum_due(self) -> bool:
        """Return whether erasures left rows that a vacuum can clear."""
        return await self._value(bool, "select rec.vacuum_due()")

    @asynccontextmanager
    async def cleaner(self) -> AsyncIterator[Cleaner]:
        """Open a connection beside the work, for what may take minutes."""
        async with await _connect(self._conninfo, "pgrec worker (cleans)") as connection:
            await _keep_alive(connection)
            yield Cleaner(connection)

    def transaction(self) -> Any:  # noqa: ANN401  # psycopg's own context manager
        """Open a transaction on the working connection; claims hold until it ends."""
        return self._work.transaction()

    async def claim_items(self, limit: int) -> list[WaitingItem]:
        """Claim up to `limit` new or changed items."""
        async with self._work.cursor(row_factory=class_row(WaitingItem)) as cursor:
            await cursor.execute("select * from rec.claim_items(%s)", [limit])
            return await cursor.fetchall()

    async def claim_texts(self, limit: int) -> list[WaitingText]:
        """Claim up to `limit` texts of queued events."""
        async with self._work.cursor(row_factory=class_row(WaitingText)) as cursor:
            await cursor.execute("select * from rec.claim_texts(%s)", [limit])
            return await cursor.fetchall()

    async def store_items(
        self, fingerprint: str, items: Sequence[WaitingItem], vectors: NDArray[np.float32]
    ) -> int:
        """Store the vectors (n, dims) of items and return how many items still exist."""
        return await self._value(
            int,
            "select rec.store_items(%s, %s, %s, %b)",
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
            "select rec.store_texts(%s, %s, %b)",
            fingerprint,
            [text.text_hash for text in texts],
            [HalfVector(vector) for vector in vectors],
        )

    async def fail_item(self, item: WaitingItem, error: str) -> None:
        """Note that this content of an item cannot be encoded."""
        await self._call("select rec.fail_item(%s, %s, %s)", item.item_id, item.content_hash, error)

    async def park_text(self, text: WaitingText, error: str) -> None:
        """Count a failure of the event of a claimed text; after enough of them it is parked."""
        await self._call("select rec.park(%s, %s, %s)", [text.user_id], [text.event_id], error)

    async def apply_pending(self, limit: int) -> int:
        """Fold about `limit` of the oldest queued events and return how many."""
        return await self._folding(int, "select rec.apply_pending(%s)", limit)

    async def apply_user(self, user_id: str) -> int:
        """Fold what is queued of one user and return how many events."""
        return await self._folding(int, "select rec.apply_users(%s)", [user_id])

    async def apply_event(self, user_id: str, event_id: int) -> bool:
        """Fold one queued event and return whether it left the queue."""
        return await self._folding(bool, "select rec.apply_event(%s, %s)", user_id, event_id)

    async def oldest_pending(self, limit: int) -> list[tuple[str, int]]:
        """Return user and event id of the oldest queued events."""
        cursor = await self._folds.execute("select * from rec.oldest_pending(%s)", [limit])
        return await cursor.fetchall()

    async def park(self, user_id: str, event_id: int, error: str) -> None:
        """Count a failure to fold an event; after enough of them it is parked."""
        await self._folds.execute("select rec.park(%s, %s, %s)", ([user_id], [event_id], error))

    async def merge_deltas(self) -> int:
        """Merge what folded events add to the shared counts and return how many deltas."""
        return await self._folding(int, "select rec.merge_deltas()")

    async def hasten(self) -> int:
        """Try again at once what waited for a vector, and return how many events."""
        return await self._value(int, "select rec.hasten()")

    async def revive(self) -> int:
        """Put events back whose item has come after all, and return how many."""
        return await self._value(int, "select rec.revive()")

    async def has_work(self) -> bool:
        """Return whether anything waits."""
        return await self._value(bool, "select rec.has_work()")

    async def seconds_to_retry(self, longest: float) -> float:
        """Return the seconds until a postponed event is due, at most `longest`."""
        return await self._value(float, "select rec.seconds_to_retry(%s)", longest)

    async def queue(self) -> Queue:
        """Return what waits, for the metrics."""
        async with self._work.cursor(row_factory=class_row(Queue)) as cursor:
            await cursor.execute("select * from rec.queue")
            queue = await cursor.fetchone()
        if queue is None:
            raise psycopg.DataError
        return queue

    async def wake_others(self) -> None:
        """Wake sleeping workers: there is a backlog."""
        await self._call("select rec.wake()")

    async def try_sleep(self) -> Vigil:
        """Try to become the one whom writers notify."""
        return await self._vigil("select rec.try_sleep(rec.sleep_lock())")

    async def stop_sleeping(self) -> None:
        """Give the sleepers' lock back."""
        await self._listener.execute("select rec.stop_sleeping(rec.sleep_lock())")

    async def try_rest(self, patience_s: float) -> Vigil:
        """Try to become the one whom writers of texts notify; wait for those that are at it."""
        return await self._vigil("select rec.try_sleep(rec.rest_lock(), %s)", patience_s)

    async def stop_resting(self) -> None:
        """Give the lock of those who rest back."""
        await self._listener.execute("select rec.stop_sleeping(rec.rest_lock())")

    async def _vigil(self, query: LiteralString, *parameters: object) -> Vigil:
        cursor = self._listener.cursor(row_factory=scalar_row)
        await cursor.execute(query, parameters)
        state: Vigil | None = await cursor.fetchone()
        return state or "busy"

    async def notified(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for a NOTIFY and return whether one came."""
        heard = self._listener.notifies(timeout=timeout_s, stop_after=1)
        return bool([notification async for notification in heard])

    async def _value(self, kind: type[T], query: LiteralString, *parameters: object) -> T:
        return await _one(self._work, kind, query, parameters)

    async def _folding(self, kind: type[T], query: LiteralString, *parameters: object) -> T:
        return await _one(self._folds, kind, query, parameters)

    async def _call(self, query: LiteralString, *parameters: object) -> None:
        await self._work.execute(query, parameters)


async def _connect(conninfo: str, name: str) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True, application_name=name)


async def _one(
    line: psycopg.AsyncConnection[Any],
    kind: type[T],
    query: LiteralString,
    parameters: Sequence[object],
) -> T:
    """
    Return the one value that a query gives.

    Raises:
        psycopg.DataError: if it is of another kind.
    """
    cursor = line.cursor(row_factory=scalar_row)
    await cursor.execute(query, parameters)
    value = await cursor.fetchone()
    if not isinstance(value, kind):
        raise psycopg.DataError(f"{query} gave {value!r}")
    return value


async def _keep_alive(connection: psycopg.AsyncConnection[Any]) -> None:
    """Have the server notice soon that we are gone."""
    await connection.execute(
        "select set_config('tcp_keepalives_idle', '30', false),"
        " set_config('tcp_keepalives_interval', '10', false),"
        " set_config('tcp_keepalives_count', '3', false),"
        " set_config('tcp_user_timeout', '30000', false)"
    )
