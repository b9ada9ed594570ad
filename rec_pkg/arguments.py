"""Checked arguments for the database: texts and times."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from rec_pkg.errors import BadInput


def text(value: str | None) -> sa.ColumnElement[str]:
    """
    Return a text, or NULL.

    Raises:
        BadInput: if the value is neither a str nor None.
    """
    if not isinstance(value, str | None):
        raise BadInput(f"an id or a text must be a str, not {type(value).__name__}")
    return sa.literal(value, sa.Text())


def time(value: datetime | None) -> sa.ColumnElement[datetime]:
    """
    Return an aware time, or NULL, as a timestamptz.

    Raises:
        BadInput: if the value is not a datetime or has no time zone.
    """
    if not isinstance(value, datetime | None):
        raise BadInput(f"a time must be a datetime, not {type(value).__name__}")
    if value is not None and value.utcoffset() is None:
        raise BadInput("a time needs a time zone")
    return sa.literal(value, sa.DateTime(timezone=True))
