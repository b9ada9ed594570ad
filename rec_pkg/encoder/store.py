"""The encoder that a database's vectors come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.rows import class_row

if TYPE_CHECKING:
    from psycopg import Connection


class ActiveEncoder(NamedTuple):
    """The encoder whose vectors are stored; `base` and `calibration` are set together."""

    fingerprint: str
    base: str | None
    calibration: bytes | None
    dims: int


def active_encoder(connection: Connection[Any]) -> ActiveEncoder | None:
    """Return the encoder whose vectors are stored; None before a worker has registered one."""
    with connection.cursor(row_factory=class_row(ActiveEncoder)) as cursor:
        return cursor.execute("select * from rec_internal.active_encoder()").fetchone()
