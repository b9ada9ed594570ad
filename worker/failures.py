"""What an error of the server means for the work in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

PASSING: Final = "40"  # transaction rolled back: a deadlock, a serialization failure
TOO_SLOW: Final = "57014"  # statement_timeout, or an operator: a smaller piece may pass
NOT_THE_ROW: Final = (
    "08",  # connection exceptions
    "25",  # a read-only transaction, say on a standby
    "28",  # authorization
    "42",  # a right, table or function is missing
    "53",  # insufficient resources: disk, memory, connections
    "55",  # object not in the needed state, lock not available
    "57",  # operator intervention
    "58",  # input and output
)
MEANING: Final[Mapping[str, str]] = {
    "25": "the server only reads: it is a standby, or set to; a worker needs one that writes",
    "28": "the server does not let us in",
    "42": "the database lacks a table, function or right",
    "53": "the server has no room or memory left, or too many connections",
    "58": "the server cannot read or write its files",
}


def is_passing(error: psycopg.Error) -> bool:
    """Return whether the same statement may do at once."""
    return (error.sqlstate or "").startswith(PASSING)


def blames_the_server(error: psycopg.Error) -> bool:
    """Return whether any row would have failed, so that none is to be counted as bad."""
    state = error.sqlstate
    return state is None or (state != TOO_SLOW and state.startswith(NOT_THE_ROW))


def meaning(error: psycopg.Error) -> str:
    """Return what is wrong with the server, in words for whoever runs it."""
    return MEANING.get((error.sqlstate or "")[:2], "no line to the server")
