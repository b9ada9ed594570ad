"""The invariants of the interest model, against an oracle in plain numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgvector import Vector

from tests.support.databases import migrated_database
from tests.support.shops import add_items

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

    from numpy.typing import NDArray

DIMS = 4
ITEMS = 6
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HALF_LIVES = {"short": 2 * 3600.0, "long": 30 * 86400.0}
KINDS = {"view": 0.5, "click": 1.0, "purchase": 3.0, "dislike": -2.0}
TOLERANCE = 1e-5
LATEST = 10

Connection = psycopg.Connection[tuple[Any, ...]]
Sums = dict[str, tuple["NDArray[np.float64]", float, datetime]]


@dataclass(frozen=True)
class Happening:
    """An event as the tests draw it; `age_s` is its age at NOW in seconds."""

    item: int
    kind: str
    age_s: float

    @property
    def at(self) -> datetime:
        return NOW - timedelta(seconds=self.age_s)


ages = st.one_of(
    st.floats(0.001, 10),
    st.floats(1, 86400),
    st.floats(86400, 40 * 365 * 86400),
)
happenings = st.lists(
    st.builds(Happening, st.integers(0, ITEMS - 1), st.sampled_from(sorted(KINDS)), ages),
    min_size=1,
    max_size=12,
)
property_test = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def item_vectors() -> NDArray[np.float64]:
    """Unit vectors (ITEMS, DIMS) as they are stored: rounded to half precision. Two have zeros."""
    vectors = np.random.default_rng(7).normal(size=(ITEMS, DIMS))
    vectors[0] = [1, 0, 0, 0]
    vectors[1] = [0, 1, 0, 0]
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(units.astype(np.float16), dtype=np.float64)


VECTORS = item_vectors()


def oracle(events: Sequence[Happening]) -> Sums:
    """The sums of section "how a score comes about" in the README, in double precision."""
    as_of = max(event.at for event in events)
    sums: Sums = {}
    for horizon, half_life in HALF_LIVES.items():
        total, mass = np.zeros(DIMS), 0.0
        for event in events:
            share = 2.0 ** -((as_of - event.at).total_seconds() / half_life)
            total += KINDS[event.kind] * share * VECTORS[event.item]
            mass += abs(KINDS[event.kind]) * share
        sums[horizon] = (total, mass, as_of)
    return sums


def assert_same(actual: Sums, expected: Sums) -> None:
    assert actual.keys() == expected.keys()
    for horizon, (total, mass, as_of) in expected.items():
        assert actual[horizon][0] == pytest.approx(total, abs=TOLERANCE * max(1, mass))
        assert actual[horizon][1] == pytest.approx(mass, rel=TOLERANCE)
        assert actual[horizon][2] == as_of


def sums(db: Connection, source: str) -> Sums:
    rows = db.execute(f"select horizon, interest, mass, as_of from {source}").fetchall()
    return {row[0]: (row[1].to_numpy(), row[2], row[3]) for row in rows}


def stored(db: Connection) -> Sums:
    return sums(db, "rec.user_interests")


def insert(db: Connection, events: Sequence[Happening]) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec.events (user_id, item_id, kind, occurred_at) values ('u', %s, %s, %s)",
            [(f"i{event.item}", event.kind, event.at) for event in events],
        )


def fold(db: Connection) -> int:
    row = db.execute("select rec.apply_pending(1000)").fetchone()
    return row[0] if row else 0


@pytest.fixture(scope="module")
def tiny(server: str) -> Iterator[Connection]:
    """A database whose vectors have four dimensions, and six items."""
    with migrated_database(server, DIMS) as db:
        add_items(db, {f"i{i}": vector for i, vector in enumerate(VECTORS)})
        yield db


@pytest.fixture
def db(tiny: Connection) -> Connection:
    return tiny


def forget(db: Connection) -> None:
    db.execute(
        "truncate rec.events, rec_internal.pending, rec.user_interests, rec_internal.item_deltas,"
        " rec_internal.popularity, rec_internal.item_transitions"
    )


@property_test
@given(happenings, st.lists(st.integers(1, 5), min_size=1, max_size=12), st.randoms())
def test_order_and_batching_do_not_matter(
    db: Connection, events: list[Happening], batches: list[int], random: Random
) -> None:
    forget(db)
    shuffled = random.sample(events, len(events))
    place = 0
    for size in [*batches, len(events)]:
        insert(db, shuffled[place : place + size])
        place += size
        fold(db)
    assert_same(stored(db), oracle(events))


@property_test
@given(happenings)
def test_the_stored_state_equals_a_replay_of_the_log(
    db: Connection, events: list[Happening]
) -> None:
    forget(db)
    insert(db, events)
    fold(db)
    assert_same(sums(db, "rec_internal.replay('u')"), stored(db))
    db.execute("select rec.rebuild_user('u')")
    assert_same(stored(db), oracle(events))


@property_test
@given(happenings, happenings)
def test_a_pending_event_counts_as_if_it_were_folded(
    db: Connection, folded: list[Happening], pending: list[Happening]
) -> None:
    forget(db)
    insert(db, folded)
    fold(db)
    insert(db, pending)
    assert_same(sums(db, "rec.interest('u')"), oracle([*folded, *pending]))
    fold(db)
    assert_same(sums(db, "rec.interest('u')"), oracle([*folded, *pending]))


@property_test
@given(happenings, ages)
def test_the_state_of_a_past_moment_is_that_of_the_events_until_then(
    db: Connection, events: list[Happening], age_s: float
) -> None:
    forget(db)
    insert(db, events)
    moment = NOW - timedelta(seconds=age_s)
    rows = db.execute("select horizon, interest, mass, as_of from rec.interest('u', %s)", [moment])
    actual = {row[0]: (row[1].to_numpy(), row[2], row[3]) for row in rows}
    before = [event for event in events if event.at <= moment]
    assert_same(actual, oracle(before) if before else {})


@property_test
@given(happenings, st.floats(1, 20 * 365 * 86400))
def test_the_direction_of_a_horizon_does_not_change_while_the_user_is_away(
    db: Connection, events: list[Happening], away_s: float
) -> None:
    forget(db)
    insert(db, events)
    fold(db)
    last = max(event.at for event in events)
    rows = db.execute(
        "select a.interest, b.interest, a.weight, b.weight"
        " from rec.interest('u', %s) a join rec.interest('u', %s) b using (horizon)",
        [last, last + timedelta(seconds=away_s)],
    ).fetchall()
    for at_once, later, _, _ in rows:
        assert at_once == later
    for weights in ([row[2] for row in rows], [row[3] for row in rows]):
        assert sum(weights) == pytest.approx(1) or weights == [0, 0]


@property_test
@given(happenings, st.integers(0, ITEMS - 1))
def test_a_score_is_the_sum_of_the_shares_of_the_events(
    db: Connection, events: list[Happening], item: int
) -> None:
    forget(db)
    insert(db, events)
    fold(db)
    db.execute("select rec.merge_deltas()")
    row = db.execute(
        "select (select sum(share) from rec.explain('u', %(item)s)),"
        " (select score from rec.score('u', array[%(item)s]))",
        {"item": f"i{item}"},
    ).fetchone()
    assert row
    assert (row[0] or 0) == pytest.approx(row[1], abs=TOLERANCE + 1e-6 * cancellation(db))


@property_test
@given(happenings)
def test_closest_is_the_greatest_cosine_to_the_latest_likes(
    db: Connection, events: list[Happening]
) -> None:
    forget(db)
    unique = list({event.at: event for event in events}.values())
    insert(db, unique)
    liked = sorted((e for e in unique if KINDS[e.kind] > 0), key=lambda e: e.at)[-LATEST:]
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    cosines = units @ units[[event.item for event in liked]].T if liked else np.zeros((ITEMS, 1))
    rows = db.execute(
        "select closest from rec.score('u', %s) order by item_id", [[f"i{i}" for i in range(ITEMS)]]
    ).fetchall()
    assert [row[0] for row in rows] == pytest.approx(list(cosines.max(axis=1)), abs=TOLERANCE)


def test_the_share_of_closest_goes_to_the_latest_of_the_closest_events(db: Connection) -> None:
    forget(db)
    insert(db, [Happening(2, "click", age) for age in (30, 20)] + [Happening(3, "click", 10)])
    shares = "select occurred_at, share from rec.explain('u', 'i2') order by occurred_at"
    with db.transaction(force_rollback=True):
        db.execute(
            "update rec.rankers set content_weight = 0, latest_weight = 0, closest_weight = 0.25"
        )
        rows = db.execute(shares).fetchall()
    assert [row[1] for row in rows] == pytest.approx([0, 0.25, 0], abs=TOLERANCE)


def cancellation(db: Connection) -> float:
    """How much larger the summands of an interest are than their sum; 1 if nothing cancels."""
    row = db.execute(
        "select max(mass / vector_norm(interest)) from rec.interest('u') where weight > 0"
    ).fetchone()
    return row[0] or 0 if row else 0


def test_likes_and_dislikes_that_cancel_have_no_direction(db: Connection) -> None:
    forget(db)
    insert(db, [Happening(2, kind, 1) for kind in ("click", "click", "dislike")])
    assert db.execute("select weight from rec.interest('u')").fetchall() == [(0,), (0,)]
    assert (
        len(db.execute("select * from rec.recommend('u', 3, p_exclude_seen => false)").fetchall())
        == 3
    )


@property_test
@given(happenings, st.data())
def test_an_undone_event_leaves_no_trace(
    db: Connection, events: list[Happening], data: st.DataObject
) -> None:
    forget(db)
    insert(db, events)
    fold(db)
    ids = [row[0] for row in db.execute("select event_id from rec.events order by event_id")]
    victim = data.draw(st.sampled_from(range(len(events))))
    db.execute("select rec.undo_event('u', %s)", [ids[victim]])
    rest = [event for place, event in enumerate(events) if place != victim]
    assert_same(stored(db), oracle(rest) if rest else {})
    db.execute("select rec.merge_deltas()")
    assert that_matter(counts(db)) == pytest.approx(that_matter(counts_of(db, rest)), abs=1e-6)


@property_test
@given(happenings, st.lists(st.integers(1, 4), min_size=1, max_size=8), st.randoms())
def test_popularity_and_transitions_do_not_depend_on_order_or_batching(
    db: Connection, events: list[Happening], batches: list[int], random: Random
) -> None:
    unique = list({event.at: event for event in events}.values())
    forget(db)
    shuffled = random.sample(unique, len(unique))
    place = 0
    for size in [*batches, len(unique)]:
        insert(db, shuffled[place : place + size])
        place += size
        fold(db)
        db.execute("select rec.merge_deltas()")
    assert that_matter(counts(db)) == pytest.approx(that_matter(counts_of(db, unique)), rel=1e-6)


def counts(db: Connection) -> dict[tuple[str, str], float]:
    """Stored masses by (from_item, to_item); those of popularity are under ('', item)."""
    rows = db.execute(
        "select '', item_id, log_mass from rec_internal.popularity"
        " union all select from_item, to_item, log_mass from rec_internal.item_transitions"
    )
    return {(row[0], row[1]): row[2] for row in rows}


def that_matter(masses: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Leave out what decayed to less than 2^-25 of a new event: taking back rounds it away."""
    half_life_s = {True: 7 * 86400, False: 1000 * 86400}
    return {
        key: mass
        for key, mass in masses.items()
        if mass > NOW.timestamp() / half_life_s[key[0] == ""] - 25
    }


