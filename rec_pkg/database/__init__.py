"""The one place where settings become a database connection."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import create_engine

from rec_pkg.database import pooler
from rec_pkg.database.addresses import DRIVER, is_torn
from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.errors import BadInput, DatabaseUnreachable

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy.engine import Engine

    from rec_pkg.settings import Settings

LIBPQ_VARIABLES: Final = (
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGSERVICE",
)
CONNECT_TIMEOUT_S: Final = 10
SECRET: Final = b"*"  # how libpq marks options that are passwords


def embedded_server(settings: Settings) -> EmbeddedServer | None:
    """Return the embedded server; None if the settings or libpq's variables name another one."""
    if settings.database_url or any(map(os.environ.get, LIBPQ_VARIABLES)):
        return None
    return EmbeddedServer(settings.data_dir, settings.pg_bin)


def conninfo(settings: Settings, *, create: bool = False) -> str:
    """
    Return the conninfo for libpq; it contains the password, if there is one, so never print it.

    PGREC_DATABASE_URL comes first, then libpq's own variables, then the embedded server, which is
    started if it is down; `create` also starts one that has never been started.

    Raises:
        BadInput: if PGREC_DATABASE_URL is neither a URL nor a connection string.
        DatabaseUnreachable: if there is no embedded server yet and `create` is false.
        EmbeddedServerMissing, EmbeddedServerFailed: if it cannot be started.
    """
    server = embedded_server(settings)
    if server is None:
        given = settings.database_url.get_secret_value() if settings.database_url else ""
        return _with_defaults(given.replace("postgresql+psycopg:", "postgresql:", 1))
    if not create and not (server.home / "data").exists():
        raise DatabaseUnreachable
    return _with_defaults(server.start())


def connect(settings: Settings, *, create: bool = False) -> Connection[tuple[Any, ...]]:
    """
    Return a psycopg connection in autocommit.

    Raises:
        DatabaseUnreachable: if the server does not answer or rejects the login.
        BadInput, EmbeddedServerMissing, EmbeddedServerFailed: see `conninfo`.
    """
    return _connect(conninfo(settings, create=create), autocommit=True)


def open_engine(settings: Settings, *, create: bool = False) -> Engine:
    """
    Return an engine whose URL contains no secret; its connections raise what `connect` raises.

    Raises:
        BadInput, DatabaseUnreachable, EmbeddedServerMissing, EmbeddedServerFailed: see `conninfo`.
    """
    address = conninfo(settings, create=create)
    return create_engine(f"{DRIVER}://", creator=lambda: _connect(address))


def without_secrets(address: str) -> tuple[str, dict[str, str]]:
    """Return a conninfo without secrets, and the environment that carries its password."""
    secret = {
        option.keyword.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.dispchar == SECRET
    }
    parts = conninfo_to_dict(address)
    shown = {name: value for name, value in parts.items() if name not in secret}
    password = parts.get("password")
    return make_conninfo("", **shown), {"PGPASSWORD": str(password)} if password else {}


def _connect(address: str, *, autocommit: bool = False) -> Connection[tuple[Any, ...]]:
    try:
        connection = psycopg.connect(address, autocommit=autocommit)
        pooler.adapt(connection)
    except psycopg.Error as error:
        raise DatabaseUnreachable(" ".join(str(error).split())) from error
    return connection


def _with_defaults(address: str) -> str:
    """Check and complete a conninfo. libpq's error about a broken one may contain the password."""
    try:
        parts = conninfo_to_dict(address)
    except psycopg.Error:
        raise BadInput("PGREC_DATABASE_URL is not a URL or connection string of libpq") from None
    if is_torn(parts) and "://" in address:
        raise BadInput("in PGREC_DATABASE_URL, write @ and / in a password as %40 and %2F")
    parts.setdefault("fallback_application_name", "pgrec")
    if "PGCONNECT_TIMEOUT" not in os.environ:
        parts.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    return make_conninfo("", **parts)
