"""
Time lists beside the searches that they consist of.

    python tests/bench/recommend.py [--items 100000] [--repeats 4] [--folder DIR] [--out FILE]

The first run makes the shop, in some minutes; it is kept in the folder for the next.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import shop
from support import (
    Target,
    arguments,
    filled_database,
    merged,
    report,
    server,
    side_by_side,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Connection

LIST: Final = "select * from rec.recommend(%s, 10)"
FILTERED: Final = "select * from rec.recommend(%s, 10, p_filter => %s)"
PLAIN: Final = "select * from rec.recommend(%s, 10, p_diversity => 0)"
NEAREST: Final = "select * from rec.nearest(%b::halfvec::vector, 10, p_filter => %s)"
PROBE: Final = (
    "select item_id, embedding <=> %b::halfvec from rec.item_vectors"
    " order by embedding <=> %b::halfvec limit "
)
# The directions in which a list searches, those that are all but equal once.
DIRECTIONS: Final = """
    with direction as materialized (
        select l2_normalize(d.direction)::halfvec as query, row_number() over () as place from (
            select t.centre as direction from rec.topics(%(user)s) t
            union all
            select i.interest from rec.interest(%(user)s) i where i.weight > 0
            union all
            select sum(rec_internal.scaled(l.embedding, l.weight)) from rec_internal.latest_shares(
                %(user)s, rec_internal.ranker('default')) l
        ) d
    )
    select d.query from direction d where not exists (
        select from direction e where e.place < d.place and e.query <=> d.query < 0.001)
"""


def fetch(db: Connection, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Rows of a prepared statement."""
    return db.execute(query, parameters, prepare=True).fetchall()


def directions(db: Connection, user: str) -> list[Any]:
    return [row[0] for row in db.execute(DIRECTIONS, {"user": user})]


def probes(db: Connection, vectors: list[Any], limit: int) -> None:
    for vector in vectors:
        fetch(db, f"{PROBE}{limit}", vector, vector)


def lists(db: Connection, users: list[str], repeats: int) -> dict[str, float]:
    """The full list and its probes."""
    runs = []
    for user in users:
        variants: dict[str, Callable[[], object]] = {
            "list": partial(fetch, db, LIST, user),
            "its probes": partial(probes, db, directions(db, user), 60),
        }
        runs.append(side_by_side(variants, repeats))
    return merged(runs)


def plain_lists(db: Connection, users: list[str], repeats: int) -> dict[str, float]:
    """A list of one interest, and one search."""
    runs = []
    for user in users:
        vectors = directions(db, user)[:1]
        variants: dict[str, Callable[[], object]] = {
            "plain list": partial(fetch, db, PLAIN, user),
            "rec.nearest": partial(fetch, db, NEAREST, vectors[0], "{}"),
            "one search, k = 60": partial(probes, db, vectors, 60),
            "one search, k = 10": partial(probes, db, vectors, 10),
        }
        runs.append(side_by_side(variants, repeats))
    return merged(runs)


def conditions() -> dict[str, str]:
    """Filters by name; the empty one first."""
    return {"all": "{}"} | {name: f'{{"{name}": true}}' for name in shop.SHARES}


def filtered_lists(db: Connection, users: list[str], repeats: int) -> dict[str, float]:
    runs = []
    for user in users:
        variants: dict[str, Callable[[], object]] = {
            f"list, {name}": partial(fetch, db, FILTERED, user, condition)
            for name, condition in conditions().items()
        }
        runs.append(side_by_side(variants, repeats))
    return merged(runs)


def filtered_searches(db: Connection, vectors: list[Any], repeats: int) -> dict[str, float]:
    runs = []
    for vector in vectors:
        variants: dict[str, Callable[[], object]] = {
            f"rec.nearest, {name}": partial(fetch, db, NEAREST, vector, condition)
            for name, condition in conditions().items()
        }
        runs.append(side_by_side(variants, repeats))
    return merged(runs)


def measure(db: Connection, repeats: int) -> tuple[list[Target], dict[str, float]]:
    """Everything, on a filled shop."""
    heavy = [f"heavy {n}" for n in range(shop.HEAVY)]
    newcomers = [f"newcomer {n}" for n in range(shop.NEWCOMERS)]
    for user in heavy:
        db.execute("select rec.track(%s, 'i' || n * 97) from generate_series(1, 3) n", [user])
    db.execute("analyze rec_internal.pending")
    # Raw searches look as far as those of the lists.
    db.execute(
        "select set_config('hnsw.ef_search', (ef_search / 2)::text, false),"
        " set_config('hnsw.iterative_scan', 'strict_order', false) from rec.rankers"
    )
    queries = [vector for user in heavy for vector in directions(db, user)][:50]
    times = lists(db, heavy, repeats) | plain_lists(db, newcomers, repeats * 4)
    times |= filtered_lists(db, heavy[:20], repeats)
    times |= filtered_searches(db, queries, repeats)
    return ratios(times), times


def ratios(times: dict[str, float]) -> list[Target]:
    """What is compared with what."""
    return [
        ratio("recommend_over_probes", times, ("list", "its probes"), 2),
        ratio("recommend_plain_over_knn", times, ("plain list", "one search, k = 10"), 1.3),
        *(
            ratio(f"filtered_over_plain_{name}", times, (f"list, {name}", "list, all"), 2)
            for name in shop.SHARES
        ),
        *(
            ratio(
                f"filtered_search_over_plain_{name}",
                times,
                (f"rec.nearest, {name}", "rec.nearest, all"),
                2,
            )
            for name in shop.SHARES
        ),
    ]


def ratio(key: str, times: dict[str, float], names: tuple[str, str], limit: float) -> Target:
    """One median over another."""
    above, below = names
    return Target(key, f"{above} / {below}", times[above] / times[below], limit, at_most=True)


def main() -> None:
    """Run everything."""
    options = arguments("Time lists, searches and folding.")
    template = f"pgrec_bench_{options.items}"
    with (
        server(options.folder) as address,
        filled_database(address, template, partial(shop.fill, items=options.items)) as db,
    ):
        targets, times = measure(db, options.repeats)
    report(targets, times, options.out)


if __name__ == "__main__":
    main()
