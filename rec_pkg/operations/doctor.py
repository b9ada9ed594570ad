"""Examines a deployment: what is fine, what deserves attention, and what does not work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from rec_pkg import schema
from rec_pkg.database import pooler
from rec_pkg.errors import SchemaTorn
from rec_pkg.operations import store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

PROBE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """
    The result of one check.

    `level` is green, yellow (worth attention) or red (does not work as promised); `advice` says
    what to do, and is None if all is well.
    """

    what: str
    level: Literal["green", "yellow", "red"]
    found: str
    advice: str | None


def examine(connection: Connection[Any]) -> list[Finding]:
    """
    Return the findings about a database and the connection to it.

    Args:
        connection: in autocommit. Findings say what its role may not see.
    """
    return [*_outside(connection), *_inside(connection)]


def _outside(connection: Connection[Any]) -> Iterator[Finding]:
    """Examine the connection between this process and the server."""
    if store.in_recovery(connection):
        advice = "This server serves lists; run doctor and worker on the primary."
        yield Finding("connection", "yellow", "to a standby", advice)
        return
    direct = not pooler.changes_session(connection)
    heard = store.hears_itself(connection, PROBE_S)
    if direct and heard:
        yield Finding("connection", "green", "direct", None)
    elif heard:
        advice = (
            "It keeps sessions, so a worker may use it; a direct connection is less likely to fail."
        )
        yield Finding("connection", "yellow", "through a pooler", advice)
    else:
        advice = "Give the worker a URL of the server itself, or no notification will wake it."
        yield Finding("connection", "red", "through a pooler that does not keep sessions", advice)


def _inside(connection: Connection[Any]) -> Iterator[Finding]:
    """Check the version of the schema, then ask `rec.health`."""
    try:
        schema.is_whole(**store.schemas(connection))
    except SchemaTorn as error:
        yield Finding("schema", "red", str(error), "Restore both schemas from the same backup.")
        return
    found = store.schema_digest(connection)
    advice = "Run `pgrec migrate`."
    if found.missing:
        yield Finding("schema", "red", "there is no schema rec", advice)
        return
    if found.hidden:
        asked = "Run it as a member of rec_app, rec_worker or rec_owner."
        yield Finding("schema", "yellow", "this role may not read its version", asked)
    elif found.digest != schema.sql_digest():
        yield Finding("schema", "red", "migrated by another version of pgrec", advice)
        return
    else:
        yield Finding("schema", "green", "at this version", None)
    for what, level, said, todo in store.health(connection):
        yield Finding(what, level, said, todo)