def counts_of(db: Connection, events: Sequence[Happening]) -> dict[tuple[str, str], float]:
    """The masses that the definition gives: weights, and 1 / distance within the window."""
    row = db.execute(
        "select transition_window, extract(epoch from popularity_half_life)::float8,"
        " extract(epoch from transition_half_life)::float8 from rec.settings"
    ).fetchone()
    assert row
    window, popularity_s, transition_s = row
    liked = sorted((event for event in events if KINDS[event.kind] > 0), key=lambda e: e.at)
    gathered: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for place, event in enumerate(liked):
        key = ("", f"i{event.item}")
        gathered.setdefault(key, []).append(
            (math.log2(KINDS[event.kind]), event.at.timestamp() / popularity_s)
        )
        for distance, before in enumerate(reversed(liked[max(0, place - window) : place]), 1):
            key = (f"i{before.item}", f"i{event.item}")
            gathered.setdefault(key, []).append(
                (-math.log2(distance), event.at.timestamp() / transition_s)
            )
    return {
        key: float(np.logaddexp2.reduce([a + b for a, b in parts]))
        for key, parts in gathered.items()
    }


def test_the_worked_example_gives_0_502(db: Connection) -> None:
    """cos([1, .5, -.3], [.2, .8, .3]) = .51 / (sqrt(1.34) * sqrt(.77)) = 0.502."""
    row = db.execute("select 1 - ('[1,.5,-.3]'::vector <=> '[.2,.8,.3]'::vector)").fetchone()
    assert row
    assert row[0] == pytest.approx(0.502, abs=5e-4)


