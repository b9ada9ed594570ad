"""Servers that cannot write: read-only, out of room, a standby."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from rec_pkg import Client
from tests.support.faults.workers import drained, sleeping, wait_until, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rec_pkg.database.embedded import EmbeddedServer
    from tests.support.faults.tally import Faults
    from tests.support.faults.world import Connection, World

WATCHED_S = 3.0
LONG_S = 1.0  # of a pause between two tries; the first are far shorter
USERS = 300
ROOM = "60m"


def clicks(db: Connection) -> list[str]:
    """Write an event of each of many users and return their keys."""
    db.execute(
        "insert into rec.events (user_id, item_id, dedupe_key)"
        " select 'user ' || n, 'item 1', n::text from generate_series(1, %s) n",
        [USERS],
    )
    return [str(number) for number in range(1, USERS + 1)]


def transactions(db: Connection) -> int:
    db.execute("select pg_stat_clear_snapshot()")
    row = db.execute(
        "select xact_commit + xact_rollback from pg_stat_database"
        " where datname = current_database()"
    ).fetchone()
    assert row
    return int(row[0])


@pytest.mark.full
def test_a_read_only_server_is_named_asked_seldom_and_used_again_when_it_writes(
    db: Connection, world: World, database: str, faults: Faults, tmp_path: Path
) -> None:
    with worker(world.url(database), tmp_path) as one:
        wait_until(lambda: drained(db) and sleeping(db))
        db.execute(f"alter database {database} set default_transaction_read_only = on")
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'pgrec worker%'"
        )
        keys = clicks(db)
        faults.strike()
        wait_until(lambda: one.said("the server is read-only"))
        before, lines = transactions(db), len(one.lines())
        time.sleep(WATCHED_S)
        assert len(one.lines()) - lines < 10
        assert transactions(db) - before < 200
        wait_until(lambda: max(one.pauses()) > LONG_S)
        assert db.execute("select pending, parked from rec.status").fetchone() == (USERS, 0)
        db.execute(f"alter database {database} reset default_transaction_read_only")
        assert faults.survived(db, keys) == USERS
        assert one.process.poll() is None


@pytest.fixture
def small_disk(world: World) -> Iterator[Path]:
    """Folder on a file system of its own with room for a database and not much more."""
    folder = world.folder / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root, where it may mount, can make a disk that fills up")
    try:
        space = folder / "space"
        space.mkdir()
        owner = world.server.home.stat()
        os.chown(space, owner.st_uid, owner.st_gid)
        with psycopg.connect(world.server.url, autocommit=True) as admin:
            admin.execute(f"create tablespace small location '{space}'")
            yield folder
            admin.execute("drop tablespace small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(4096)):
                pass
        except OSError:
            return


def test_a_full_disk_parks_nothing_is_asked_seldom_and_goes_on_when_there_is_room(
    world: World, small_disk: Path, faults: Faults, tmp_path: Path
) -> None:
    with world.database("small") as name, world.connect(name) as db:
        with worker(world.url(name), tmp_path):
            wait_until(lambda: drained(db))
        keys = clicks(db)
        fill(small_disk / "ballast")
        faults.strike()
        with worker(world.url(name), tmp_path) as one:
            wait_until(lambda: one.said("the server has no room"))
            assert one.said("No space left on device")
            before, lines = transactions(db), len(one.lines())
            time.sleep(WATCHED_S)
            assert len(one.lines()) - lines < 10
            assert transactions(db) - before < 200
            wait_until(lambda: max(one.pauses()) > LONG_S)
            assert db.execute("select pending, parked from rec.status").fetchone() == (USERS, 0)
            (small_disk / "ballast").unlink()
            assert faults.survived(db, keys) == USERS
            assert one.process.poll() is None


@pytest.fixture
def folded(world: World, database: str, faults: Faults, tmp_path: Path) -> list[str]:
    """Keys of events that are folded in the database."""
    with world.connect(database) as db, worker(world.url(database), tmp_path):
        keys = clicks(db)
        faults.survived(db, keys)
    return keys


@pytest.fixture
def on_standby(folded: list[str], standby: EmbeddedServer, database: str) -> str:
    """URL of the database on the standby."""
    assert folded
    return standby.url.replace("/pgrec?", f"/{database}?")


def test_a_standby_recommends_and_says_that_it_cannot_write(
    on_standby: str, db: Connection
) -> None:
    with psycopg.connect(on_standby, autocommit=True) as hot:
        assert hot.execute("select pg_is_in_recovery()").fetchone() == (True,)
        listed = "select item_id, path from rec.recommend('user 7', 5)"
        assert hot.execute(listed).fetchall() == db.execute(listed).fetchall() != []
        with Client(on_standby) as client:
            assert len(client.recommend("user 7", 5)) == 5
        for call in (
            "rec.track('ann', 'item 1')",
            "rec.apply_users('{user 7}')",
            "rec.forget_user('ann')",
        ):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="cannot"):
                hot.execute(f"select {call}")
    told = pgrec(on_standby, "track", "ann", "item 1")
    assert told.returncode == 1
    assert "read-only transaction" in told.stderr


@pytest.mark.full
def test_a_worker_at_a_standby_says_so_and_waits_for_its_promotion(
    on_standby: str, folded: list[str], faults: Faults, tmp_path: Path
) -> None:
    with psycopg.connect(on_standby, autocommit=True) as hot, worker(on_standby, tmp_path) as one:
        wait_until(lambda: one.said("read-only, as a standby is"))
        lines = len(one.lines())
        time.sleep(WATCHED_S)
        assert len(one.lines()) - lines < 10
        wait_until(lambda: max(one.pauses()) > LONG_S)
        hot.execute("select pg_promote()")
        hot.execute("select rec.track('ann', 'item 1', p_dedupe_key => 'a')")
        assert faults.survived(hot, [*folded, "a"]) == USERS + 1
        assert one.process.poll() is None


def pgrec(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rec_pkg", *arguments],
        env=os.environ | {"PGREC_DATABASE_URL": address},
        capture_output=True,
        text=True,
        check=False,
    )
