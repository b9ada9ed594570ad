"""Reads at a streaming standby, and its promotion after the primary died under load."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from rec_pkg import Client
from tests.support.faults.proxy import Proxy
from tests.support.faults.workers import drained, sleeping, wait_until, worker
from tests.support.faults.world import PASSWORD
from tests.support.faults.writers import USERS, Stream, Writers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rec_pkg.database.embedded import EmbeddedServer
    from tests.support.faults.tally import Faults
    from tests.support.faults.world import Connection, World

CLICKS = 20
ENOUGH = 100
LATE = 50
READERS = "select count(*) from pg_stat_activity where application_name = 'reader'"


@pytest.fixture
def both(world: World, database: str, standby: EmbeddedServer) -> Any:  # noqa: ANN401
    """The parts of a conninfo that names both servers, the primary first."""
    return {
        "host": "127.0.0.1,127.0.0.1",
        "port": f"{world.port},{standby.options['port']}",
        "user": "pgrec",
        "password": PASSWORD,
        "dbname": database,
        "connect_timeout": "5",
    }


@pytest.fixture
def writable(both: dict[str, str]) -> str:
    """The way to whichever of both writes."""
    return make_conninfo("", **both, target_session_attrs="read-write")


@pytest.fixture
def readable(both: dict[str, str]) -> str:
    """The way to the standby, as a URL for the client; to the primary if there is none."""
    return (
        f"postgresql://{both['user']}:{PASSWORD.replace(' ', '%20')}@"
        + ",".join(f"127.0.0.1:{port}" for port in both["port"].split(","))
        + f"/{both['dbname']}?target_session_attrs=prefer-standby&application_name=reader"
    )


@pytest.fixture
def synchronous(world: World, database: str, standby: EmbeddedServer) -> Iterator[None]:
    """A COMMIT is answered when the standby shows it."""
    assert standby.running
    with world.connect(database) as db:
        db.execute(f"alter database {database} set synchronous_commit = remote_apply")
    set_on(world.server, "synchronous_standby_names", "*")
    yield
    world.server.start()
    set_on(world.server, "synchronous_standby_names", "")


def set_on(server: EmbeddedServer, name: str, value: str) -> None:
    """Change a setting of a server while it runs."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"alter system set {name} = '{value}'")
        admin.execute("select pg_reload_conf()")


def visit(server: EmbeddedServer, database: str) -> Connection:
    return psycopg.connect(server.url.replace("/pgrec?", f"/{database}?"), autocommit=True)


def promote(server: EmbeddedServer, database: str) -> None:
    with visit(server, database) as hot:
        assert hot.execute("select pg_promote()").fetchone() == (True,)


class Readers(Stream):
    """Threads that ask for lists and reasons until the block ends; an error ends the test."""

    def __init__(self, url: str, number: int = 2) -> None:
        super().__init__(number)
        self._client = Client(url)
        self.lists = 0

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._client.close()

    def run(self, place: int) -> None:
        """Read one list after the other."""
        while not self.stopping.is_set():
            place += 1
            user = f"user {place % USERS + 1}"
            listed = self._client.recommend(user, 5, exclude_seen=False)
            assert len(listed) == 5
            self._client.explain(user, listed[0].item_id)
            self.lists += 1
            time.sleep(0.02)


@pytest.mark.usefixtures("synchronous")
def test_a_replica_shows_every_click_at_once_and_gives_the_same_lists_and_reasons(
    world: World, database: str, standby: EmbeddedServer, readable: str, tmp_path: Path
) -> None:
    listed = "select item_id from rec.recommend('ann', 10)"
    reasons = "select event_id, term from rec.explain('ann', %s) order by event_id, term"
    with (
        world.connect(database) as db,
        visit(standby, database) as hot,
        Client(readable) as client,
    ):
        with worker(world.url(database), tmp_path):
            wait_until(lambda: drained(db))
        for number in range(1, CLICKS + 1):
            event = db.execute("select rec.track('ann', %s)", [f"item {number}"]).fetchone()
            assert event
            items = [row[0] for row in hot.execute(listed)]
            assert items == [row[0] for row in db.execute(listed)]
            assert f"item {number}" not in items
            assert hot.execute(reasons, items[:1]).fetchall() == (
                db.execute(reasons, items[:1]).fetchall()
            )
            assert items == [item.item_id for item in client.recommend("ann", 10)]
            assert event[0] in {share.event_id for share in client.explain("ann", items[0])}
            if number == CLICKS // 2:
                db.execute("select rec.apply_pending()")
        assert hot.execute(READERS).fetchone() == (1,)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("synchronous")
