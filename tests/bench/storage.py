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
from support import arguments, filled_database, server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support import Connection

TEXTS: Final = 5000
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
# What each table has a row for.
TABLES: Final = {
    "items": "item",
    "item_vectors": "item",
    "popularity": "item",
    "user_interests": "user",
    "events": "event",
    "item_transitions": "pair",
    "texts": "text",
}
COUNTS: Final = {
    "item": "select count(*) from rec.items",
    "user": "select count(distinct user_id) from rec.user_interests",
    "event": "select count(*) from rec.events",
    "pair": "select count(*) from rec.item_transitions",
    "text": "select count(*) from rec.texts",
}
# A deployment to reckon with: people, catalogue, events and new texts of a person in a year.
PEOPLE: Final = 100_000_000
CATALOGUE: Final = 1_000_000
EVENTS_EACH: Final = 200
TEXTS_EACH: Final = 5
PAIRS_PER_ITEM: Final = 1000


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
        "insert into rec.texts (text_hash, embedding)"
        " select rec.content_hash('text ' || n), v.embedding from generate_series(1, %s) n"
        " join rec.item_vectors v on v.item_id = 'i' || n",
        [TEXTS],
    )


def weigh(db: Connection) -> list[Weight]:
    """What is on disk after a vacuum."""
    db.execute("vacuum analyze")
    counts = {unit: shop.drain(db, query) for unit, query in COUNTS.items()}
    weights = []
    for table, unit in TABLES.items():
        row = db.execute(SIZES, {"name": f"rec.{table}"}).fetchone()
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
        "events of a year": PEOPLE * EVENTS_EACH * units["event"],
        "texts of a year": PEOPLE * TEXTS_EACH * units["text"],
        "catalogue": CATALOGUE * units["item"],
        "pairs of items": CATALOGUE * PAIRS_PER_ITEM * units["pair"],
    }
    return {name: size / GIB for name, size in bytes_of.items()}


def report(weights: Sequence[Weight], out: Path) -> None:
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
    units = per_unit(weights)
    reach = Table("what", "GiB", title="of a large deployment")
    for name, size in reckoned(units).items():
        reach.add_row(name, f"{size:,.0f}")
    console.print(reach)
    known = json.loads(out.read_text()) if out.exists() else {}
    known["gib_of_100m_users"] = {name: round(size) for name, size in reckoned(units).items()}
    known["bytes"] = {
        "each": {unit: round(size) for unit, size in units.items()},
        "tables": {weight.table: weight._asdict() for weight in weights},
    }
    out.write_text(json.dumps(known, indent=2) + "\n")


def main() -> None:
    """Run everything."""
    options = arguments("Weigh the shop.")
    template = f"pgrec_bench_{options.items}"
    with (
        server(options.folder) as address,
        filled_database(address, template, partial(shop.fill, items=options.items)) as db,
    ):
        add_texts(db)
        weights = weigh(db)
    report(weights, options.out)


if __name__ == "__main__":
    main()
