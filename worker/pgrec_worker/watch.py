"""
Detects a dead connection that neither end knows about.

If a router forgets a connection or a proxy hangs, neither an answer nor an error comes. Keepalives
do not reach beyond a live proxy. So a worker that waits long for an answer asks the server, over
the other connection, whether it is still working on it; slow statements are not cut.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import structlog
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import psycopg

PATIENCE_S: Final = 10.0
LOOKS: Final = 10
"""How often a connection is checked before the server is asked."""

log = structlog.get_logger("worker")


class Line:
    """A connection, and the time since which an answer has been awaited on it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._since: float | None = None

    def silence(self) -> float:
        """Check the connection; return for how many seconds every check has found it waiting."""
        now = asyncio.get_running_loop().time()
        if self._connection.info.transaction_status != TransactionStatus.ACTIVE:
            self._since = None
        elif self._since is None:
            self._since = now
        return 0.0 if self._since is None else now - self._since

    @property
    def pid(self) -> int:
        """The server's process id for this connection."""
        return self._connection.info.backend_pid

    def forgive(self) -> None:
        """Start counting the silence again from now."""
        self._since = None

    def cut(self) -> None:
        """Shut the connection down, so that calls waiting on it get the error of a broken one."""
        if not self._connection.closed:
            with socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
                ours.shutdown(socket.SHUT_RDWR)


async def watch(
    working: Sequence[Line],
    listener: Line,
    works: Callable[[int], Awaitable[bool]],
    patience_s: float,
) -> None:
    """
    Cut all connections as soon as one of them is dead; never returns.

    `works` asks, over the listener's connection, whether a server process is working. The
    listener's own connection carries only short statements.
    """
    while True:
        await asyncio.sleep(patience_s / LOOKS)
        dead = listener.silence() > patience_s
        for line in [line for line in working if line.silence() > patience_s]:
            dead = dead or not await _in_time(works(line.pid), patience_s)
            line.forgive()
        if dead:
            log.warning("the server does not answer, the connection is cut", seconds=patience_s)
            for line in (*working, listener):
                line.cut()


async def _in_time(works: Awaitable[bool], patience_s: float) -> bool:
    """Return the answer, False if none comes in time. A late one ends with the cut connection."""
    asking = asyncio.ensure_future(works)
    done, _ = await asyncio.wait({asking}, timeout=patience_s)
    if not done:
        asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        return False
    return asking.exception() is None and asking.result()