def test_after_the_primary_dies_worker_writers_and_readers_go_on_at_the_promoted_standby(
    world: World,
    database: str,
    standby: EmbeddedServer,
    writable: str,
    readable: str,
    faults: Faults,
    tmp_path: Path,
) -> None:
    with worker(writable, tmp_path) as one:
        with world.connect(database) as db:
            wait_until(lambda: drained(db))
        with (
            Client(readable.replace("prefer-standby", "read-write")) as client,
            Readers(readable) as readers,
            Writers(writable, number=4) as writers,
        ):
            client.track("ann", "item 1", dedupe_key="before")
            wait_until(lambda: len(writers.acknowledged) > ENOUGH)
            world.crash()
            faults.strike()
            promote(standby, database)
            sent, lists = len(writers.acknowledged), readers.lists
            wait_until(lambda: len(writers.acknowledged) > sent + ENOUGH)
            wait_until(lambda: readers.lists > lists)
            client.track("ann", "item 1", dedupe_key="before")
            client.track("ann", "item 1", dedupe_key="after")
        assert writers.broken > 0
        sure = [*writers.acknowledged, "before", "after"]
        with visit(standby, database) as promoted:
            assert faults.survived(promoted, sure) == len(sure)
        assert one.process.poll() is None
        assert one.said("no connection to the server")


@pytest.mark.full
def test_a_worker_that_moves_to_another_server_ends_no_session_there(
    world: World, database: str, db: Connection, tmp_path: Path
) -> None:
    working = "select array_agg(pid) from pg_stat_activity where application_name = 'pgrec worker'"
    impatient = {"PGREC_SILENCE_SECONDS": "1", "PGREC_POLL_SECONDS": "1"}
    with Proxy(world.port) as first, Proxy(world.port) as second:
        address = make_conninfo(
            world.tcp(database),
            host="127.0.0.1,127.0.0.1",
            port=f"{first.port},{second.port}",
            connect_timeout=2,
        )
        with worker(address, tmp_path, settings=impatient) as one:
            wait_until(lambda: drained(db) and sleeping(db))
            ((before,),) = db.execute(working).fetchall()
            first.hang()
            wait_until(lambda: one.said("the server does not answer"))
            db.execute("select rec.track('ann', 'item 1')")
            wait_until(lambda: drained(db))
            ((after,),) = db.execute(working).fetchall()
            assert len(after) == 2
            assert set(before) < set(after)


@pytest.mark.full
def test_what_an_asynchronous_standby_had_not_got_comes_back_by_sending_it_again(
    world: World,
    database: str,
    standby: EmbeddedServer,
    writable: str,
    faults: Faults,
    tmp_path: Path,
) -> None:
    sent = [str(number) for number in range(ENOUGH + LATE)]
    with worker(writable, tmp_path):
        with world.connect(database) as db:
            send(db, sent[:ENOUGH])
            wait_until(lambda: drained(db))
            wait_until(lambda: caught_up(db))
            set_on(standby, "primary_conninfo", "")
            wait_until(lambda: alone(db))
            send(db, sent[ENOUGH:])
        world.crash()
        faults.strike()
        promote(standby, database)
        with visit(standby, database) as promoted:
            assert faults.survived(promoted, sent[:ENOUGH]) == ENOUGH
            send(promoted, sent)
            assert faults.survived(promoted, sent) == len(sent)


def send(db: Connection, keys: list[str]) -> None:
    """Write an event for each key, or nothing if it is there."""
    for key in keys:
        user, item = f"user {int(key) % 7}", f"item {int(key) % 40 + 1}"
        db.execute("select rec.track(%s, %s, p_dedupe_key => %s)", [user, item, key])


def caught_up(db: Connection) -> bool:
    row = db.execute(
        "select count(*) from pg_stat_replication where replay_lsn = pg_current_wal_lsn()"
    ).fetchone()
    return row == (1,)


def alone(db: Connection) -> bool:
    return db.execute("select count(*) from pg_stat_replication").fetchone() == (0,)
