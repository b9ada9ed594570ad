"""Settings and connections for commands; turns database errors into errors of pgrec."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rec_pkg.errors import BadInput, DatabaseRefused, DatabaseUnreachable, RecError, told
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection
    from sqlalchemy.engine import Engine

    from rec_pkg.client import Client

NO_RIGHT = (
    "If the role of this session should be allowed, grant it rec_app, rec_worker, rec_analyst or "
    "rec_owner; SECURITY.md says what each may do"
)


def read_settings() -> Settings:
    """
    Return the settings from the environment.

    Raises:
        BadInput: if a setting is invalid; its value, which may be secret, is not shown.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = error.errors(include_input=False, include_context=False, include_url=False)
        raise BadInput("; ".join(_problem(problem) for problem in problems)) from None


def _problem(problem: Any) -> str:  # noqa: ANN401  # a dict that pydantic describes
    name = "_".join(str(part) for part in problem["loc"]).upper()
    return f"PGREC_{name}: {problem['msg']}"


@contextmanager
def open_engine(*, create: bool = False) -> Iterator[Engine]:
    """Yield an engine for the duration of a command."""
    from rec_pkg import database

    with refusals():
        engine = database.open_engine(read_settings(), create=create)
        try:
            yield engine
        finally:
            engine.dispose()


@contextmanager
def open_client() -> Iterator[Client]:
    """Yield a client of the database."""
    from rec_pkg.client import Client

    with open_engine() as engine:
        yield Client(engine)


@contextmanager
def open_connection() -> Iterator[Connection[Any]]:
    """Yield a psycopg connection in autocommit to a database of this version."""
    from rec_pkg import database, schema

    with open_engine() as engine, engine.connect() as checked:
        schema.check(checked)
        checked.rollback()
        with database.connect(read_settings()) as connection:
            yield connection


@contextmanager
def refusals() -> Iterator[None]:
    """Turn a driver's error into one of pgrec's that quotes the server."""
    import psycopg
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        raise _meaning(error.orig) from error
    except psycopg.Error as error:
        raise _meaning(error) from error


def _meaning(error: BaseException | None) -> RecError:
    from rec_pkg.database import sqlstates

    kind = sqlstates.meaning(error).kind
    said = told(error)
    if type(error).__name__ == "OperationalError" or kind == "unreachable":
        return DatabaseUnreachable(said)
    return DatabaseRefused(f"{said}. {NO_RIGHT}" if kind == "forbidden" else said)
