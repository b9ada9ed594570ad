"""
Time writers beside a table without triggers, and look whether each click counts at once.

    python tests/bench/writing.py [--repeats 4] [--folder DIR] [--out FILE]

Single rows come from pgbench, with every commit flushed to the disk, while a worker runs.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql
from support import SERVER, Target, arguments, report, server, small_shop, working

from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from support import Connection

CAREFUL: Final = SERVER | {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
ITEMS: Final = 1000
SECONDS: Final = 3
COPIED: Final = 100_000
PATIENCE_S: Final = 120.0
TRIES: Final = 10_000
WRITERS: Final = {1: 0.85, 4: 0.75, 16: 0.7}
ONE: Final = """\\set user random(1, 1000)
\\set item random(1, 1000)
insert into {table} (user_id, item_id) values ('u' || :user, 'i' || :item);
"""
# The same partitions, indexes and checks as those of rec.events, and no trigger.
BARE: Final = """
create schema bare;
create table bare.events (like rec.events including all) partition by range (occurred_at);
create table bare.events_default partition of bare.events default;
do $$
declare
    v_month record;
begin
    for v_month in select * from rec_internal.months() loop
        execute format('create table bare.%I partition of bare.events for values from (%L) to (%L)',
            v_month.partition::text, v_month.first_at, v_month.end_at);
    end loop;
end $$;
"""
EMPTY: Final = """
    begin; select rec_internal.erasing(true);
    truncate rec.events, rec_internal.pending, rec_internal.item_deltas, bare.events; commit
"""
CLICK: Final = "insert into rec.events (user_id, item_id) values (%s, %s)"
ASK: Final = (
    "select round(i.mass), %(item)s = any(rec.seen_items(%(user)s))"
    " from rec.interest(%(user)s) i where i.horizon = 'long'"
)
LIST: Final = "select item_id from rec.recommend(%s, 3)"
# The trigger without its gate.
LOUD: Final = """
do $$
begin
    execute replace(pg_get_functiondef('rec_internal.enqueue'::regproc),
        'and not pg_try_advisory_xact_lock_shared(rec_internal.sleep_lock())', '');
end $$;
"""
QUIET: Final = "select pg_get_functiondef('rec_internal.enqueue'::regproc)"


class Writers:
    """Sessions that insert single rows as fast as they can."""

    def __init__(self, url: str, pgbench: Path, folder: Path) -> None:
        self._url = url
        self._pgbench = pgbench
        self._folder = folder

    def rate(self, table: str, writers: int, seconds: int = SECONDS) -> float:
        """Inserts a second."""
        script = self._folder / f"{table}.sql"
        script.write_text(ONE.format(table=table))
        sessions = [f"--client={writers}", f"--jobs={min(writers, 2)}", f"--time={seconds}"]
        command = [str(self._pgbench), "--no-vacuum", "--protocol=prepared", *sessions]
        done = subprocess.run(
            [*command, f"--file={script}", self._url],
            env=os.environ | {"LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
        if not found:
            raise ValueError(done.stdout)
        return float(found[1])


def settle(db: Connection, table: str) -> None:
    """
    Wait until the worker has folded all and sleeps, and empty the tables.

    Raises:
        TimeoutError: if it does not; it may have died.
    """
    end = time.monotonic() + PATIENCE_S
    while waiting(db):
        if time.monotonic() > end:
            raise TimeoutError("the worker does not drain the queue; run `pgrec worker` to see why")
        time.sleep(0.1)
    db.execute(EMPTY)
    db.execute(f"vacuum analyze {table}")
    time.sleep(0.3)


def waiting(db: Connection) -> bool:
    row = db.execute("select rec_internal.has_work()").fetchone()
    return bool(row and row[0])


def single_rows(db: Connection, crowd: Writers, repeats: int) -> list[Target]:
    """Inserts a second with all triggers over those without, one after the other."""
    targets = []
    for writers, limit in WRITERS.items():
        ratios = []
        for turn in range(repeats + 1):
            rates = {}
            for table in ("bare.events", "rec.events"):
                rates[table] = crowd.rate(table, writers, SECONDS if turn else 1)
                settle(db, table)
            if turn:
                ratios.append(rates["rec.events"] / rates["bare.events"])
        what = f"inserts a second, triggers / none, {writers} writers"
        key = f"insert_over_bare_{writers}"
        targets.append(Target(key, what, statistics.median(ratios), limit, at_most=False))
    return targets


def copied(db: Connection, repeats: int) -> tuple[Target, dict[str, float]]:
    """COPY of many rows, likewise."""
    rows = "".join(f"u{n % 5000}\ti{n * 7 % ITEMS + 1}\n" for n in range(COPIED)).encode()
    times: dict[str, list[float]] = {"bare.events": [], "rec.events": []}
    for turn in range(repeats + 1):
        for table, taken in times.items():
            start = time.perf_counter()
            with (
                db.cursor() as cursor,
                cursor.copy(f"copy {table} (user_id, item_id) from stdin") as copy,
            ):
                copy.write(rows)
            if turn:
                taken.append((time.perf_counter() - start) * 1000)
            db.execute(EMPTY)
    ratio = statistics.median(
        bare / full for bare, full in zip(times["bare.events"], times["rec.events"], strict=True)
    )
    medians = {f"copy 100,000 into {name}": statistics.median(t) for name, t in times.items()}
    what = "rows a second of a COPY, triggers / none"
    return Target("insert_over_bare_copy", what, ratio, 0.5, at_most=False), medians


def notify_gains(db: Connection, crowd: Writers, repeats: int) -> list[Target]:
    """What the gate before NOTIFY brings on this disk, and on one that takes a millisecond more."""
    gain = gate(db, crowd, repeats)
    with slow_disk(db):
        slow = gate(db, crowd, repeats)
    what = "inserts a second at 16 writers, gated / a NOTIFY each"
    return [
        Target("notify_gain", what, gain, 5, at_most=False),
        Target("notify_gain_slow_disk", f"{what}, flushes 1 ms longer", slow, 5, at_most=False),
    ]


@contextmanager
def slow_disk(db: Connection) -> Iterator[None]:
    """Let each flush of new sessions take a millisecond more: this machine's may be very fast."""
    name = sql.Identifier(db.info.dbname)
    slower = {"commit_delay": 1000, "commit_siblings": 0}
    for setting, value in slower.items():
        change = sql.SQL("alter database {} set {} = {}")
        db.execute(change.format(name, sql.Identifier(setting), value))
    try:
        yield
    finally:
        for setting in slower:
            change = sql.SQL("alter database {} reset {}")
            db.execute(change.format(name, sql.Identifier(setting)))


