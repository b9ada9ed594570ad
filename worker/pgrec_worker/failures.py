"""What an error of the server means for the work in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rec_pkg.database import sqlstates

if TYPE_CHECKING:
    import psycopg


def is_passing(error: psycopg.Error) -> bool:
    """Return whether the same statement may do at once."""
    return sqlstates.meaning(error).kind == "passing"


def blames_the_server(error: psycopg.Error) -> bool:
    """Return whether any row would have failed, so that none is to be counted as bad."""
    return sqlstates.meaning(error).any_row


def meaning(error: psycopg.Error) -> str:
    """Return what is wrong with the server, in words for whoever runs it."""
    return sqlstates.meaning(error).words
