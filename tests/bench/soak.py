"""Steady load on one worker: writers, readers, and samples of what must not grow."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import psycopg
import shop
from mass import Clock, console
from rich.table import Table
from support import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from support import Connection

ITEMS: Final = 5000
USERS: Final = 2000
WRITERS, EVENTS_A_SECOND = 2, 60  # each
READERS, LISTS_A_SECOND = 1, 5
TEXT_SHARE: Final = 0.02
HISTORY: Final = 12
LOOKS: Final = 60
MIB: Final = 2.0**20
WATCHED: Final = (
    "pending",
    "item_deltas",
    "user_interests",
    "popularity",
    "item_transitions",
)
SAMPLE: Final = """
    select s.relname, s.n_dead_tup, s.n_tup_upd, s.n_tup_hot_upd,
        pg_relation_size(s.relid), pg_indexes_size(s.relid), c.reltuples::bigint
    from pg_stat_user_tables s join pg_class c on c.oid = s.relid
    where s.schemaname in ('rec', 'rec_internal') and s.relname = any(%s)
"""


class State(NamedTuple):
    """A table at a moment; sizes in bytes."""

    dead: int
    updated: int
    hot: int
    heap: int
    indexes: int
    rows: int


class Sample(NamedTuple):
    """A moment of the soak."""

    at: float
    rss: int
    waiting: int
    tables: dict[str, State]


class Load:
    """Threads that each do something so many times a second, until the block ends."""

    def __init__(self, address: str, tasks: Sequence[tuple[float, Callable[..., None]]]) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._wrong: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number, *task))
            for number, task in enumerate(tasks)
        ]
        self.done = [0] * len(tasks)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._wrong and not any(error):
            raise self._wrong[0]

    def _run(self, number: int, rate: float, task: Callable[..., None]) -> None:
        chance = random.Random(number)
        start = time.monotonic()
        try:
            with psycopg.connect(self._address, autocommit=True) as db:
                while not self._stopping.is_set():
                    task(db, chance)
                    self.done[number] += 1
                    time.sleep(max(0, start + self.done[number] / rate - time.monotonic()))
        except BaseException as error:  # noqa: BLE001  # told where the block ends
            self._wrong.append(error)


def write(db: Connection, chance: random.Random) -> None:
    """One event, on an item or, seldom, with a text that was never seen."""
    user, item = f"user {chance.randrange(USERS)}", f"i{int(ITEMS * chance.random() ** 2)}"
    text = f"something like {chance.random()}" if chance.random() < TEXT_SHARE else None
    db.execute(
        "insert into rec.events (user_id, item_id, text) values (%s, %s, %s)", [user, item, text]
    )


def read(db: Connection, chance: random.Random) -> None:
    """One list."""
    db.execute("select * from rec.recommend(%s, 10)", [f"user {chance.randrange(USERS)}"])


def add_histories(db: Connection) -> None:
    """So many events of each user as one can follow, so that all is steady from the start."""
    db.execute(
        "insert into rec.events (user_id, item_id, occurred_at)"
        " select 'user ' || u, 'i' || (u * 7919 + n * 104729) %% %s, now() - n * interval '1 hour'"
        " from generate_series(0, %s) u, generate_series(1, %s) n",
        [ITEMS, USERS - 1, HISTORY],
    )
    for call in ("select rec.apply_pending(5000)", "select rec.merge_deltas()"):
        while shop.drain(db, call):
            pass


@contextmanager
def one_worker(address: str) -> Iterator[int]:
    """Process id of a worker at the database, until the end."""
    environment = os.environ | {"PGREC_DATABASE_URL": address, "PGREC_METRICS_PORT": "0"}
    command, quiet = [sys.executable, "-m", "rec_pkg", "worker"], subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    asked = ["ps", "-o", "rss=", "-p", str(pid)]
    answer = subprocess.run(asked, check=True, capture_output=True, text=True)
    return int(answer.stdout) * 1024


def look(db: Connection, pid: int, at: float) -> Sample:
    row = db.execute("select count(*) from rec_internal.pending").fetchone()
    states = db.execute(SAMPLE, [list(WATCHED)]).fetchall()
    tables = {state[0]: State(*state[1:]) for state in states}
    return Sample(at, resident(pid), row[0] if row else 0, tables)


def soak(db: Connection, address: str, minutes: float) -> list[Sample]:
    """Load the database for so long and return what was seen."""
    tasks: list[tuple[float, Callable[..., None]]] = [
        *[(EVENTS_A_SECOND, write)] * WRITERS,
        *[(LISTS_A_SECOND, read)] * READERS,
    ]
    clock, samples = Clock(), []
    with one_worker(address) as pid, Load(address, tasks) as load:
        start = time.monotonic()
        for turn in range(1, LOOKS + 1):
            time.sleep(max(0, start + turn * minutes * 60 / LOOKS - time.monotonic()))
            samples.append(look(db, pid, time.monotonic() - start))
            if turn % (LOOKS // 10) == 0:
                clock.say(said(samples[-1], load.done))
    return samples


def said(sample: Sample, done: Sequence[int]) -> str:
    sizes = ", ".join(
        f"{name} {(state.heap + state.indexes) / MIB:.1f}" for name, state in sample.tables.items()
    )
    return (
        f"{sum(done[:WRITERS]):,} events, {sum(done[WRITERS:]):,} lists,"
        f" worker {sample.rss / MIB:.0f} MiB, {sample.waiting} pending; MiB: {sizes}"
    )


def quarter(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    """The samples of a quarter of the time, 0 to 3."""
    length = len(samples) // 4
    return samples[number * length : (number + 1) * length]


def growth(samples: Sequence[Sample], measure: Callable[[Sample], float]) -> float:
    """Median of the last quarter over that of the second; in the first, caches fill."""
    before, after = (
        statistics.median(measure(sample) for sample in quarter(samples, number))
        for number in (1, 3)
    )
    return after / max(before, 1.0)


def slope(samples: Sequence[Sample], measure: Callable[[Sample], float]) -> float:
    """Change per minute over the last three quarters, fitted."""
    later = samples[len(samples) // 4 :]
    fitted = statistics.linear_regression(
        [sample.at / 60 for sample in later], [measure(sample) for sample in later]
    )
    return fitted.slope


def heap(table: str) -> Callable[[Sample], float]:
    return lambda sample: sample.tables[table].heap + sample.tables[table].indexes


def hot_share(state: State) -> float:
    """Share of updates that touched no index."""
    return state.hot / max(state.updated, 1)


def judged(samples: Sequence[Sample]) -> list[Target]:
    """What has to stay as it was."""
    rate = WRITERS * EVENTS_A_SECOND
    waiting = statistics.median(sample.waiting for sample in quarter(samples, 3))
    last = samples[-1].tables
    return [
        Target(
            "soak_worker_mib_per_minute",
            "slope of the worker's resident memory",
            slope(samples, lambda sample: sample.rss / MIB),
            1.0,
            at_most=True,
        ),
        Target(
            "soak_pending_seconds", "pending / events a second", waiting / rate, 2, at_most=True
        ),
        *(
            Target(
                f"soak_{name}_growth",
                "size in the last quarter / in the second",
                growth(samples, heap(name)),
                1.3,
                at_most=True,
            )
            for name in ("pending", "item_deltas", "user_interests")
        ),
        Target(
            "soak_interests_hot",
            "share of updates that touch no index",
            hot_share(last["user_interests"]),
            0.9,
            at_most=False,
        ),
    ]


def show(samples: Sequence[Sample]) -> None:
    """Print what was seen at the end of each quarter."""
    table = Table("minute", "worker, MiB", "pending", *WATCHED, title="soak: MiB / dead / HOT")
    for number in range(4):
        sample = quarter(samples, number)[-1]
        cells = [_cell(sample.tables[name]) for name in WATCHED]
        rss, minute = f"{sample.rss / MIB:.0f}", f"{sample.at / 60:.1f}"
        table.add_row(minute, rss, str(sample.waiting), *cells)
    console.print(table)


def _cell(state: State) -> str:
    size = (state.heap + state.indexes) / MIB
    return f"{size:.1f} / {state.dead:,} / {hot_share(state):.2f}"
