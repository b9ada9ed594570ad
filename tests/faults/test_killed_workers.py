"""Workers that are killed at any moment."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.workers import Worker, wait_until, worker
from tests.support.faults.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.faults.tally import Faults
    from tests.support.faults.workers import Which
    from tests.support.faults.world import Connection, World


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("which", "workers", "kills"),
    [pytest.param("real", 1, 30, marks=pytest.mark.full), ("quick", 3, 80)],
)
def test_workers_killed_at_any_moment_lose_nothing_and_apply_nothing_twice(
    world: World,
    db: Connection,
    database: str,
    faults: Faults,
    tmp_path: Path,
    which: Which,
    workers: int,
    kills: int,
    *,
    full: bool,
) -> None:
    chance = random.Random(workers)
    address = world.tcp(database)

    def start(number: int) -> Worker:
        return Worker(address, tmp_path / f"{number}.log", which)

    with ExitStack() as stack, Writers(address, pause_s=0.04) as writers:
        running = [start(number) for number in range(workers)]
        stack.callback(lambda: list(map(Worker.kill, running)))
        for number in range(kills if full else 1):
            place = number % workers
            victim = running[place]
            wait_until(lambda: victim.said("worker starts"))  # noqa: B023  # called at once
            time.sleep(chance.uniform(0, 1.5))
            victim.kill()
            faults.strike()
            running[place] = start(workers + number)
    with worker(address, tmp_path, which):
        assert faults.survived(db, writers.acknowledged) == len(writers.acknowledged)
    assert db.execute("select parked from rec.status").fetchone() == (0,)
