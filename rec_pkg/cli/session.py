"""Settings and connections for commands; what the database says is turned into our errors."""

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

NO_RIGHT = "If the role of this session may do that, grant it rec_app, rec_worker or rec_analyst"


def read_settings() -> Settings:
    """
    Return the settings of the environment.

    Raises:
        BadInput: if one is not what it should be; its value, which may be secret, is not shown.
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
    """Give an engine for as long as the command needs it."""
    from rec_pkg import database

    with refusals():
        engine = database.open_engine(read_settings(), create=create)
        try:
            yield engine
        finally:
            engine.dispose()


@contextmanager
def open_client() -> Iterator[Client]:
    """Give a client of the database."""
    from rec_pkg.client import Client

    with open_engine() as engine:
        yield Client(engine)


@contextmanager
def open_connection() -> Iterator[Connection[Any]]:
    """Give a psycopg connection in autocommit to a database of this version."""
    from rec_pkg import database, schema

    with open_engine() as engine, engine.connect() as checked:
        schema.check(checked)
        checked.rollback()
        with database.connect(read_settings()) as connection:
            yield connection


@contextmanager
def refusals() -> Iterator[None]:
    """Turn errors of the drivers into one of ours with the server's own words."""
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
