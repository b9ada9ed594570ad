"""Queries that work on any connection to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from rec_pkg.errors import DatabaseRefused

if TYPE_CHECKING:
    from psycopg import Connection


def session(connection: Connection[Any]) -> int:
    """Return the process id of the server session that answers."""
    return int(one(connection, "select pg_backend_pid()")[0])


def one(
    connection: Connection[Any], call: LiteralString, arguments: tuple[object, ...] = ()
) -> tuple[Any, ...]:
    """
    Return the one row that a call returns.

    Raises:
        DatabaseRefused: if it returns none.
    """
    row = connection.execute(call, arguments).fetchone()
    if row is None:
        raise DatabaseRefused(f"no row from {call}")
    return tuple(row)
