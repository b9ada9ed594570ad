"""The calls into `sql/` that load files of items, events and vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rec_pkg.database.store import one

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
COPY_VECTORS: Final = (
    "copy pg_temp.loaded_vectors (item_id, embedding) from stdin with (format binary)"
)


def stage_items(connection: Connection[Any]) -> None:
    """Create the session's table for rows of items, or empty it."""
    connection.execute("select rec_internal.stage_items()")


def copy_items(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY that takes rows of `ITEM_COLUMNS`."""
    return cursor.copy(COPY_ITEMS)


def settle_items(connection: Connection[Any]) -> int:
    """Keep the last row of each item and return the number of dropped rows."""
    return int(one(connection, "select rec_internal.settle_items()")[0])


def merge_items(connection: Connection[Any], first: int, last: int) -> tuple[int, int, int]:
    """Merge the rows at these places; return how many were inserted, updated and unchanged."""
    call = "select inserted, updated, unchanged from rec_internal.merge_items(%s, %s)"
    inserted, updated, unchanged = one(connection, call, (first, last))
    return inserted, updated, unchanged


def stage_events(connection: Connection[Any]) -> None:
    """Create the session's table for rows of events, or empty it."""
    connection.execute("select rec_internal.stage_events()")


def copy_events(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY that takes rows of `EVENT_COLUMNS`."""
    return cursor.copy(COPY_EVENTS)


def merge_events(connection: Connection[Any]) -> int:
    """Append the copied rows to the event log and return how many events were new."""
    return int(one(connection, "select rec_internal.merge_events()")[0])


def stage_vectors(connection: Connection[Any]) -> None:
    """Create the session's table for vectors of items, or empty it."""
    connection.execute("select rec_internal.stage_vectors()")


def copy_vectors(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY that takes item_id and vector in binary form."""
    return cursor.copy(COPY_VECTORS)


def merge_vectors(connection: Connection[Any], fingerprint: str) -> tuple[int, int, int, int]:
    """Store the copied vectors; return how many were new, changed, unchanged, without item."""
    call = "select inserted, updated, unchanged, unknown from rec_internal.merge_vectors(%s)"
    inserted, updated, unchanged, unknown = one(connection, call, (fingerprint,))
    return inserted, updated, unchanged, unknown


def drop_vector_index(connection: Connection[Any]) -> bool:
    """Drop the vectors' index if there are no vectors, and return whether it is missing now."""
    return bool(one(connection, "select rec_internal.drop_vector_index()")[0])


def make_vector_index(connection: Connection[Any], workers: int | None, memory: str | None) -> bool:
    """Create the vectors' index if it is missing, and return whether it was."""
    return bool(
        one(connection, "select rec_internal.make_vector_index(%s, %s)", (workers, memory))[0]
    )


def index_progress(connection: Connection[Any], pid: int) -> tuple[int, int] | None:
    """Return the done and total amounts of the index a session is building; None if it is not."""
    call = "select done, total from rec_internal.index_progress(%s)"
    return connection.execute(call, [pid]).fetchone()


def event_kinds(connection: Connection[Any]) -> frozenset[str]:
    """Return the kinds that an event may have."""
    return frozenset(kind for (kind,) in connection.execute("select kind from rec.event_kinds"))


def wake(connection: Connection[Any]) -> None:
    """Wake a sleeping worker."""
    connection.execute("select rec.wake()")
