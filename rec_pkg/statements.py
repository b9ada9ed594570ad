"""The calls into `sql/` that go by psycopg: loading of files, calibration, releases, upkeep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, LiteralString, NamedTuple
from uuid import uuid4

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from rec_pkg.errors import DatabaseRefused

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime

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
COPY_ITEM_VECTORS: Final = "copy rec.item_vectors_next from stdin with (format binary)"
COPY_TEXT_VECTORS: Final = "copy rec_internal.texts_next from stdin with (format binary)"


class ActiveEncoder(NamedTuple):
    """The encoder whose vectors are stored; `base` and `calibration` are set together."""

    fingerprint: str
    base: str | None
    calibration: bytes | None
    dims: int


class Digest(NamedTuple):
    """The digest of a database's re-run objects, unless there are none or they may not be seen."""

    digest: str | None
    missing: bool = False
    hidden: bool = False


class ToMove(NamedTuple):
    """Items and texts with vectors, users with interests; items that have no vector yet."""

    items: int
    texts: int
    users: int
    items_to_encode: int


def stage_items(connection: Connection[Any]) -> None:
    """Make the session's table for rows of items, or empty it."""
    connection.execute("select rec_internal.stage_items()")


def copy_items(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY that takes rows of `ITEM_COLUMNS`."""
    return cursor.copy(COPY_ITEMS)


def settle_items(connection: Connection[Any]) -> int:
    """Keep the last row of each item and return how many others were dropped."""
    return int(_one(connection, "select rec_internal.settle_items()")[0])


def merge_items(connection: Connection[Any], first: int, last: int) -> tuple[int, int, int]:
    """Merge the rows at these places; return how many were inserted, updated, unchanged."""
    call = "select inserted, updated, unchanged from rec_internal.merge_items(%s, %s)"
    inserted, updated, unchanged = _one(connection, call, (first, last))
    return inserted, updated, unchanged


def stage_events(connection: Connection[Any]) -> None:
    """Make the session's table for rows of events, or empty it."""
    connection.execute("select rec_internal.stage_events()")


def copy_events(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY that takes rows of `EVENT_COLUMNS`."""
    return cursor.copy(COPY_EVENTS)


def merge_events(connection: Connection[Any]) -> int:
    """Append what was copied to the event log and return how many events were new."""
    return int(_one(connection, "select rec_internal.merge_events()")[0])


def stage_vectors(connection: Connection[Any]) -> None:
    """Make the session's table for vectors of items, or empty it."""
    connection.execute("select rec_internal.stage_vectors()")


def copy_vectors(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY that takes item_id and vector in binary form."""
    return cursor.copy(COPY_VECTORS)


def merge_vectors(connection: Connection[Any], fingerprint: str) -> tuple[int, int, int, int]:
    """Store what was copied; return how many vectors were new, changed, the same, of no item."""
    call = "select inserted, updated, unchanged, unknown from rec_internal.merge_vectors(%s)"
    inserted, updated, unchanged, unknown = _one(connection, call, (fingerprint,))
    return inserted, updated, unchanged, unknown


def drop_vector_index(connection: Connection[Any]) -> bool:
    """Drop the index of the vectors if there are none, and return whether it is missing now."""
    return bool(_one(connection, "select rec_internal.drop_vector_index()")[0])


def make_vector_index(connection: Connection[Any], workers: int | None, memory: str | None) -> bool:
    """Make the index of the vectors if it is missing, and return whether it was."""
    return bool(
        _one(connection, "select rec_internal.make_vector_index(%s, %s)", (workers, memory))[0]
    )


def index_progress(connection: Connection[Any], pid: int) -> tuple[int, int] | None:
    """Return how far the index is that a session is making, and of how much; None if none is."""
    call = "select done, total from rec_internal.index_progress(%s)"
    return connection.execute(call, [pid]).fetchone()


def event_kinds(connection: Connection[Any]) -> frozenset[str]:
    """Return the kinds that an event may have."""
    return frozenset(kind for (kind,) in connection.execute("select kind from rec.event_kinds"))


def lock_space(connection: Connection[Any]) -> None:
    """Keep everyone from storing vectors and interests until the end of the transaction."""
    connection.execute("select rec_internal.lock_space()")


def active_encoder(connection: Connection[Any]) -> ActiveEncoder | None:
    """Return the encoder whose vectors are stored, None before the first worker came."""
    with connection.cursor(row_factory=class_row(ActiveEncoder)) as cursor:
        return cursor.execute("select * from rec_internal.active_encoder()").fetchone()


def vectors_to_move(connection: Connection[Any]) -> ToMove:
    """Count what a calibration moves."""
    return ToMove(*_one(connection, "select * from rec_internal.vectors_to_move()"))


def sample_vectors(connection: Connection[Any], limit: int) -> list[bytes]:
    """Return up to `limit` vectors of items, a uniform sample, in binary form."""
    call = "select embedding from rec_internal.sample_vectors(%s)"
    return [embedding for (embedding,) in connection.execute(call, [limit])]


def make_next_vectors(connection: Connection[Any]) -> None:
    """Make the tables beside the live ones, empty."""
    connection.execute("select rec_internal.make_next_vectors()")


def item_vectors_after(
    connection: Connection[Any], last: str, limit: int
) -> list[tuple[str, bytes]]:
    """Return the vectors of the next items in binary form."""
    call = "select item_id, embedding from rec_internal.item_vectors_after(%s, %s)"
    return connection.execute(call, [last, limit]).fetchall()


def text_vectors_after(
    connection: Connection[Any], last: bytes, limit: int
) -> list[tuple[bytes, bytes]]:
    """Return the vectors of the next texts in binary form."""
    call = "select text_hash, embedding from rec_internal.text_vectors_after(%s, %s)"
    return connection.execute(call, [last, limit]).fetchall()


def copy_item_vectors(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY of item_id and vector in binary form into the table beside the live one."""
    return cursor.copy(COPY_ITEM_VECTORS)


def copy_text_vectors(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY of hash and vector in binary form into the table beside the live one."""
    return cursor.copy(COPY_TEXT_VECTORS)


def index_next_vectors(connection: Connection[Any]) -> None:
    """Index the tables beside the live ones."""
    connection.execute("select rec_internal.index_next_vectors()")


def interested_after(connection: Connection[Any], last: str, limit: int) -> list[str]:
    """Return the next users with a stored interest."""
    call = "select user_id from rec_internal.interested_after(%s, %s)"
    return [user_id for (user_id,) in connection.execute(call, [last, limit])]


def move_interests(connection: Connection[Any], users: list[str]) -> None:
    """Make the interests of these users anew from the vectors beside the live ones."""
    connection.execute("select rec_internal.move_interests(%s)", [users])


def activate_calibration(connection: Connection[Any], calibration: bytes | None) -> str:
    """Make the encoder with this calibration, or with none, active and return its fingerprint."""
    return str(_one(connection, "select rec_internal.activate_calibration(%s)", (calibration,))[0])


def swap_vectors(connection: Connection[Any]) -> None:
    """Put the tables beside the live ones into their place."""
    connection.execute("select rec_internal.swap_vectors()")


def wake(connection: Connection[Any]) -> None:
    """Have a sleeping worker look at once."""
    connection.execute("select rec.wake()")


def released(connection: Connection[Any], question: dict[str, Any]) -> dict[str, int] | None:
    """Return the recorded answer to a question; nobody else releases until the transaction ends."""
    answer: dict[str, int] | None
    (answer,) = _one(connection, "select rec_internal.released(%s)", (Jsonb(question),))
    return answer


def bounded_counts(
    connection: Connection[Any], by: str, since: datetime, until: datetime, keys_per_user: int
) -> dict[str, int]:
    """Count users by key, each under `keys_per_user` keys at most."""
    call = "select key, users from rec_internal.bounded_counts(%s, %s, %s, %s)"
    return dict(connection.execute(call, [by, since, until, keys_per_user]).fetchall())


def record_release(
    connection: Connection[Any], question: dict[str, Any], epsilon: float, answer: dict[str, int]
) -> None:
    """Keep an answer, if the budget allows it."""
    call = "select rec_internal.record_release(%s, %s, %s)"
    connection.execute(call, [Jsonb(question), epsilon, Jsonb(answer)])


def session(connection: Connection[Any]) -> int:
    """Return the process id of the server's session in which this is asked."""
    return int(_one(connection, "select pg_backend_pid()")[0])


def retry(connection: Connection[Any]) -> tuple[int, int]:
    """Put parked events and failed items back; return how many of each."""
    events, items = _one(connection, "select rec.retry(), rec.retry_items()")
    return events, items


def in_recovery(connection: Connection[Any]) -> bool:
    """Return whether the server is a standby."""
    return bool(_one(connection, "select pg_is_in_recovery()")[0])


def hears_itself(connection: Connection[Any], patience_s: float) -> bool:
    """
    Return whether a NOTIFY comes back to a connection that LISTENs.

    Behind a pooler that takes sessions apart the transaction in between gets the backend that
    listens, and the NOTIFY another one.
    """
    channel = f"pgrec_probe_{uuid4().hex}"
    connection.execute(SQL("listen {}").format(Identifier(channel)))
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as other:
        other.execute("select 1")
        connection.execute("select pg_notify(%s, '')", [channel])
        heard = any(connection.notifies(timeout=patience_s, stop_after=1))
    connection.execute(SQL("unlisten {}").format(Identifier(channel)))
    return heard


def schema_digest(connection: Connection[Any]) -> Digest:
    """Return the digest of the re-run objects that the database was migrated with."""
    if _one(connection, "select to_regnamespace('rec') is null")[0]:
        return Digest(None, missing=True, hidden=False)
    try:
        return Digest(_one(connection, "select sql_digest from rec_internal.state")[0])
    except psycopg.errors.UndefinedTable:
        return Digest(None, missing=True, hidden=False)
    except psycopg.errors.InsufficientPrivilege:
        return Digest(None, missing=False, hidden=True)


def health(
    connection: Connection[Any],
) -> list[tuple[str, Literal["green", "yellow", "red"], str, str | None]]:
    """
    Return the findings of `rec.health`: what, level, what was found, what to do.

    A role without any right in the schema finds nothing.
    """
    try:
        return connection.execute("select what, level, found, advice from rec.health()").fetchall()
    except psycopg.errors.InsufficientPrivilege:
        return []


def _one(
    connection: Connection[Any], call: LiteralString, arguments: tuple[object, ...] = ()
) -> tuple[Any, ...]:
    row = connection.execute(call, arguments).fetchone()
    if row is None:
        raise DatabaseRefused(f"no row from {call}")
    return tuple(row)
