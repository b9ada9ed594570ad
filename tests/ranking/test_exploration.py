"""Exploration: a share of the list goes to items with few exposures, and the rest stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

Connection = psycopg.Connection[tuple[Any, ...]]

DIMS = 384
ITEMS = 60
SEEN = ("i0", "i1")


@pytest.fixture(scope="module")
def filled(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Connection]:
    """Sixty random items, of which the first ones are ever more popular, and a user of two."""
    with new_database() as url, psycopg.connect(url, autocommit=True) as db:
        register_vector(db)
        vectors = np.random.default_rng(3).normal(size=(ITEMS, DIMS))
        with db.cursor() as cursor:
            cursor.executemany(
                "insert into rec.items (item_id, domain, attributes) values (%s, %s,"
                " jsonb_build_object('third', %s::boolean))",
                [(f"i{n}", "odd" if n % 2 else "even", n % 3 == 0) for n in range(ITEMS)],
            )
            cursor.executemany(
                "insert into rec.item_vectors values (%s, %s)",
                [(f"i{n}", HalfVector(vector)) for n, vector in enumerate(vectors)],
            )
        for number in range(20):
            db.execute("select rec.track('bob', 'i' || n) from generate_series(0, %s) n", [number])
        db.execute("select rec.track('ann', item) from unnest(%s::text[]) item", [list(SEEN)])
        db.execute("select rec.apply_users('{ann,bob}'), rec.merge_deltas()")
        yield db


@pytest.fixture
def shop(filled: Connection) -> Iterator[Connection]:
    """The same shop, with all that a test changes taken back."""
    with filled.transaction(force_rollback=True):
        yield filled


def explore(db: Connection, share: float) -> None:
    db.execute("update rec.rankers set exploration = %s", [share])


def paths(db: Connection, k: int = 10, options: str = "", user: str = "ann") -> list[list[str]]:
    """Items and paths of a list."""
    rows = db.execute(
        f"select item_id, path from rec.recommend(%s, %s{options}) order by rank", [user, k]
    )
    return [list(row) for row in rows]


def items(db: Connection, k: int = 10, options: str = "", user: str = "ann") -> list[str]:
    return [item for item, _ in paths(db, k, options, user)]


def explored(listed: list[list[str]]) -> list[int]:
    """The places, from 1, of the items that were drawn."""
    return [place for place, (_, path) in enumerate(listed, 1) if path == "explore"]


def places(db: Connection, count: int, k: int, share: float, seed: int | None = 0) -> list[int]:
    """The list that rec_internal.explore makes of items 1 to `count`, all without exposures."""
    rows = db.execute(
        "select place from rec_internal.explore((select array_agg(n::text order by n)"
        " from generate_series(1, %(count)s) n), array_fill(0::float8, array[%(count)s]),"
        " %(k)s, %(share)s, 'ann', %(seed)s) order by rank",
        {"count": count, "k": k, "share": share, "seed": seed},
    )
    return [row[0] for row in rows]


def test_without_exploration_the_seed_changes_nothing(shop: Connection) -> None:
    plain = paths(shop)
    assert explored(plain) == []
    assert paths(shop, options=", p_seed => 7") == plain


@pytest.mark.parametrize(
    ("share", "k", "expected"),
    [
        (0.04, 10, []),
        (0.05, 10, [10]),
        (0.1, 10, [10]),
        (0.2, 10, [5, 10]),
        (0.3, 10, [4, 7, 10]),
        (0.5, 10, [2, 4, 6, 8, 10]),
        (0.99, 10, [2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (1, 10, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (0.9, 1, []),
        (1, 1, [1]),
        (0.5, 0, []),
    ],
)
def test_the_share_of_the_list_is_drawn_in_evenly_spread_places(
    shop: Connection, share: float, k: int, expected: list[int]
) -> None:
    explore(shop, share)
    listed = paths(shop, k)
    assert explored(listed) == expected
    assert len(listed) == k


def test_what_is_not_drawn_keeps_its_order(shop: Connection) -> None:
    shop.execute("update rec.rankers set candidates = %s", [ITEMS])
    plain = items(shop)
    explore(shop, 0.3)
    assert [item for item, path in paths(shop) if path != "explore"] == plain[:7]


def test_the_same_seed_draws_the_same_and_another_one_others(shop: Connection) -> None:
    explore(shop, 0.5)
    lists = [tuple(items(shop, options=f", p_seed => {seed}")) for seed in range(5)]
    assert len(set(lists)) == 5
    assert [tuple(items(shop, options=f", p_seed => {seed}")) for seed in range(5)] == lists
    assert items(shop, options=", p_seed => null") == list(lists[0]) == items(shop)


def test_every_user_is_drawn_for_anew(shop: Connection) -> None:
    explore(shop, 1)
    assert items(shop, user="stranger") != items(shop, user="another stranger")


def test_items_with_fewer_exposures_are_drawn_more_often(shop: Connection) -> None:
    """Of masses 0 and 3 the weights are 1 and 1/4, so four draws in five take the first."""
    row = shop.execute(
        "select count(*) filter (where e.place = 1) from generate_series(1, 4000) seed"
        " cross join lateral rec_internal.explore('{a,b}', '{0,3}', 1, 1, 'ann', seed) e"
    ).fetchone()
    assert row
    assert row[0] / 4000 == pytest.approx(0.8, abs=0.02)


def test_popular_items_are_drawn_less_often_for_a_list(shop: Connection) -> None:
    explore(shop, 1)
    drawn = [item for seed in range(40) for item in items(shop, 5, f", p_seed => {seed}")]
    popular = sum(int(item[1:]) < 15 for item in drawn)  # by seen items left out: 13 of 58
    assert 0 < popular < len(drawn) * 13 / 58 / 2


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 1])
@pytest.mark.parametrize("k", [1, 7, 58, 1000])
def test_no_item_comes_twice_and_k_come_if_k_qualify(
    shop: Connection, share: float, k: int
) -> None:
    explore(shop, share)
    listed = items(shop, k)
    assert len(listed) == len(set(listed)) == min(k, ITEMS - len(SEEN))
    assert not set(SEEN) & set(listed)


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_every_place_is_filled_once(shop: Connection, share: float) -> None:
    for count in range(6):
        for k in range(8):
            listed = places(shop, count, k, share)
            assert len(set(listed)) == len(listed) == min(count, k)
            assert set(listed) <= set(range(1, count + 1))


def test_domain_filter_and_availability_hold_for_what_is_drawn(shop: Connection) -> None:
    explore(shop, 1)
    shop.execute("update rec.items set available = false where item_id = 'i33'")
    for seed in range(5):
        seeded = f", p_seed => {seed}"
        odd = items(shop, 10, f", p_domain => 'odd'{seeded}")
        third = items(shop, 10, f", p_filter => '{{\"third\": true}}'{seeded}")
        assert all(int(item[1:]) % 2 == 1 for item in odd)
        assert all(int(item[1:]) % 3 == 0 for item in third)
        assert len(odd) == len(third) == 10
        assert "i33" not in [*odd, *third]


@pytest.mark.clock
def test_a_new_item_without_any_event_or_vector_can_be_drawn(shop: Connection) -> None:
    shop.execute("update rec.rankers set candidates = 2")
    shop.execute(
        "insert into rec.items (item_id, created_at) values ('bare', now() + interval '1 s')"
    )
    assert not any("bare" in items(shop, 2, f", p_seed => {seed}") for seed in range(20))
    explore(shop, 0.5)
    drawn = {tuple(row) for seed in range(20) for row in paths(shop, 2, f", p_seed => {seed}")}
    assert ("bare", "explore") in drawn


def test_reading_with_exploration_needs_no_write(shop: Connection) -> None:
    explore(shop, 0.5)
    shop.execute("set transaction_read_only = on")
    assert len(items(shop)) == 10
