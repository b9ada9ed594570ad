"""
Notice that a line is dead when neither end was told.

A router forgets a connection, a proxy hangs: no answer comes and no error either. Keepalives do
not reach beyond a proxy that lives. So whoever waits long for an answer asks the server, on the
other line, whether it is still at work on it; a statement that takes long is not cut.
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
"""So often a line is looked at before the server is asked."""

log = structlog.get_logger("worker")


class Line:
    """A connection, and since when an answer has been awaited on it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._since: float | None = None

    def silence(self) -> float:
        """Look, and return for how many seconds every look has found it waiting."""
        now = asyncio.get_running_loop().time()
        if self._connection.info.transaction_status != TransactionStatus.ACTIVE:
            self._since = None
        elif self._since is None:
            self._since = now
        return 0.0 if self._since is None else now - self._since

    @property
    def pid(self) -> int:
        """The process of the server at the other end."""
        return self._connection.info.backend_pid

    def forgive(self) -> None:
        """Count the silence from now on."""
        self._since = None

    def cut(self) -> None:
        """End the line, so that whoever waits on it gets the error of a line that broke."""
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
    Cut all lines as soon as one of them is dead; never returns.

    `works` asks, on the listener's line, whether a process of the server is at work. On the
    listener's own line nothing but short statements is awaited.
    """
    while True:
        await asyncio.sleep(patience_s / LOOKS)
        dead = listener.silence() > patience_s
        for line in [line for line in working if line.silence() > patience_s]:
            dead = dead or not await _in_time(works(line.pid), patience_s)
            line.forgive()
        if dead:
            log.warning("the server does not answer, the line is cut", seconds=patience_s)
            for line in (*working, listener):
                line.cut()


async def _in_time(works: Awaitable[bool], patience_s: float) -> bool:
    """Return the answer, False if there is none in time. A late one is left to the cut line."""
    asking = asyncio.ensure_future(works)
    done, _ = await asyncio.wait({asking}, timeout=patience_s)
    if not done:
        asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        return False
    return asking.exception() is None and asking.result()
