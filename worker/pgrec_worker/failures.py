"""The meaning of a server error for the current work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rec_pkg.database import sqlstates

if TYPE_CHECKING:
    import psycopg


def is_passing(error: psycopg.Error) -> bool:
    """Return whether retrying the statement immediately may succeed."""
    return sqlstates.meaning(error).kind == "passing"


def blames_the_server(error: psycopg.Error) -> bool:
    """Return whether any row would have failed, so that none counts as bad."""
    return sqlstates.meaning(error).any_row


def meaning(error: psycopg.Error) -> str:
    """Return what is wrong with the server, in words for its operator."""
    return sqlstates.meaning(error).words
