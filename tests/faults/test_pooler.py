"""A pooler in transaction mode: everything works through it but a worker, which says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine

from rec_pkg import Client, loading, schema
from rec_pkg import database as databases
from rec_pkg.operations.doctor import examine
from rec_pkg.settings import Settings
from tests.support.faults.workers import wait_until, worker
from tests.support.faults.world import PASSWORD, account, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.faults.tally import Faults
    from tests.support.faults.world import Connection, World

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = 3
"""

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@contextmanager
def pgbouncer(world: World, mode: str) -> Iterator[int]:
    """Port of a pooler in front of the server."""
    folder, port = world.server.home / f"pgbouncer-{mode}", free_port()
    folder.mkdir()
    text = CONFIGURATION.format(server=world.port, port=port, folder=folder, mode=mode)
    (folder / "pgbouncer.ini").write_text(text)
    (folder / "users").write_text(f'"pgrec" "{PASSWORD}"\n')
    who = account(world.server)
    for path in (folder, *folder.iterdir()):
        os.chown(path, who.get("user", -1), who.get("group", -1))
    command = [str(PGBOUNCER), "-q", str(folder / "pgbouncer.ini")]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, **who) as process:
        try:
            wait_until(lambda: answers(world.tcp("postgres", port)))
            yield port
        finally:
            process.kill()
    shutil.rmtree(folder)


def answers(address: str) -> bool:
    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="module")
def transactional(world: World) -> Iterator[int]:
    with pgbouncer(world, "transaction") as port:
        yield port


@contextmanager
def others_at_work(address: str) -> Iterator[None]:
    """Clients that take the pooler's connections in turn, so that nobody keeps one."""
    stopping = Event()

    def work() -> None:
        with psycopg.connect(address, autocommit=True, prepare_threshold=None) as own:
            while not stopping.is_set():
                own.execute("select pg_sleep(0.001)")

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def test_a_pooler_in_transaction_mode_is_told_from_a_direct_line_and_one_in_session_mode(
    world: World, database: str, transactional: int
) -> None:
    def line(address: str) -> str:
        with psycopg.connect(address, autocommit=True) as connection:
            return next(f.level for f in examine(connection) if f.what == "connection")

    assert line(world.tcp(database, transactional)) == "red"
    assert line(world.tcp(database)) == "green"
    assert line(world.url(database)) == "green"
    with pgbouncer(world, "session") as port:
        assert line(world.tcp(database, port)) == "yellow"


@pytest.mark.full
def test_a_worker_started_through_it_says_what_to_do(
    world: World, database: str, transactional: int, tmp_path: Path
) -> None:
    with worker(world.tcp(database, transactional), tmp_path) as one:
        assert one.process.wait(60) == 1
        assert one.said("NOTIFY gets lost on the way")


def test_a_client_works_through_it(
    world: World, db: Connection, database: str, transactional: int, faults: Faults, tmp_path: Path
) -> None:
    address = world.tcp(database, transactional)
    url = f"postgresql+psycopg://pgrec:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{transactional}"
    keys = [str(number) for number in range(40)]
    with (
        others_at_work(address),
        worker(world.url(database), tmp_path),
        Client(f"{url}/{database}") as client,
    ):
        for key in keys:
            client.track("ann", f"item {key}" if key != "0" else "item 1", dedupe_key=key)
            assert len(client.recommend("ann", 5)) > 0
        assert faults.survived(db, keys) == len(keys)
        item = client.recommend("ann", 1)[0].item_id
        assert client.explain("ann", item)
        event = client.track("ann", "item 3")
        assert event is not None
        assert client.undo("ann", event)
        assert client.forget("ann") == len(keys)


def test_files_of_many_chunks_are_loaded_through_it(
    world: World,
    db: Connection,
    database: str,
    transactional: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "CHUNK", 10)
    address = world.tcp(database, transactional)
    items, events = tmp_path / "items.csv", tmp_path / "events.csv"
    rows = range(100)
    items.write_text("item_id,title\n" + "".join(f"new {row},title {row}\n" for row in rows))
    events.write_text("user_id,item_id\n" + "".join(f"ann,new {row}\n" for row in rows))
    settings = Settings(database_url=SecretStr(address))
    with others_at_work(address), databases.connect(settings) as connection:
        assert loading.load_items(connection, items).inserted == len(rows)
        assert loading.load_events(connection, events).inserted == len(rows)
        assert loading.load_events(connection, events).unchanged == len(rows)
    assert db.execute("select count(*) from rec.events").fetchone() == (len(rows),)


def test_a_database_is_migrated_through_it(world: World, database: str, transactional: int) -> None:
    address = world.tcp(database, transactional)
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(address))
    with others_at_work(address):
        schema.downgrade(engine)
        schema.migrate(engine)
        with engine.connect() as connection:
            schema.check(connection)
    engine.dispose()
