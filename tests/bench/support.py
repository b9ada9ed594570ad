"""What the benchmarks share: a server with a prepared database, timing side by side, a report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, make_url

from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.schema import migrate
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Connection = psycopg.Connection[tuple[Any, ...]]

# Enough memory that nothing is read from the disk: what is measured is the work.
SERVER = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "1GB",
    "max_wal_size": "4GB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
}
MACHINE = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


class Target(NamedTuple):
    """A figure to reach; `at_most` tells the direction."""

    key: str
    what: str
    value: float
    limit: float
    at_most: bool

    @property
    def reached(self) -> bool:
        return self.share >= 1

    @property
    def share(self) -> float:
        """How many times as good as the limit the value is."""
        return self.limit / max(self.value, 1e-9) if self.at_most else self.value / self.limit


def arguments(description: str) -> argparse.Namespace:
    """The command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "pgrec-bench")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    return parser.parse_args()


@contextmanager
def server(folder: Path, settings: Mapping[str, str] = SERVER) -> Iterator[str]:
    """URL of a server in `folder`, whose databases stay there for the next run."""
    folder.mkdir(parents=True, exist_ok=True)
    embedded = EmbeddedServer(folder, Settings().pg_bin, settings)
    if embedded.running:  # its settings may be others
        sys.exit(
            f"A server runs in {folder}: another benchmark is at it, or was killed."
            f" kill -INT $(head -1 {embedded.home}/data/postmaster.pid) ends it."
        )
    try:
        yield embedded.start()
    finally:
        embedded.stop()


@contextmanager
def filled_database(
    address: str, template: str, fill: Callable[[Connection], None]
) -> Iterator[Connection]:
    """A connection to a copy of `template`, which is migrated and filled if it is not there."""
    prepare(address, template, fill)
    create(address, "pgrec_bench_run", template)
    with visit(address, "pgrec_bench_run") as db:
        yield db
    run(address, sql.SQL("drop database pgrec_bench_run"))


def prepare(address: str, template: str, fill: Callable[[Connection], None]) -> None:
    """Make a database and fill it, unless it is there; it gets its name when it is whole."""
    if not exists(address, template):
        create(address, "pgrec_bench_aside", "template0")
        with visit(address, "pgrec_bench_aside") as db:
            fill(db)
        rename = sql.SQL("alter database pgrec_bench_aside rename to {}")
        run(address, rename.format(sql.Identifier(template)))


@contextmanager
def visit(address: str, database: str) -> Iterator[Connection]:
    """A connection to a database that is brought to the version of this checkout."""
    url = make_url(address).set(database=database)
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    migrate(engine)
    engine.dispose()
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as db:
        register_vector(db)
        yield db


@contextmanager
def small_shop(address: str, items: int) -> Iterator[tuple[Connection, str]]:
    """A connection to a new database with items of random directions, and its URL."""
    create(address, "pgrec_bench_run", "template0")
    with visit(address, "pgrec_bench_run") as db:
        numbered = "insert into rec.items (item_id) select 'i' || n from generate_series(1, %s) n"
        db.execute(numbered, [items])
        db.execute("update rec.items set encoded_hash = content_hash")
        db.execute("drop index rec.item_vectors_hnsw")
        db.execute("select setseed(0.5)")
        db.execute(
            "insert into rec.item_vectors select i.item_id,"
            " (select array_agg(random() - 0.5) from generate_series(1, 384)"
            " where i.item_id <> '')::vector::halfvec from rec.items i"
        )
        db.execute("vacuum analyze")
        url = make_url(address).set(database="pgrec_bench_run")
        yield db, url.render_as_string(hide_password=False)
    run(address, sql.SQL("drop database pgrec_bench_run with (force)"))


@contextmanager
def working(url: str, workers: int = 1) -> Iterator[None]:
    """Workers of their own processes at a database, until the end."""
    environment = os.environ | {"PGREC_DATABASE_URL": url, "PGREC_METRICS_PORT": "0"}
    command, quiet = [sys.executable, "-m", "rec_pkg", "worker"], subprocess.DEVNULL
    started = [
        subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
        for _ in range(workers)
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def exists(address: str, database: str) -> bool:
    with psycopg.connect(address) as admin:
        query = "select from pg_database where datname = %s"
        return admin.execute(query, [database]).fetchone() is not None


def create(address: str, database: str, template: str) -> None:
    name = sql.Identifier(database)
    run(address, sql.SQL("drop database if exists {} with (force)").format(name))
    make = sql.SQL("create database {} template {} strategy file_copy")
    run(address, make.format(name, sql.Identifier(template)))


def run(address: str, statement: sql.SQL | sql.Composed) -> None:
    with psycopg.connect(address, autocommit=True) as admin:
        admin.execute(statement)


def side_by_side(
    variants: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of each variant, called in turn; the first round warms and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def merged(runs: Sequence[Mapping[str, list[float]]]) -> dict[str, float]:
    """The median of each variant over all runs."""
    return {
        name: statistics.median(value for times in runs for value in times[name])
        for name in runs[0]
    }


def report(targets: Sequence[Target], times: Mapping[str, float], out: Path) -> None:
    """Print what was measured, and merge it into the file `out`."""
    console = Console(width=110)
    medians = Table("what", "p50, ms", title=f"medians, {MACHINE}")
    for name, value in times.items():
        medians.add_row(name, f"{value:.3f}")
    console.print(medians)
    show(targets)
    known = json.loads(out.read_text()) if out.exists() else {}
    known["machine"] = MACHINE
    known.setdefault("milliseconds", {}).update({name: round(v, 3) for name, v in times.items()})
    known.setdefault("ratios", {}).update(
        {t.key: {name: v for name, v in t._asdict().items() if name != "key"} for t in targets}
    )
    out.write_text(json.dumps(known, indent=2) + "\n")


def show(targets: Sequence[Target]) -> None:
    """Print values beside what was to be reached."""
    table = Table("key", "what", "value", "target", "", title="ratios")
    for target in targets:
        bound = f"{'<=' if target.at_most else '>='} {target.limit:g}"
        verdict = "reached" if target.reached else "missed"
        table.add_row(target.key, target.what, f"{target.value:.3f}", bound, verdict)
    Console(width=120).print(table)
