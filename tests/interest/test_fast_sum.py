"""The sum that folding adds up fast is that of a replay, which adds up plainly."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.databases import migrated_database
from tests.support.shops import add_items

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[tuple[Any, ...]]

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
ITEMS: Final = 5
USERS: Final = ("ann", "bob", "cid")
# The fast sum makes vectors of factors out of sixteenths: lengths around the multiples of 16.
LENGTHS: Final = (1, 15, 16, 17, 100)
APART: Final = """
select coalesce(max((u.interest <-> r.interest) / greatest(u.mass, 1)), 0),
    coalesce(max(abs(u.mass - r.mass) / greatest(u.mass, 1)), 0),
    count(*) filter (where u.as_of is distinct from r.as_of)
from rec.user_interests u
full join (
    select e.user_id, p.* from (select distinct user_id from rec.events) e
    cross join rec_internal.replay(e.user_id, p_pending => false) p
) r using (user_id, horizon)
"""


@dataclass(frozen=True)
class Logged:
    user: str
    item: int
    weight: float
    age_s: float


logged: Final = st.builds(
    Logged,
    st.sampled_from(USERS),
    st.integers(0, ITEMS - 1),
    st.sampled_from([1e-9, 1e-3, 0.5, 1, 2.5, 1000, -1, -3e-4, -1000]),
    st.one_of(st.floats(0, 10), st.floats(0, 86_400), st.floats(0, 40 * 365 * 86_400)),
)
half_lives: Final = st.lists(
    st.sampled_from(["1 second", "2 hours", "1 month -29 days", "30 days", "10000 years"]),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module", params=LENGTHS)
def catalogue(request: pytest.FixtureRequest, server: str) -> Iterator[Connection]:
    """Five items with vectors of some length; events weigh what their value says."""
    dims = request.param
    with migrated_database(server, dims) as db:
        vectors = np.random.default_rng(dims).normal(size=(ITEMS, dims))
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        add_items(db, {f"i{item}": vector for item, vector in enumerate(units)})
        db.execute("insert into rec.event_kinds values ('weighed', 1, true, 0, 1)")
        yield db


@given(st.lists(logged, min_size=1, max_size=25), half_lives, st.integers(1, 25), st.data())
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_fast_sum_of_folding_equals_a_replay(
    catalogue: Connection,
    events: list[Logged],
    lives: list[str],
    at_a_time: int,
    data: st.DataObject,
) -> None:
    with catalogue.transaction(force_rollback=True):
        catalogue.execute("delete from rec.horizons")
        for place, half_life in enumerate(lives):
            catalogue.execute(
                "insert into rec.horizons values (%s, %s, 1)", [str(place), half_life]
            )
        for place in range(0, len(events), at_a_time):
            log(catalogue, events[place : place + at_a_time])
            if data.draw(st.booleans()):
                fold(catalogue)
        fold(catalogue)
        stored = catalogue.execute("select count(*) from rec.user_interests").fetchone()
        assert stored == (len({event.user for event in events}) * len(lives),)
        apart = catalogue.execute(APART).fetchone()
        assert apart
        assert apart[0] < 1e-5
        assert apart[1] < 1e-9
        assert apart[2] == 0


def log(db: Connection, events: list[Logged]) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec.events (user_id, item_id, kind, value, occurred_at)"
            " values (%s, %s, 'weighed', %s, %s)",
            [(e.user, f"i{e.item}", e.weight, NOW - timedelta(seconds=e.age_s)) for e in events],
        )


def fold(db: Connection) -> None:
    while db.execute("select rec.apply_pending(7)").fetchone() != (0,):
        pass
