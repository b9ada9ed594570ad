"""Lines between worker and server that are cut, slow, or dead without a sign."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.proxy import Proxy
from tests.support.faults.workers import drained, sleeping, wait_until, worker
from tests.support.faults.writers import Writers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.faults.tally import Faults
    from tests.support.faults.world import Connection, World

SILENCE_S = 1.0
IMPATIENT = {"PGREC_SILENCE_SECONDS": str(SILENCE_S), "PGREC_POLL_SECONDS": "1"}
LONG_S = 1.0  # the first pauses are far shorter
CUT = "the server does not answer"


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    with Proxy(world.port) as made:
        yield made


@pytest.fixture
def address(world: World, database: str, proxy: Proxy) -> str:
    return world.tcp(database, proxy.port)


def track(db: Connection, key: str, text: str | None = None) -> None:
    db.execute("select rec.track('ann', 'item 1', p_text => %s, p_dedupe_key => %s)", [text, key])


def backends(db: Connection, name: str) -> set[int]:
    rows = db.execute(
        "select pid from pg_stat_activity"
        " where datname = current_database() and application_name = %s",
        [name],
    )
    return {row[0] for row in rows}


def test_a_line_that_is_cut_again_and_again_costs_nothing(
    db: Connection, address: str, proxy: Proxy, faults: Faults, tmp_path: Path, *, full: bool
) -> None:
    chance = random.Random(2)
    with worker(address, tmp_path) as one, Writers(address) as writers:
        wait_until(lambda: one.said("worker starts") and len(writers.acknowledged) > 100)
        for _ in range(30 if full else 1):
            time.sleep(chance.uniform(0.1, 1))
            proxy.cut()
            faults.strike()
        wait_until(lambda: writers.broken > 0)
    with worker(address, tmp_path):
        assert faults.survived(db, writers.acknowledged) == len(writers.acknowledged)


@pytest.mark.full
def test_a_slow_line_is_not_taken_for_a_dead_one(
    db: Connection, address: str, proxy: Proxy, faults: Faults, tmp_path: Path
) -> None:
    proxy.delay_s = 0.02
    with worker(address, tmp_path, settings=IMPATIENT) as one:
        for number in range(20):
            track(db, str(number), f"words of {number}")
        assert faults.survived(db, map(str, range(20))) == 20
        assert not one.said(CUT)
        assert not one.said("no connection")


@pytest.mark.parametrize("asleep", [True, pytest.param(False, marks=pytest.mark.full)])
def test_a_line_that_dies_without_a_sign_is_given_up_soon(
    db: Connection, address: str, proxy: Proxy, faults: Faults, tmp_path: Path, *, asleep: bool
) -> None:
    with worker(address, tmp_path, settings=IMPATIENT) as one:
        wait_until(lambda: drained(db) and sleeping(db))
        if not asleep:  # while a text is claimed and read, in an open transaction
            track(db, "before", "slow words")
            wait_until(lambda: not sleeping(db))
        proxy.hang()
        faults.strike()
        track(db, "a")
        waited = wait_until(lambda: one.said(CUT))
        assert waited < 60  # TCP itself would take a quarter of an hour
        proxy.heal()
        faults.survived(db, ["a"])
        assert one.process.poll() is None
    assert db.execute("select parked from rec.status").fetchone() == (0,)


@pytest.mark.full
def test_what_the_dead_line_had_claimed_is_free_for_the_next(
    db: Connection, address: str, proxy: Proxy, tmp_path: Path
) -> None:
    with worker(address, tmp_path, settings=IMPATIENT) as one:
        wait_until(lambda: drained(db) and sleeping(db))
        before = backends(db, "pgrec worker")
        track(db, "a", "slow words")
        wait_until(lambda: not sleeping(db))
        proxy.hang()
        wait_until(lambda: one.said(CUT))
        proxy.heal()
        wait_until(lambda: drained(db))
        assert not backends(db, "pgrec worker") & before


@pytest.mark.full
def test_a_statement_that_takes_long_is_not_cut(
    world: World, db: Connection, database: str, address: str, tmp_path: Path
) -> None:
    with world.connect(database) as other, other.transaction():
        other.execute("update rec.items set title = 'mine for now' where item_id = 'item 1'")
        with worker(address, tmp_path, settings=IMPATIENT) as one:
            blocked = (
                "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database() and application_name = 'pgrec worker'"
            )
            wait_until(lambda: db.execute(blocked).fetchone() == (True,))
            time.sleep(4 * SILENCE_S)
            assert not one.said(CUT)
            other.execute("select 1")


@pytest.mark.parametrize(
    "name",
    [
        "pgrec worker (listens)",
        "pgrec worker (folds)",
        pytest.param("pgrec worker", marks=pytest.mark.full),
    ],
)
def test_a_backend_that_is_ended_is_replaced(
    db: Connection, address: str, faults: Faults, tmp_path: Path, name: str, *, full: bool
) -> None:
    with worker(address, tmp_path, settings={"PGREC_POLL_SECONDS": "600"}) as one:
        for number in range(5 if full else 1):
            wait_until(lambda: drained(db) and sleeping(db))
            (pid,) = backends(db, name)
            db.execute("select pg_terminate_backend(%s, 5000)", [pid])
            faults.strike()
            track(db, str(number))
            faults.survived(db, [str(number)])
        assert one.process.poll() is None


@pytest.mark.full
def test_a_worker_whose_reconnect_fails_tries_less_and_less_often(
    db: Connection, address: str, proxy: Proxy, faults: Faults, tmp_path: Path
) -> None:
    with worker(address, tmp_path) as one:
        wait_until(lambda: drained(db) and sleeping(db))
        proxy.refuse()
        faults.strike()
        wait_until(lambda: max(one.pauses(), default=0) > LONG_S)
        track(db, "a")
        proxy.heal()
        faults.survived(db, ["a"])
