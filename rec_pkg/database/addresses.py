"""Database addresses as users write them: URLs of libpq and SQLAlchemy, also with several hosts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, exc

from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER: Final = "postgresql+psycopg"
PORTS: Final = re.compile(r"[\d,]*")
SEVERAL_HOSTS: Final = re.compile(r"postgres(ql)?(\+psycopg)?://[^/?]*,")
NO_URL: Final = "a database URL starts with postgresql://; write @ in a password as %40"


def url_of(database: URL | str) -> URL:
    """
    Return the URL for SQLAlchemy's psycopg; the password, if there is one, in its own field.

    Raises:
        BadInput: if it is not a Postgres URL. The message reveals no part of it.
    """
    several = isinstance(database, str) and SEVERAL_HOSTS.match(database)
    url = _with_several_hosts(str(database)) if several else _with_one_host(database)
    password = url.query.get("password")
    if isinstance(password, str):
        url = url.difference_update_query(["password"]).set(password=password)
    return url


def is_torn(parts: Mapping[str, Any]) -> bool:
    """Return whether an unescaped @ or / in a password has spilled into other parts of a URL."""
    return "@" in f"{parts.get('host', '')}{parts.get('dbname', '')}" or not PORTS.fullmatch(
        str(parts.get("port", ""))
    )


def _with_one_host(database: URL | str) -> URL:
    try:
        url = sa.make_url(database)
    except (exc.ArgumentError, ValueError):
        raise BadInput("this is not the URL of a database") from None
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername=DRIVER)
    if url.get_backend_name() != "postgresql" or "@" in (url.host or ""):
        raise BadInput(NO_URL)
    return url


def _with_several_hosts(address: str) -> URL:
    """Parse what SQLAlchemy cannot: postgresql://here:5432,there:5432/shop."""
    try:
        parts = conninfo_to_dict(address.replace(f"{DRIVER}:", "postgresql:", 1))
    except psycopg.Error:
        raise BadInput("this is not the URL of a database") from None
    if is_torn(parts):
        raise BadInput(NO_URL)
    given = {name: str(value) for name, value in parts.items()}
    user, database = given.pop("user", None), given.pop("dbname", None)
    return URL.create(DRIVER, username=user, database=database, query=given)