def test_vectors_of_another_length_are_refused(db: Connection) -> None:
    with pytest.raises(psycopg.errors.DataException, match="expected 4 dimensions, not 3"):
        db.execute("insert into rec.item_vectors values ('i0', '[1,0,0]')")
    with pytest.raises(psycopg.errors.DataException, match=r"different .*dimensions 4 and 3"):
        db.execute("select * from rec.nearest('[1,0,0]', 3)")


def test_a_zero_vector_is_refused(db: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute("update rec.item_vectors set embedding = '[0,0,0,0]' where item_id = 'i0'")


def test_a_sum_can_be_scaled_for_ever(db: Connection) -> None:
    """Thousands of folds, each a few half-lives after the other, never underflow."""
    forget(db)
    row = db.execute(
        "with recursive step (n, v) as ("
        " select 0, '[1,1e-7,0,0]'::vector"
        " union all select n + 1, rec_internal.decayed_sum(v, 0.001) + '[0,0,1,0]'::vector"
        " from step where n < 500)"
        " select v from step order by n desc limit 1"
    ).fetchone()
    assert row
    assert row[0].to_numpy() == pytest.approx([0, 0, 1.001001, 0], abs=1e-6)


def test_events_of_any_age_fold(db: Connection) -> None:
    forget(db)
    for moment in ("0044-03-15 BC", "1969-07-20", "1998-01-01", "now", "9999-12-31"):
        db.execute(
            "insert into rec.events (user_id, item_id, occurred_at) values ('u', 'i2', %s)",
            [moment],
        )
    assert fold(db) == 5
    assert_same(sums(db, "rec_internal.replay('u')"), stored(db))
    assert stored(db)["long"][1] == pytest.approx(2, abs=1e-3)  # now, and the future counts as now


def test_an_event_from_the_future_does_not_silence_those_that_follow(db: Connection) -> None:
    forget(db)
    db.execute(
        "insert into rec.events (user_id, item_id, occurred_at) values ('u', 'i0', '9999-12-31')"
    )
    fold(db)
    db.execute("insert into rec.events (user_id, item_id) values ('u', 'i1')")
    fold(db)
    interest = stored(db)["short"][0]
    assert interest == pytest.approx([1, 1, 0, 0], abs=1e-3)


def test_a_vector_of_the_query_is_normalised(db: Connection) -> None:
    """Sums beyond the range of half precision can be searched with."""
    big = db.execute("select item_id from rec.nearest(%s, 1)", [Vector([1e6, 0, 0, 0])]).fetchone()
    tiny = db.execute(
        "select item_id from rec.nearest(%s, 1)", [Vector([1e-9, 0, 0, 0])]
    ).fetchone()
    assert big == tiny == ("i0",)
