"""The calls into `sql/` that go by psycopg: loading of files, and upkeep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, LiteralString

from rec_pkg.errors import DatabaseRefused

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from psycopg import Connection, Copy, Cursor

ITEM_COLUMNS: Final = (
    "item_id",
    "domain",
    "title",
    "body",
    "attributes",
    "tags",
    "available",
    "created_at",
)
EVENT_COLUMNS: Final = ("user_id", "item_id", "kind", "text", "value", "occurred_at", "dedupe_key")
COPY_ITEMS: Final = (
    "copy pg_temp.loaded_items"
    " (item_id, domain, title, body, attributes, tags, available, created_at) from stdin"
)
COPY_EVENTS: Final = (
    "copy pg_temp.loaded_events"
    " (user_id, item_id, kind, text, value, occurred_at, dedupe_key) from stdin"
)


def stage_items(connection: Connection[Any]) -> None:
    """Make the session's table for rows of items, or empty it."""
    connection.execute("select rec.stage_items()")


def copy_items(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY that takes rows of `ITEM_COLUMNS`."""
    return cursor.copy(COPY_ITEMS)


def settle_items(connection: Connection[Any]) -> int:
    """Keep the last row of each item and return how many others were dropped."""
    return int(_one(connection, "select rec.settle_items()")[0])


def merge_items(connection: Connection[Any], first: int, last: int) -> tuple[int, int, int]:
    """Merge the rows at these places; return how many were inserted, updated, unchanged."""
    call = "select inserted, updated, unchanged from rec.merge_items(%s, %s)"
    inserted, updated, unchanged = _one(connection, call, (first, last))
    return inserted, updated, unchanged


def stage_events(connection: Connection[Any]) -> None:
    """Make the session's table for rows of events, or empty it."""
    connection.execute("select rec.stage_events()")


def copy_events(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY that takes rows of `EVENT_COLUMNS`."""
    return cursor.copy(COPY_EVENTS)


def merge_events(connection: Connection[Any]) -> int:
    """Append what was copied to the event log and return how many events were new."""
    return int(_one(connection, "select rec.merge_events()")[0])


def event_kinds(connection: Connection[Any]) -> frozenset[str]:
    """Return the kinds that an event may have."""
    return frozenset(kind for (kind,) in connection.execute("select kind from rec.event_kinds"))


def wake(connection: Connection[Any]) -> None:
    """Have a sleeping worker look at once."""
    connection.execute("select rec.wake()")


def retry(connection: Connection[Any]) -> tuple[int, int]:
    """Put parked events and failed items back; return how many of each."""
    events, items = _one(connection, "select rec.retry(), rec.retry_items()")
    return events, items


def _one(
    connection: Connection[Any], call: LiteralString, arguments: tuple[object, ...] = ()
) -> tuple[Any, ...]:
    row = connection.execute(call, arguments).fetchone()
    if row is None:
        raise DatabaseRefused(f"no row from {call}")
    return tuple(row)
