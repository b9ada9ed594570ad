"""
A list among a million items beside one among ten thousand, and a worker under steady load.

    python tests/bench/large.py [--items 1000000] [--small 10000] [--minutes 10]
        [--only growth|soak] [--repeats 4] [--folder DIR] [--out FILE]

Both shops are made by the first run, the large one in about a quarter of an hour on two cores, and
kept in the folder; 8 GB of memory and 12 GB of disk are enough for a million items.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mass
import shop
import soak
from psycopg import sql
from sqlalchemy import make_url
from support import (
    SERVER,
    Target,
    create,
    merged,
    prepare,
    report,
    run,
    server,
    side_by_side,
    visit,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Connection

LIST: Final = "select * from rec.recommend(%s, 10)"
# Shared memory of parallel index builds by the old way: /dev/shm of a container is often tiny.
LARGE: Final = SERVER | {
    "shared_buffers": "3GB",
    "maintenance_work_mem": "3GB",
    "dynamic_shared_memory_type": "sysv",
}
STEADY: Final = {"shared_buffers": "512MB", "jit": "off"}


def growth(address: str, small: int, large: int, repeats: int) -> tuple[list[Target], Any]:
    """Lists of the same people at both sizes, in turn."""
    for items in (small, large):
        prepare(address, f"pgrec_large_{items}", partial(mass.fill, items=items))
    with (
        visit(address, f"pgrec_large_{small}") as few,
        visit(address, f"pgrec_large_{large}") as many,
        few.transaction(force_rollback=True),
        many.transaction(force_rollback=True),
    ):
        runs = []
        for db in (few, many):
            click(db)
        for number in range(shop.HEAVY):
            variants: dict[str, Callable[[], object]] = {
                f"list among {items:,} items": partial(listed, db, f"heavy {number}")
                for items, db in ((small, few), (large, many))
            }
            runs.append(side_by_side(variants, repeats))
    times = merged(runs)
    below, above = times.values()
    what = f"list among {large:,} / among {small:,}"
    key = f"growth_{short(small)}_to_{short(large)}"
    return [Target(key, what, above / below, 3, at_most=True)], times


def short(number: int) -> str:
    """10k, 1m."""
    return f"{number // 1_000_000}m" if number % 1_000_000 == 0 else f"{number // 1000}k"


def click(db: Connection) -> None:
    """Three events of each that wait to be folded."""
    for number in range(shop.HEAVY):
        db.execute(
            "select rec.track(%s, 'i' || n * 97) from generate_series(1, 3) n", [f"heavy {number}"]
        )
    db.execute("analyze rec_internal.pending")


def listed(db: Connection, user: str) -> list[tuple[Any, ...]]:
    rows = db.execute(LIST, [user], prepare=True).fetchall()
    assert len(rows) == 10
    return rows


def steady(address: str, minutes: float) -> list[Target]:
    """A small shop under load."""
    create(address, "pgrec_bench_soak", "template0")
    with visit(address, "pgrec_bench_soak") as db:
        mass.fill_catalogue(db, soak.ITEMS, mass.Clock())
        soak.add_histories(db)
        url = make_url(address).set(database="pgrec_bench_soak")
        samples = soak.soak(db, url.render_as_string(hide_password=False), minutes)
    run(address, sql.SQL("drop database pgrec_bench_soak with (force)"))
    soak.show(samples)
    return soak.judged(samples)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Large catalogues and long load.")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", choices=["growth", "soak"])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "pgrec-bench")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    return parser.parse_args()


def main() -> None:
    """Run everything."""
    options = arguments()
    targets: list[Target] = []
    times: dict[str, float] = {}
    if options.only != "growth":
        with server(options.folder, STEADY) as address:
            targets += steady(address, options.minutes)
    if options.only != "soak":
        with server(options.folder, LARGE) as address:
            found, times = growth(address, options.small, options.items, options.repeats)
            targets += found
    report(targets, times, options.out)


if __name__ == "__main__":
    main()
