from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from rec_pkg.errors import EmbeddedServerMissing
from tests.support.faults.tally import Faults, Tally
from tests.support.faults.world import World, free_port, run_program

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rec_pkg.database.embedded import EmbeddedServer
    from tests.support.faults.world import Connection


TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `make faults` what is marked `full`."""
    if not config.getoption("--full"):
        left = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    tally = item.config.stash.get(TALLY, None)
    if tally is not None and "faults" in item.path.parts:
        if report.when == "call" and report.passed:
            tally.survived += tally.struck.pop(item.nodeid, 1)
        elif report.failed:
            tally.failed += tally.struck.pop(item.nodeid, 1)
    return report


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if config.getoption("--full"):
        print(config.stash[TALLY])  # noqa: T201  # the last line of `make faults`


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether all faults are wanted. Without, a small share."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    if TALLY not in request.config.stash:  # not ours to set up when all tests are run
        request.config.stash[TALLY] = Tally()
    return Faults(request.node.nodeid, request.config.stash[TALLY])


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    made = World()
    try:
        try:
            made.start()
        except EmbeddedServerMissing:
            pytest.skip("faults are done to a server of our own, and there is none to be had")
        yield made
    finally:
        made.remove()


@pytest.fixture
def database(world: World) -> Iterator[str]:
    """Name of a fresh database."""
    with world.database() as name:
        yield name


@pytest.fixture
def db(world: World, database: str) -> Iterator[Connection]:
    """A connection by the socket to the fresh database."""
    with world.connect(database) as connection:
        yield connection


@pytest.fixture
def standby(world: World) -> Iterator[EmbeddedServer]:
    """A hot standby of the server, up to date when it is handed over."""
    if not (world.server.psql_path.parent / "pg_basebackup").exists():
        pytest.skip("this Postgres comes without pg_basebackup")
    made = world.new_server("standby", free_port())
    made.home.mkdir(parents=True)
    owner = world.server.home.stat()
    os.chown(made.home, owner.st_uid, owner.st_gid)
    made.home.chmod(0o700)
    source = ["-d", world.server.url.replace("/pgrec?", "/postgres?")]
    data = ["-D", str(made.home / "data"), "-R", "-X", "stream", "-c", "fast", "--no-sync"]
    run_program(world.server, "pg_basebackup", *source, *data)
    try:
        made.start()
        yield made
    finally:
        made.stop("immediate")
        shutil.rmtree(made.home, ignore_errors=True)
