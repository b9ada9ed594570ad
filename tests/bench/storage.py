"""
Weigh on disk what the shop holds: bytes of an item, of a user, of an event, of a pair, of a text.

    python tests/bench/storage.py [--items 100000] [--folder DIR] [--out FILE]

The shop is that of recommend.py. From the bytes it is reckoned what a large deployment would take.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import shop
from rich.console import Console
from rich.table import Table
from support import SERVER, arguments, filled_database, server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support import Connection

TEXTS: Final = 5000
TURNS, AT_A_TIME = 20, 100
# A page that is touched first after a checkpoint is logged as a whole, as in production.
REAL: Final = SERVER | {"full_page_writes": "on"}
GIB: Final = 2.0**30
# Main files with their maps, of a partitioned table those of its partitions.
SIZES: Final = """
    with part as (
        select %(name)s::regclass as relid union select relid from pg_partition_tree(%(name)s)
    )
    select
        sum(pg_relation_size(p.relid) + pg_relation_size(p.relid, 'fsm')
            + pg_relation_size(p.relid, 'vm'))::bigint,
        sum(pg_indexes_size(p.relid))::bigint,
        sum(coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0))::bigint
    from part p join pg_class c on c.oid = p.relid
"""
WRITE: Final = """
    insert into rec.events (user_id, item_id)
    select 'reader ' || (n * 37 + %(turn)s * 101) %% 2000,
        'i' || (n * 7919 + %(turn)s * 104729) %% (select count(*) from rec.items)
    from generate_series(1, %(rows)s) n
"""
WRITTEN: Final = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
STEPS: Final = {
    "fold": "select rec.apply_pending(5000)",
    "merge": "select rec.merge_deltas()",
}
# What each table has a row for.
TABLES: Final = {
    "rec.items": "item",
    "rec.item_vectors": "item",
    "rec_internal.popularity": "item",
    "rec.user_interests": "user",
    "rec_internal.interest_bases": "base",
    "rec.events": "event",
    "rec_internal.item_transitions": "pair",
    "rec_internal.texts": "text",
}
COUNTS: Final = {
    "item": "select count(*) from rec.items",
    "user": "select count(distinct user_id) from rec.user_interests",
    "base": "select count(distinct user_id) from rec_internal.interest_bases",
    "event": "select count(*) from rec.events",
    "pair": "select count(*) from rec_internal.item_transitions",
    "text": "select count(*) from rec_internal.texts",
}
# A deployment to reckon with: people, catalogue, events and new texts of a person in a year.
PEOPLE: Final = 100_000_000
CATALOGUE: Final = 1_000_000
EVENTS_EACH: Final = 200
TEXTS_EACH: Final = 5
PAIRS_PER_ITEM: Final = 1000


Logged = dict[str, dict[str, float]]


class Weight(NamedTuple):
    """Bytes of a table."""

    table: str
    unit: str
    rows: int
    heap: int
    indexes: int
    toast: int

    @property
    def each(self) -> float:
        """Bytes per item, user, event, ..."""
        return (self.heap + self.indexes + self.toast) / self.rows


def add_texts(db: Connection) -> None:
    """Vectors of texts, as they are kept once a text is encoded."""
    db.execute(
        "insert into rec_internal.texts (text_hash, embedding)"
        " select rec_internal.content_hash('text ' || n), v.embedding from generate_series(1, %s) n"
        " join rec.item_vectors v on v.item_id = 'i' || n",
        [TEXTS],
    )


def add_bases(db: Connection) -> None:
    """What is kept of users whose old events were dropped."""
    db.execute("insert into rec_internal.interest_bases select * from rec.user_interests")


def log_bytes(db: Connection) -> dict[str, float]:
    """Bytes of write-ahead log for an event that comes in, is folded and merged."""
    places: dict[str, int] = dict.fromkeys(("insert", *STEPS), 0)
    for turn in range(TURNS):
        before = shop.drain(db, WRITTEN)
        db.execute(WRITE, {"turn": turn, "rows": AT_A_TIME})
        for name in places:
            while name in STEPS and shop.drain(db, STEPS[name]):
                pass
            after = shop.drain(db, WRITTEN)
            places[name] += after - before
            before = after
    return {name: size / (TURNS * AT_A_TIME) for name, size in places.items()}


def weigh(db: Connection) -> list[Weight]:
    """What is on disk after a vacuum."""
    db.execute("vacuum analyze")
    counts = {unit: shop.drain(db, query) for unit, query in COUNTS.items()}
    weights = []
    for table, unit in TABLES.items():
        row = db.execute(SIZES, {"name": table}).fetchone()
        assert row
        weights.append(Weight(table, unit, counts[unit], *row))
    return weights


def per_unit(weights: Sequence[Weight]) -> dict[str, float]:
    """Bytes of each unit, over all its tables."""
    units = dict.fromkeys(TABLES.values(), 0.0)
    for weight in weights:
        units[weight.unit] += weight.each
    return units


def reckoned(units: dict[str, float]) -> dict[str, float]:
    """GiB of the deployment, by what they are for."""
    bytes_of = {
        "interests": PEOPLE * units["user"],
        "what dropped events leave": PEOPLE * units["base"],
        "events of a year": PEOPLE * EVENTS_EACH * units["event"],
        "texts of a year": PEOPLE * TEXTS_EACH * units["text"],
        "catalogue": CATALOGUE * units["item"],
        "pairs of items": CATALOGUE * PAIRS_PER_ITEM * units["pair"],
    }
    return {name: size / GIB for name, size in bytes_of.items()}


def report(weights: Sequence[Weight], logged: Logged, out: Path) -> None:
    """Print what was weighed, and merge it into the file `out`."""
    console = Console(width=110)
    table = Table(
        "table", "rows counted", "heap", "indexes", "toast", "bytes each", title="storage"
    )
    for weight in weights:
        sizes = (weight.heap, weight.indexes, weight.toast)
        each = (f"{size / weight.rows:,.0f}" for size in sizes)
        table.add_row(weight.table, f"{weight.rows:,} {weight.unit}s", *each, f"{weight.each:,.0f}")
    console.print(table)
    for when, parts in logged.items():
        said = ", ".join(f"{name} {size:,.0f}" for name, size in parts.items())
        console.print(f"write-ahead log {when}: {sum(parts.values()):,.0f} bytes an event ({said})")
    units = per_unit(weights)
    reach = Table("what", "GiB", title="of a large deployment")
    for name, size in reckoned(units).items():
        reach.add_row(name, f"{size:,.0f}")
    console.print(reach)
    known = json.loads(out.read_text()) if out.exists() else {}
    known["gib_of_100m_users"] = {name: round(size) for name, size in reckoned(units).items()}
    known["bytes"] = {
        "each": {unit: round(size) for unit, size in units.items()},
        "log_an_event": {when: round(sum(parts.values())) for when, parts in logged.items()},
        "tables": {weight.table: weight._asdict() for weight in weights},
    }
    out.write_text(json.dumps(known, indent=2) + "\n")


def main() -> None:
    """Run everything."""
    options = arguments("Weigh the shop.")
    template = f"pgrec_bench_{options.items}"
    with (
        server(options.folder, REAL) as address,
        filled_database(address, template, partial(shop.fill, items=options.items)) as db,
    ):
        add_texts(db)
        add_bases(db)
        weights = weigh(db)
        db.execute("checkpoint")
        logged = {when: log_bytes(db) for when in ("after a checkpoint", "later")}
    report(weights, logged, options.out)


if __name__ == "__main__":
    main()