def gate(db: Connection, crowd: Writers, repeats: int) -> float:
    """Single rows of many writers with the gate before NOTIFY, over those without it."""
    row = db.execute(QUIET).fetchone()
    quiet = row[0] if row else ""
    ratios = []
    for _ in range(repeats):
        gated = crowd.rate("rec.events", 16)
        settle(db, "rec.events")
        db.execute(LOUD)
        loud = crowd.rate("rec.events", 16)
        settle(db, "rec.events")
        db.execute(quiet)
        ratios.append(gated / loud)
    return statistics.median(ratios)


def at_once(url: str, tries: int = TRIES) -> Target:
    """
    How many of the clicks count in what is read next, while the worker folds them.

    A click must raise the mass of the interest by its weight and make the item a seen one; of
    every fiftieth a list is asked for, whose first item the next click is on.
    """
    counted = 0
    first: dict[str, str] = {}
    with (
        psycopg.connect(url, autocommit=True) as writer,
        psycopg.connect(url, autocommit=True) as reader,
    ):
        for n in range(tries):
            user = f"reader {n % 100}"
            item = first.get(user, f"i{n % 900 + 1}")
            writer.execute(CLICK, [user, item])
            row = reader.execute(ASK, {"user": user, "item": item}).fetchone()
            listed = reader.execute(LIST, [user]).fetchall() if n % 50 == 0 else []
            counted += row == (n // 100 + 1, True) and (item,) not in listed
            first = {user: listed[0][0]} if listed else first
    what = "clicks on known items that count in what is read next"
    return Target("known_lag_statements", what, counted, tries, at_most=False)


def measure(db: Connection, crowd: Writers, url: str, repeats: int) -> Sequence[Target]:
    """Everything, with a worker beside it."""
    db.execute(BARE)
    with working(url):
        settle(db, "rec.events")
        known = at_once(url)
        settle(db, "rec.events")
        return [*single_rows(db, crowd, repeats), *notify_gains(db, crowd, repeats), known]


def main() -> None:
    """Run everything."""
    options = arguments("Time writers, and look whether each click counts at once.")
    folder = options.folder / "careful"
    pgbench = EmbeddedServer(folder, Settings().pg_bin).psql_path.with_name("pgbench")
    with (
        server(folder, CAREFUL) as address,
        small_shop(address, ITEMS) as (db, url),
        tempfile.TemporaryDirectory() as scripts,
    ):
        crowd = Writers(url, pgbench, Path(scripts))
        targets = measure(db, crowd, url, options.repeats)
        copy, times = copied(db, options.repeats)
    report([*targets, copy], times, options.out)


if __name__ == "__main__":
    main()
