"""The connections of a worker: opened, kept alive, watched and closed together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import scalar_row

from pgrec_worker.watch import Line, watch
from rec_pkg.errors import SchemaMissing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Connection = psycopg.AsyncConnection[Any]

KEEPALIVES: Final = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Both ends notice within a minute that the other is gone, and the server frees the claims."""


@dataclass(frozen=True, slots=True)
class Lines:
    """
    `work` stores vectors, `folds` folds events, `listener` receives notifications.

    One may fold while the other stores: each is used by one task at a time. The listener holds the
    sleepers' lock for its session, so it must reach the server directly and not through a
    transaction pooler.
    """

    work: Connection
    folds: Connection
    listener: Connection
    address: str

    @property
    def broken(self) -> bool:
        """Whether the connection that works or the one that folds is lost."""
        return any(line.closed or line.broken for line in (self.work, self.folds))

    @property
    def place(self) -> str:
        """The identity of this server among those in the address; it scopes process ids."""
        info = self.work.info
        return f"{info.hostaddr or info.host}:{info.port}"

    @property
    def sessions(self) -> list[int]:
        """Process ids of the server processes behind the connections."""
        return [line.info.backend_pid for line in (self.work, self.folds, self.listener)]

    @asynccontextmanager
    async def one_more(self, purpose: str) -> AsyncIterator[Connection]:
        """Open an additional connection, for work that may take minutes."""
        async with await _connect(self.address, f"pgrec worker ({purpose})") as connection:
            await _set_up(connection)
            yield connection

    async def prepare(self) -> None:
        """Set up each connection for its purpose."""
        for connection in (self.work, self.folds, self.listener):
            await _set_up(connection)
        await _find_vectors(self.work)
        await register_vector_async(self.work)
        # Work that a crash of the server undoes is queued again as a whole. So no commit has to
        # wait for its flush, and writers do not queue for the disk behind the worker.
        for connection in (self.work, self.folds):
            await connection.execute("select set_config('synchronous_commit', 'off', false)")
        await self.listener.execute("listen rec_events")

    @asynccontextmanager
    async def watched(self, patience_s: float) -> AsyncIterator[None]:
        """Cut the connections if the server stays silent without a reason."""

        async def is_at_work(pid: int) -> bool:
            """Ask over the listening connection whether the server is busy with another one."""
            cursor = self.listener.cursor(row_factory=scalar_row)
            await cursor.execute("select rec_internal.is_at_work(%s, %s)", [pid, patience_s])
            return bool(await cursor.fetchone())

        working = [Line(self.work), Line(self.folds)]
        watching = asyncio.ensure_future(
            watch(working, Line(self.listener), is_at_work, patience_s)
        )
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


@asynccontextmanager
async def open_lines(conninfo: str, patience_s: float) -> AsyncIterator[Lines]:
    """
    Open the connections, and close them at the end.

    They are cut if no answer has come for `patience_s` seconds and the server says that it is not
    working on one.
    """
    address = make_conninfo("", **(KEEPALIVES | conninfo_to_dict(conninfo)))
    async with (
        await _connect(address, "pgrec worker") as work,
        await _connect(address, "pgrec worker (folds)") as folds,
        await _connect(address, "pgrec worker (listens)") as listener,
    ):
        lines = Lines(work, folds, listener, address)
        async with lines.watched(patience_s):
            await lines.prepare()
            yield lines


async def _connect(address: str, name: str) -> Connection:
    return await psycopg.AsyncConnection.connect(address, autocommit=True, application_name=name)


async def _find_vectors(connection: Connection) -> None:
    """
    Find the types of pgvector, in whatever schema they are and whatever path the role has.

    Raises:
        SchemaMissing: if the database does not have the extension.
    """
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(
        "select set_config('search_path', e.extnamespace::regnamespace::text, false)"
        " from pg_extension e where e.extname = 'vector'"
    )
    if await cursor.fetchone() is None:
        raise SchemaMissing("it lacks the extension vector")


async def _set_up(connection: Connection) -> None:
    """
    Let the server notice soon that the worker is gone, and see the latest rows in each statement.

    At a higher isolation level a statement that waited for a lock would decide by an old snapshot.
    """
    await connection.execute(
        "select set_config('tcp_keepalives_idle', '30', false),"
        " set_config('tcp_keepalives_interval', '10', false),"
        " set_config('tcp_keepalives_count', '3', false),"
        " set_config('tcp_user_timeout', '30000', false),"
        " set_config('default_transaction_isolation', 'read committed', false)"
    )
