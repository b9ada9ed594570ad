"""Poolers between this process and the server: how to detect one, and how to work behind it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rec_pkg.database import store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection


def adapt(connection: Connection[Any]) -> None:
    """Disable prepared statements if the next statement may run in another session."""
    if changes_session(connection):
        connection.prepare_threshold = None


def changes_session(connection: Connection[Any]) -> bool:
    """
    Return whether the server's session differs from the one announced when connecting.

    It differs behind any pooler; a pooler in session mode keeps it for all transactions.
    """
    with connection.transaction():
        return store.session(connection) != connection.info.backend_pid


@contextmanager
def one_session(connection: Connection[Any]) -> Iterator[bool]:
    """
    Stay in one session of the server, and yield whether this takes a transaction.

    It does behind a pooler.
    """
    if changes_session(connection):
        with connection.transaction():
            yield True
    else:
        yield False
