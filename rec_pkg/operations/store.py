"""The calls into `sql/` for a deployment as a whole: calibration, releases, retries, health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from rec_pkg import schema
from rec_pkg.database.store import one

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime

    from psycopg import Connection, Copy, Cursor

COPY_ITEM_VECTORS: Final = "copy rec.item_vectors_next from stdin with (format binary)"
COPY_TEXT_VECTORS: Final = "copy rec_internal.texts_next from stdin with (format binary)"


class Digest(NamedTuple):
    """The digest of a database's re-run objects, unless they are missing or hidden."""

    digest: str | None
    missing: bool = False
    hidden: bool = False


class ToMove(NamedTuple):
    """Numbers of items and texts with vectors, users with interests, and items without a vector."""

    items: int
    texts: int
    users: int
    items_to_encode: int


def lock_space(connection: Connection[Any]) -> None:
    """Keep all others from storing vectors and interests until the end of the transaction."""
    connection.execute("select rec_internal.lock_space()")


def vectors_to_move(connection: Connection[Any]) -> ToMove:
    """Count the rows that a calibration moves."""
    return ToMove(*one(connection, "select * from rec_internal.vectors_to_move()"))


def sample_vectors(connection: Connection[Any], limit: int) -> list[bytes]:
    """Return a uniform sample of up to `limit` vectors of items, in binary form."""
    call = "select embedding from rec_internal.sample_vectors(%s)"
    return [embedding for (embedding,) in connection.execute(call, [limit])]


def make_next_vectors(connection: Connection[Any]) -> None:
    """Create empty tables beside the live ones."""
    connection.execute("select rec_internal.make_next_vectors()")


def item_vectors_after(
    connection: Connection[Any], last: str, limit: int
) -> list[tuple[str, bytes]]:
    """Return up to `limit` items after `last`, with their vectors in binary form."""
    call = "select item_id, embedding from rec_internal.item_vectors_after(%s, %s)"
    return connection.execute(call, [last, limit]).fetchall()


def text_vectors_after(
    connection: Connection[Any], last: bytes, limit: int
) -> list[tuple[bytes, bytes]]:
    """Return up to `limit` texts after `last`, with their vectors in binary form."""
    call = "select text_hash, embedding from rec_internal.text_vectors_after(%s, %s)"
    return connection.execute(call, [last, limit]).fetchall()


def copy_item_vectors(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY of item_id and binary vector into the table beside the live one."""
    return cursor.copy(COPY_ITEM_VECTORS)


def copy_text_vectors(cursor: Cursor[Any]) -> AbstractContextManager[Copy]:
    """Return a COPY of hash and binary vector into the table beside the live one."""
    return cursor.copy(COPY_TEXT_VECTORS)


def index_next_vectors(connection: Connection[Any]) -> None:
    """Index the tables beside the live ones."""
    connection.execute("select rec_internal.index_next_vectors()")


def interested_after(connection: Connection[Any], last: str, limit: int) -> list[str]:
    """Return up to `limit` users after `last` who have a stored interest."""
    call = "select user_id from rec_internal.interested_after(%s, %s)"
    return [user_id for (user_id,) in connection.execute(call, [last, limit])]


def move_interests(connection: Connection[Any], users: list[str]) -> None:
    """Rebuild the interests of these users from the vectors beside the live ones."""
    connection.execute("select rec_internal.move_interests(%s)", [users])


def activate_calibration(connection: Connection[Any], calibration: bytes | None) -> str:
    """Activate the encoder with this calibration, or with none, and return its fingerprint."""
    return str(one(connection, "select rec_internal.activate_calibration(%s)", (calibration,))[0])


def swap_vectors(connection: Connection[Any]) -> None:
    """Replace the live tables by those beside them."""
    connection.execute("select rec_internal.swap_vectors()")


def released(connection: Connection[Any], question: dict[str, Any]) -> dict[str, int] | None:
    """Return the recorded answer, if any; other releases wait until the transaction ends."""
    answer: dict[str, int] | None
    (answer,) = one(connection, "select rec_internal.released(%s)", (Jsonb(question),))
    return answer


def bounded_counts(
    connection: Connection[Any], by: str, since: datetime, until: datetime, keys_per_user: int
) -> dict[str, int]:
    """Count users by key, each user under at most `keys_per_user` keys."""
    call = "select key, users from rec_internal.bounded_counts(%s, %s, %s, %s)"
    return dict(connection.execute(call, [by, since, until, keys_per_user]).fetchall())


def record_release(
    connection: Connection[Any], question: dict[str, Any], epsilon: float, answer: dict[str, int]
) -> None:
    """Record an answer, if the budget allows it."""
    call = "select rec_internal.record_release(%s, %s, %s)"
    connection.execute(call, [Jsonb(question), epsilon, Jsonb(answer)])


def retry(connection: Connection[Any]) -> tuple[int, int]:
    """Put parked events and failed items back in the queue; return how many of each."""
    events, items = one(connection, "select rec.retry(), rec.retry_items()")
    return events, items


def in_recovery(connection: Connection[Any]) -> bool:
    """Return whether the server is a standby."""
    return bool(one(connection, "select pg_is_in_recovery()")[0])


def hears_itself(connection: Connection[Any], patience_s: float) -> bool:
    """
    Return whether a NOTIFY reaches a connection that LISTENs.

    Behind a transaction pooler, the transaction in between takes the backend that listens, and the
    NOTIFY goes through another one.
    """
    channel = f"pgrec_probe_{uuid4().hex}"
    connection.execute(SQL("listen {}").format(Identifier(channel)))
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as other:
        other.execute("select 1")
        connection.execute("select pg_notify(%s, '')", [channel])
        heard = any(connection.notifies(timeout=patience_s, stop_after=1))
    connection.execute(SQL("unlisten {}").format(Identifier(channel)))
    return heard


def schemas(connection: Connection[Any]) -> dict[str, bool]:
    """Return whether `rec`, the interface, and `rec_internal`, the engine, are there."""
    face, engine = one(connection, schema.FOUND)
    return {"face": face, "engine": engine}


def schema_digest(connection: Connection[Any]) -> Digest:
    """Return the digest of the re-run objects that the database was migrated with."""
    if one(connection, "select to_regnamespace('rec') is null")[0]:
        return Digest(None, missing=True, hidden=False)
    try:
        return Digest(one(connection, "select sql_digest from rec_internal.state")[0])
    except psycopg.errors.UndefinedTable:
        return Digest(None, missing=True, hidden=False)
    except psycopg.errors.InsufficientPrivilege:
        return Digest(None, missing=False, hidden=True)


def health(
    connection: Connection[Any],
) -> list[tuple[str, Literal["green", "yellow", "red"], str, str | None]]:
    """
    Return the findings of `rec.health`: what, level, what was found, what to do.

    A role without any right in the schema gets no findings.
    """
    try:
        return connection.execute("select what, level, found, advice from rec.health()").fetchall()
    except psycopg.errors.InsufficientPrivilege:
        return []
