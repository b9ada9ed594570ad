"""Poolers between us and the server: how to notice one, and how to get along with it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rec_pkg.database import store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection


def adapt(connection: Connection[Any]) -> None:
    """Prepare no statements where the next one may find itself in another session."""
    if changes_session(connection):
        connection.prepare_threshold = None


def changes_session(connection: Connection[Any]) -> bool:
    """
    Return whether the server's session is not the one that was promised when we connected.

    It is so behind any pooler; behind one in session mode it is the same for all transactions.
    """
    with connection.transaction():
        return store.session(connection) != connection.info.backend_pid


@contextmanager
def one_session(connection: Connection[Any]) -> Iterator[bool]:
    """
    Stay in one session of the server, and yield whether this takes a transaction.

    Behind a pooler it does.
    """
    if changes_session(connection):
        with connection.transaction():
            yield True
    else:
        yield False
