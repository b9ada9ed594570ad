"""No wake-up is lost: whenever an event comes, a worker that sleeps hears of it."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pgrec_worker.loop import MOST_RESTS, Loop
from pgrec_worker.metrics import Metrics
from pgrec_worker.store import Store
from rec_pkg.settings import Settings
from tests.support.faults.quick_worker import Quick
from tests.support.faults.workers import drained, sleeping, wait_until, worker
from tests.support.faults.world import ITEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.faults.tally import Faults
    from tests.support.faults.world import Connection, World

FOREVER = {"PGREC_POLL_SECONDS": "600", "REST_S": "0.001"}
HEALED_BY_POLL_S = 30.0
LONGEST_CYCLE = 40
ASLEEP = ["seconds_to_retry", "notified"]
"""The last calls of a worker before it sleeps; it waits for notifications while it folds, too."""
SETTLED_S = 2.0
USERS = 200


def nothing() -> None:
    pass


class Interrupted:
    """A store that lets something happen right before one of its next calls."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calls: list[str] = []
        self._plan: dict[int, Callable[[], None]] = {}

    def plan(self, plan: dict[int, Callable[[], None]]) -> None:
        """Begin to count calls; before the n-th, do what the plan says."""
        self._calls.clear()
        self._plan = plan

    @property
    def calls(self) -> list[str]:
        return self._calls

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the store has
        attribute = getattr(self._store, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: object) -> object:
            self._calls.append(name)
            self._plan.get(len(self._calls), nothing)()
            return attribute(*arguments)

        return call


async def settle(db: Connection, until: Callable[[], bool]) -> None:
    end = time.monotonic() + HEALED_BY_POLL_S
    while not (until() and db.execute("select not rec_internal.has_work()").fetchone() == (True,)):
        assert time.monotonic() < end, "an event was not heard of"
        await asyncio.sleep(0.005)


def click(db: Connection, user: str = "ann", item: str = "item 1") -> None:
    db.execute("insert into rec.events (user_id, item_id) values (%s, %s)", [user, item])


def click_at_once(writer: Connection) -> None:
    click(writer)
    writer.commit()


async def asleep_after(store: Interrupted, db: Connection) -> None:
    await settle(db, lambda: store.calls[-2:] == ASLEEP)


@pytest.mark.timeout(600)
def test_an_event_before_any_step_of_going_to_sleep_is_heard_of(
    world: World, db: Connection, database: str, *, full: bool
) -> None:
    """At every call between waking and sleeping: whole, or begun there and committed later."""

    async def cycle(store: Interrupted, first: int, last: int) -> bool:
        """Write at the `first` call, commit at the `last` one; return if there were so many."""
        with world.connect(database) as writer:
            writer.autocommit = False
            plan: dict[int, Callable[[], None]] = {first: partial(click, writer)}
            plan[last] = writer.commit if last > first else partial(click_at_once, writer)
            store.plan(plan)
            db.execute("select rec.wake()")
            await settle(db, lambda: store.calls[-2:] == ASLEEP)
            return len(store.calls) >= last

    async def live() -> int:
        async with Store.connect(world.url(database)) as real:
            store = Interrupted(real)
            stopping = asyncio.Event()
            settings = Settings(poll_seconds=600)
            loop = Loop(store, Quick(), settings, Metrics(), stopping)  # type: ignore[arg-type]
            await loop.prepare()
            running = asyncio.ensure_future(loop.run())
            reached = 0
            try:
                await asleep_after(store, db)
                for first in range(1, LONGEST_CYCLE):
                    for later in (0, 1, 2, 5) if full else (0, 2):
                        reached += await cycle(store, first, first + later)
            finally:
                stopping.set()
                await running
            return reached

    assert asyncio.run(live()) > 30


@contextmanager
def clicks(world: World, database: str) -> Iterator[None]:
    """Events that never cease."""
    over = threading.Event()

    def click_on() -> None:
        with world.connect(database) as writer:
            while not over.wait(0.003):
                click(writer, "bob")

    with ThreadPoolExecutor() as writers:
        clicking = writers.submit(click_on)
        try:
            yield
        finally:
            over.set()
        clicking.result()


def test_upkeep_has_its_turn_while_events_never_cease(
    world: World, db: Connection, database: str, tmp_path: Path
) -> None:
    with worker(world.url(database), tmp_path) as one:
        wait_until(lambda: one.said("worker starts") and sleeping(db))
        with clicks(world, database):
            time.sleep(SETTLED_S)
            db.execute("select rec.forget_user('ann')")
            wait_until(lambda: erased(db), HEALED_BY_POLL_S)


def test_a_worker_rests_for_as_long_as_events_never_cease(
    world: World, db: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrec_worker.loop.REST_S", 0.01)

    async def live() -> None:
        async with Store.connect(world.url(database)) as real:
            store = Interrupted(real)
            stopping = asyncio.Event()
            loop = Loop(store, Quick(), Settings(), Metrics(), stopping)  # type: ignore[arg-type]
            await loop.prepare()
            running = asyncio.ensure_future(loop.run())
            try:
                await asleep_after(store, db)
                with clicks(world, database):
                    await rests(store, 3 * MOST_RESTS)
            finally:
                stopping.set()
                await running

    asyncio.run(live())


async def rests(store: Interrupted, times: int) -> None:
    end = time.monotonic() + HEALED_BY_POLL_S
    while store.calls.count("try_rest") < times:
        assert time.monotonic() < end, "the worker does not rest"
        await asyncio.sleep(0.01)


@pytest.mark.timeout(1500)
def test_ten_thousand_events_at_any_moment_never_wait_for_the_poll(
    world: World, db: Connection, database: str, faults: Faults, tmp_path: Path, *, full: bool
) -> None:
    chance = random.Random(3)
    with worker(world.url(database), tmp_path, settings=FOREVER):
        wait_until(lambda: drained(db) and sleeping(db))
        events = 10_000 if full else 100
        longest = 0.0
        for _ in range(events):
            click(db, f"user {chance.randint(1, USERS)}", f"item {chance.randint(1, ITEMS)}")
            longest = max(longest, wait_until(lambda: not waits(db), HEALED_BY_POLL_S, 0.0005))
            time.sleep(chance.choice((0, 0.0005, 0.002, 0.01, 0.02)) * chance.random())
        assert longest < HEALED_BY_POLL_S
        assert faults.survived(db) == events


def waits(db: Connection) -> bool:
    return db.execute("select exists (select from rec_internal.pending)").fetchone() == (True,)


def erased(db: Connection) -> bool:
    query = "select bool_and(cleared_at is not null) from rec_internal.erasures"
    return db.execute(query).fetchone() == (True,)
