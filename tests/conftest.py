from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
import structlog
from pgvector.psycopg import register_vector
from psycopg import sql
from sqlalchemy import create_engine, make_url

from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Engine

    from rec_pkg.encoder import Encoder

# A shell that starts us in the background has SIGINT ignored, and our children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a crash would cost does not matter here: the server lives as long as the session.
CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
ZONE = {"timezone": os.environ.get("TEST_TIMEZONE", "UTC")}  # `make calendar` sets it
IN_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of our own is made there
ROOM = 6 << 30  # bytes, several times what the tests of one session take
DRIVER = "postgresql+psycopg"
PREFIX = f"pgrec_test_{uuid4().hex[:8]}"  # sessions may share a server
NUMBERS = count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="all faults, and odd inputs by the ten thousand",
    )


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A worker that runs in this process logs to a stream which is closed when it ends."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """URL of a server whose user may create databases: PGREC_DATABASE_URL or an embedded one."""
    given = os.environ.get("PGREC_DATABASE_URL")
    if given:
        yield given
        return
    # Not pytest's own temporary folder: it is 0700, and as root the server is another user.
    folder = Path(tempfile.mkdtemp(prefix="pgrec-", dir=_in_memory()))
    folder.chmod(0o755)
    embedded = EmbeddedServer(folder, Settings().pg_bin, CARELESS | ZONE)
    try:
        yield embedded.start()
    finally:
        embedded.stop("immediate")
        shutil.rmtree(embedded.home)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """Name of a database that was migrated once and that nobody is connected to."""
    from rec_pkg.schema import migrate  # noqa: PLC0415  # tests of other subjects do without

    name = f"{PREFIX}_template"
    _create(server, name, "template0")
    engine = create_engine(make_url(_with_database(server, name)).set(drivername=DRIVER))
    try:
        migrate(engine)
        engine.dispose()  # a database that is copied has no visitors
        yield name
    finally:
        engine.dispose()
        _drop(server, name)


@pytest.fixture(scope="session")
def new_database(server: str, template: str) -> Callable[[], AbstractContextManager[str]]:
    """A function that gives the URL of a fresh migrated database, for as long as it is open."""

    @contextmanager
    def database() -> Iterator[str]:
        name = f"{PREFIX}_{next(NUMBERS)}"
        _create(server, name, template)
        try:
            yield _with_database(server, name)
        finally:
            _drop(server, name)

    return database


@pytest.fixture
def database_url(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """URL of a fresh migrated database."""
    with new_database() as url:
        yield url


@pytest.fixture
def db(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to a fresh migrated database, in autocommit."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        register_vector(connection)
        yield connection


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A SQLAlchemy engine on the fresh migrated database."""
    engine = create_engine(make_url(database_url).set(drivername=DRIVER))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The encoder that the settings name, fetched if it is not here yet."""
    from rec_pkg.encoder import open_encoder  # noqa: PLC0415  # slow to import

    settings = Settings()
    return open_encoder(settings.encoder, settings.cache_dir)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the data sets that are too large for the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("shared data is absent")
    return folder


def _in_memory() -> Path | None:
    """Return where files are held in memory, if there is room: a database is made much sooner."""
    with suppress(OSError):
        if shutil.disk_usage(IN_MEMORY).free > ROOM:
            return IN_MEMORY
    return None


def _with_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _create(server: str, name: str, template: str) -> None:
    statement = sql.SQL("create database {} template {}")
    _execute(server, statement.format(sql.Identifier(name), sql.Identifier(template)))


def _drop(server: str, name: str) -> None:
    statement = sql.SQL("drop database if exists {} with (force)")
    _execute(server, statement.format(sql.Identifier(name)))


def _execute(server: str, statement: sql.Composed) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement)
