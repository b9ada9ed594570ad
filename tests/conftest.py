from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from sqlalchemy import make_url

from rec_pkg import schema
from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.settings import Settings
from tests.support import databases

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
    with databases.new_database(server) as url:
        with databases.engine_of(url) as engine:
            schema.migrate(engine)
        yield str(make_url(url).database)


@pytest.fixture(scope="session")
def new_database(server: str, template: str) -> Callable[[], AbstractContextManager[str]]:
    """A function that gives the URL of a fresh migrated database, for as long as it is open."""
    return lambda: databases.new_database(server, template)


@pytest.fixture
def database_url(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """URL of a fresh migrated database."""
    with new_database() as url:
        yield url


@pytest.fixture
def db(database_url: str) -> Iterator[databases.Connection]:
    """A connection to a fresh migrated database, in autocommit."""
    with databases.connected(database_url) as connection:
        yield connection


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A SQLAlchemy engine on the fresh migrated database."""
    with databases.engine_of(database_url) as engine:
        yield engine


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
