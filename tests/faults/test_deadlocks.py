"""Whoever folds waits for nobody, so nobody is ever in a ring of waiting."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.faults.workers import worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.faults.tally import Faults
    from tests.support.faults.world import Connection, World

USERS = [f"user {number}" for number in range(6)]
INSERT = "insert into rec.events (user_id, item_id, text, dedupe_key) values (%s, %s, %s, %s)"


def write_upwards(db: Connection, chance: random.Random) -> None:
    _write(db, chance, USERS)


def write_downwards(db: Connection, chance: random.Random) -> None:
    _write(db, chance, USERS[::-1])


def _write(db: Connection, chance: random.Random, users: list[str]) -> None:
    with db.transaction():
        for user in users:
            item, text = f"item {chance.randint(1, 40)}", f"words of {chance.randint(1, 30)}"
            key = str(chance.random())
            db.execute(INSERT, [user, item, text if chance.random() < 0.3 else None, key])


def fold(db: Connection, chance: random.Random) -> None:
    db.execute("select rec.apply_users(%s)", [chance.sample(USERS, len(USERS))])
    db.execute("select rec.apply_pending(), rec.merge_deltas(), rec_internal.retry_waiting()")


def undo(db: Connection, chance: random.Random) -> None:
    user = chance.choice(USERS)
    db.execute(
        "select rec.undo_event(%s, max(event_id)) from rec.events where user_id = %s", [user] * 2
    )


def rebuild(db: Connection, chance: random.Random) -> None:
    db.execute("select rec.rebuild_user(%s)", [chance.choice(USERS)])


def forget(db: Connection, chance: random.Random) -> None:
    db.execute("select rec.forget_user(%s)", [chance.choice(USERS)])
    time.sleep(0.2)


@pytest.mark.timeout(300)
def test_folding_writing_undoing_rebuilding_and_forgetting_never_lock_each_other_out(
    world: World, db: Connection, database: str, faults: Faults, tmp_path: Path, *, full: bool
) -> None:
    ends = time.monotonic() + (60 if full else 3)
    wrong: list[psycopg.Error] = []

    def keep_doing(act: Callable[[Connection, random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        with world.connect(database) as own:
            while time.monotonic() < ends and not wrong:
                try:
                    act(own, chance)
                except psycopg.Error as error:
                    wrong.append(error)

    acts = (write_upwards, write_downwards, write_upwards, write_downwards, fold, fold)
    threads = [
        threading.Thread(target=keep_doing, args=(act, seed))
        for seed, act in enumerate((*acts, undo, rebuild, forget))
    ]
    with worker(world.url(database), tmp_path) as one, worker(world.url(database), tmp_path) as two:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        faults.survived(db)
        assert not one.said("deadlock")
        assert not two.said("deadlock")
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert db.execute(deadlocks).fetchone() == (0,)


CALLS = (
    "rec_internal.retry_waiting()",
    "rec.retry()",
    "rec_internal.retry_known()",
    "rec.apply_pending()",
    "rec.apply_users('{ann}')",
    "rec_internal.apply_event('ann', (select max(event_id) from rec.events))",
    "rec_internal.park('{ann}', array[(select max(event_id) from rec.events)], 'why')",
    "rec.merge_deltas()",
)
STATES = ("now()", "now() + interval '1 minute'", "'infinity'")


def test_nothing_that_a_worker_does_to_the_queue_waits_for_others(
    world: World, db: Connection, database: str
) -> None:
    db.execute("select rec.track('ann', 'no such item')")
    db.execute("insert into rec.items (item_id) values ('no such item')")
    db.execute("set lock_timeout = '100ms'")
    for state in STATES:
        reason = "'unknown item ''no such item'''" if state == "'infinity'" else "null"
        db.execute(f"update rec_internal.pending set retry_at = {state}, error = {reason}")
        with world.connect(database) as other, other.transaction():
            other.execute("select from rec_internal.pending for update")
            for call in CALLS:
                db.execute(f"select {call}")
