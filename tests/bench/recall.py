"""
Count how many of the closest items searches and lists find, beside comparing all of them.

    python tests/bench/recall.py [--items 100000] [--folder DIR] [--out FILE]

The shop is that of recommend.py.
"""

from __future__ import annotations

import json
import statistics
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shop
from recommend import LIST, NEAREST, conditions, directions, fetch
from support import Target, arguments, filled_database, report, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from support import Connection

QUERIES: Final = 200
LISTS: Final = 25
# Those of docs/tenants.md, for tenants that own what carries a flag.
POLICIES: Final = """
    alter table rec.items enable row level security;
    alter table rec.item_vectors enable row level security;
    create policy tenant on rec.items to rec_app
        using (attributes ->> current_setting('app.tenant') = 'true');
    create policy tenant on rec.item_vectors to rec_app
        using ((select true from rec.items i where i.item_id = item_vectors.item_id));
"""


class Catalogue:
    """All vectors in memory, to compare each of them."""

    def __init__(self, db: Connection) -> None:
        rows = db.execute(
            "select item_id, attributes, embedding from rec.item_vectors join rec.items"
            " using (item_id)"
        ).fetchall()
        self.items = np.array([row[0] for row in rows])
        self.attributes = [row[1] for row in rows]
        self.vectors = np.stack([row[2].to_numpy() for row in rows]).astype(np.float32)
        self.vectors /= np.linalg.norm(self.vectors, axis=1, keepdims=True)

    def nearest(self, vectors: list[Any], condition: str) -> list[set[str]]:
        """The ten items closest to each vector among those that pass."""
        wanted = json.loads(condition).items()
        passing = np.array([wanted <= attributes.items() for attributes in self.attributes])
        directions: NDArray[np.float32] = np.stack([v.to_numpy() for v in vectors])
        closest = np.argsort(-directions.astype(np.float32) @ self.vectors[passing].T, axis=1)
        return [set(self.items[passing][row[:10]].tolist()) for row in closest]


def recall(db: Connection, vectors: list[Any], condition: str, nearest: list[set[str]]) -> float:
    """Mean share of the ten nearest that rec.nearest finds."""
    return statistics.mean(
        len({row[0] for row in fetch(db, NEAREST, vector, condition)} & wanted) / len(wanted)
        for vector, wanted in zip(vectors, nearest, strict=True)
    )


@contextmanager
def tenant(db: Connection, flag: str) -> Iterator[None]:
    """The block sees what a policy leaves to a tenant."""
    with db.transaction(force_rollback=True):
        db.execute(POLICIES)
        db.execute("select set_config('app.tenant', %s, true)", [flag])
        db.execute("set local role rec_app")
        yield


def recalls(db: Connection, vectors: list[Any]) -> list[Target]:
    """Recall of searches: of all, with filters, and behind policies."""
    catalogue = Catalogue(db)
    targets = []
    for name, condition in conditions().items():
        nearest = catalogue.nearest(vectors, condition)
        share = recall(db, vectors, condition, nearest)
        targets.append(at_least(f"recall_at_10_{name}", "rec.nearest against exact", share))
        if name != "all":
            with tenant(db, name):
                share = recall(db, vectors, "{}", nearest)
            key = f"recall_at_10_policy_{name}"
            targets.append(at_least(key, "the same behind a row-level policy", share))
    return targets


def recall_of_lists(db: Connection, users: list[str]) -> Target:
    """Mean share of the ten listed that are listed when all items are compared."""
    found = [{row[1] for row in fetch(db, LIST, user)} for user in users]
    with db.transaction(force_rollback=True):
        db.execute("update rec.rankers set exact_limit = 100000")
        whole = f"{LIST[:-1]}, p_domain => 'default')"
        wanted = [{row[1] for row in fetch(db, whole, user)} for user in users]
    share = statistics.mean(len(f & w) / len(w) for f, w in zip(found, wanted, strict=True))
    return at_least("list_recall_at_10", "rec.recommend against exact", share)


def at_least(key: str, what: str, value: float) -> Target:
    return Target(key, what, value, 0.99, at_most=False)


def measure(db: Connection) -> list[Target]:
    """Everything, on a filled shop."""
    heavy = [f"heavy {n}" for n in range(shop.HEAVY)]
    listed = [f"{kind} {n}" for kind in ("heavy", "reader", "newcomer") for n in range(LISTS)]
    queries = [vector for user in heavy for vector in directions(db, user)][:QUERIES]
    return [*recalls(db, queries), recall_of_lists(db, listed)]


def main() -> None:
    """Run everything."""
    options = arguments("Count how many of the closest are found.")
    template = f"pgrec_bench_{options.items}"
    with (
        server(options.folder) as address,
        filled_database(address, template, partial(shop.fill, items=options.items)) as db,
    ):
        targets = measure(db)
    report(targets, {}, options.out)


if __name__ == "__main__":
    main()
