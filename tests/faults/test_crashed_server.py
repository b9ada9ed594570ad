"""A server that crashes and comes back."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.workers import wait_until, worker
from tests.support.faults.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.faults.tally import Faults
    from tests.support.faults.world import World

CRASHES = 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_crashes_under_load_has_counted_every_event_once(
    world: World, database: str, faults: Faults, tmp_path: Path, *, full: bool
) -> None:
    chance = random.Random(1)
    address = world.tcp(database)
    with worker(address, tmp_path) as first, worker(address, tmp_path) as second:
        wait_until(lambda: first.said("worker starts") and second.said("worker starts"))
        with Writers(address) as writers:
            wait_until(lambda: len(writers.acknowledged) > 100)
            for _ in range(CRASHES if full else 1):
                time.sleep(chance.uniform(0.5, 3 if full else 1))
                world.crash()
                faults.strike()
                world.server.start()
        with world.connect(database) as db:
            assert faults.survived(db, writers.acknowledged) == len(writers.acknowledged)
        assert writers.broken > 0
        for one in (first, second):
            assert one.process.poll() is None
            assert one.said("no connection to the server")


@pytest.mark.full
def test_a_worker_that_starts_before_the_server_waits_for_it(
    world: World, database: str, faults: Faults, tmp_path: Path
) -> None:
    world.crash()
    with worker(world.tcp(database), tmp_path) as early:
        wait_until(lambda: early.said("no connection to the server"))
        world.server.start()
        with world.connect(database) as db:
            db.execute("select rec.track('ann', 'item 1', p_dedupe_key => 'a')")
            assert faults.survived(db, ["a"]) == 1
        assert early.process.poll() is None
