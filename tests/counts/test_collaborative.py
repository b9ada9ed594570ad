"""What goes with what: the counts of steps between items, against an oracle in plain numpy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from random import Random

    from numpy.typing import NDArray

Connection = psycopg.Connection[tuple[Any, ...]]

USERS = ("ann", "bob")
ITEMS = [f"i{number}" for number in range(6)]
WINDOW = 3
LATEST = 4
DECAY = 0.7
PRIOR = 5.0
HALF_LIFE_S = 1000 * 86400.0
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
FLOWS = (
    "coalesce(rec_internal.mass_at(p.log_outgoing, s.transition_half_life, %(now)s), 0),"
    " coalesce(rec_internal.mass_at(p.log_incoming, s.transition_half_life, %(now)s), 0)"
)


@dataclass(frozen=True)
class Choice:
    """An event as the tests draw it; `age_s` is its age at NOW, a rating is a bad one."""

    user: str
    item: int
    age_s: int
    kind: str

    @property
    def at(self) -> datetime:
        return NOW - timedelta(seconds=self.age_s)


logs = st.lists(
    st.builds(
        Choice,
        st.sampled_from(USERS),
        st.integers(0, len(ITEMS) - 1),
        st.integers(1, 5 * 365 * 86400),
        st.sampled_from(("click", "click", "purchase", "rating", "dislike")),
    ),
    min_size=1,
    max_size=16,
    unique_by=lambda event: event.age_s,
)
property_test = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def six_items(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Connection]:
    """Six items of one content, so that only the steps between them tell them apart."""
    with new_database() as url, psycopg.connect(url, autocommit=True) as db:
        db.execute("insert into rec.items (item_id) select unnest(%s::text[])", [ITEMS])
        db.execute(
            "insert into rec.item_vectors"
            " select item_id, array_fill(1, array[384])::halfvec from rec.items"
        )
        db.execute(
            "update rec.rankers set latest_items = %s, latest_decay = %s, transition_prior = %s,"
            " together_weight = 0.7, content_weight = 0, session_weight = 0",
            [LATEST, DECAY, PRIOR],
        )
        db.execute("update rec.settings set transition_window = %s", [WINDOW])
        yield db


@pytest.fixture
def db(six_items: Connection) -> Connection:
    six_items.execute(
        "truncate rec.events, rec_internal.pending, rec.user_interests, rec_internal.item_deltas,"
        " rec_internal.popularity, rec_internal.item_transitions"
    )
    return six_items


def log(db: Connection, events: Sequence[Choice]) -> None:
    """Insert events and fold and merge them."""
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec.events (user_id, item_id, kind, occurred_at, value)"
            " values (%s, %s, %s, %s, 0.5)",
            [(event.user, ITEMS[event.item], event.kind, event.at) for event in events],
        )
    db.execute("select rec.apply_pending()")
    db.execute("select rec.merge_deltas()")


def replace(db: Connection, events: Sequence[Choice]) -> None:
    """Empty the log and make it that of these events."""
    for user in USERS:
        db.execute("select rec.forget_user(%s)", [user])
    log(db, events)


def chosen(events: Sequence[Choice], user: str) -> list[Choice]:
    """The events of a user in which he chose an item, oldest first."""
    own = [event for event in events if event.user == user and event.kind != "dislike"]
    return sorted(own, key=lambda event: event.at)


def steps(events: Sequence[Choice]) -> NDArray[np.float64]:
    """Masses (from, to) as of NOW: 1 / distance of every step within the window, decayed."""
    masses = np.zeros((len(ITEMS), len(ITEMS)))
    for user in USERS:
        sequence = chosen(events, user)
        for place, event in enumerate(sequence):
            before = sequence[max(0, place - WINDOW) : place]
            for distance, earlier in enumerate(reversed(before), 1):
                share = 2.0 ** -(event.age_s / HALF_LIFE_S)
                masses[earlier.item, event.item] += share / distance
    return masses


def together(events: Sequence[Choice], user: str) -> NDArray[np.float64]:
    """The term of each item, as the README has it."""
    masses = steps(events)
    both = masses + masses.T
    total = np.zeros(len(ITEMS))
    for place, event in enumerate(reversed(chosen(events, user)[-LATEST:])):
        total += DECAY**place * both[event.item] / (both[event.item].sum() + PRIOR)
    return np.sqrt(total)


def flows(db: Connection) -> NDArray[np.float64]:
    """Stored masses (item, 2) of what goes out of each item and what arrives, as of NOW."""
    rows = db.execute(
        f"select p.item_id, {FLOWS} from rec_internal.popularity p, rec.settings s", {"now": NOW}
    ).fetchall()
    stored = np.zeros((len(ITEMS), 2))
    for item, outgoing, incoming in rows:
        stored[ITEMS.index(item)] = outgoing, incoming
    return stored


def expected_flows(events: Sequence[Choice]) -> NDArray[np.float64]:
    masses = steps(events)
    return np.stack([masses.sum(axis=1), masses.sum(axis=0)], axis=1)


def score(db: Connection, user: str, columns: str) -> NDArray[np.float64]:
    """Columns of the score of every item, (item, column), as of NOW."""
    rows = db.execute(
        f"select {columns} from rec.score(%s, %s, %s) order by item_id", [user, ITEMS, NOW]
    ).fetchall()
    return np.array(rows, dtype=np.float64)


@property_test
@given(logs, st.lists(st.integers(1, 5), min_size=1, max_size=16), st.randoms())
def test_what_goes_out_and_arrives_does_not_depend_on_order_or_batching(
    db: Connection, events: list[Choice], batches: list[int], random: Random
) -> None:
    replace(db, [])
    shuffled = random.sample(events, len(events))
    place = 0
    for size in [*batches, len(events)]:
        log(db, shuffled[place : place + size])
        place += size
    assert flows(db) == pytest.approx(expected_flows(events), abs=1e-6)
    db.execute("select rec.rebuild_collaborative()")
    assert flows(db) == pytest.approx(expected_flows(events), abs=1e-6)


@property_test
@given(logs, st.data())
def test_an_undone_event_gives_back_what_went_out_and_arrived(
    db: Connection, events: list[Choice], data: st.DataObject
) -> None:
    replace(db, events)
    victim = data.draw(st.sampled_from(events))
    row = db.execute("select event_id from rec.events where occurred_at = %s", [victim.at])
    db.execute("select rec.undo_event(%s, %s)", [victim.user, row.fetchone()[0]])  # type: ignore[index]
    db.execute("select rec.merge_deltas()")
    rest = [event for event in events if event is not victim]
    assert flows(db) == pytest.approx(expected_flows(rest), abs=1e-6)


@property_test
@given(logs)
def test_a_forgotten_user_gives_back_what_went_out_and_arrived(
    db: Connection, events: list[Choice]
) -> None:
    replace(db, events)
    db.execute("select rec.forget_user('ann')")
    rest = [event for event in events if event.user != "ann"]
    assert flows(db) == pytest.approx(expected_flows(rest), abs=1e-6)


def test_what_goes_out_long_ago_outlives_the_popularity_that_is_taken_back(
    db: Connection,
) -> None:
    years = 365 * 86400
    old = [Choice("bob", 0, 4 * years + 1, "click"), Choice("bob", 1, 4 * years, "click")]
    log(db, old)
    log(db, [Choice("ann", item, 5, "click") for item in (0, 1)])
    db.execute("select rec.forget_user('ann')")
    assert flows(db) == pytest.approx(expected_flows(old), abs=1e-6)
    assert db.execute("select * from rec.popular()").fetchall() == []
    db.execute("select rec.forget_user('bob')")
    assert db.execute("select count(*) from rec_internal.popularity").fetchone() == (0,)


@property_test
@given(logs)
def test_together_is_what_the_log_says(db: Connection, events: list[Choice]) -> None:
    replace(db, events)
    for user in USERS:
        expected = together(events, user)
        assert score(db, user, "together")[:, 0] == pytest.approx(expected, abs=1e-6)
        companions = db.execute(
            "select item_id, strength from rec.companion_items("
            "rec.latest_items(%(user)s, %(n)s, %(now)s), 100, p_as_of => %(now)s)",
            {"user": user, "n": LATEST, "now": NOW},
        ).fetchall()
        strengths = dict(zip(ITEMS, expected, strict=True))
        assert dict(companions) == pytest.approx({k: v for k, v in strengths.items() if v})
        assert [row[1] for row in companions] == sorted(
            (row[1] for row in companions), reverse=True
        )


@property_test
@given(logs)
def test_a_score_with_together_is_the_sum_of_its_shares(
    db: Connection, events: list[Choice]
) -> None:
    replace(db, events)
    for item, (total, strength) in zip(ITEMS, score(db, "ann", "score, together"), strict=True):
        shares = db.execute(
            "select term, share from rec.explain('ann', %s, %s)", [item, NOW]
        ).fetchall()
        assert sum(share for _, share in shares) == pytest.approx(total, abs=1e-5)
        assert [share for term, share in shares if term == "together"] == (
            [pytest.approx(0.7 * strength)] if strength else []
        )


def test_the_way_back_counts_too(db: Connection) -> None:
    log(db, [Choice("bob", 0, 20, "click"), Choice("bob", 1, 10, "click")])
    log(db, [Choice("ann", 1, 5, "click")])
    assert db.execute("select * from rec.next_items('{i1}')").fetchall() == []
    assert db.execute("select item_id from rec.companion_items('{i1}')").fetchall() == [("i0",)]


def test_companions_pass_the_filters(db: Connection) -> None:
    log(db, [Choice("bob", item, 60 - item, "click") for item in range(4)])

    def companions(options: str) -> set[str]:
        rows = db.execute(f"select item_id from rec.companion_items('{{i1}}', {options})")
        return {row[0] for row in rows}

    assert companions("10") == {"i0", "i2", "i3"}
    assert companions("10, p_exclude => '{i0}'") == {"i2", "i3"}
    assert companions("10, p_domain => 'other'") == set()
    assert companions("10, p_filter => '{\"rare\": true}'") == set()
    assert len(companions("2")) == 2
    with db.transaction(force_rollback=True):
        db.execute("update rec.items set available = false where item_id = 'i2'")
        assert companions("10") == {"i0", "i3"}


def test_companions_are_candidates_only_if_they_have_a_weight(db: Connection) -> None:
    log(db, [Choice("bob", 0, 20, "click"), Choice("bob", 1, 10, "click")])
    log(db, [Choice("ann", 1, 5, "click")])
    candidates = (  # of a profile without any direction, which would find all the items
        "select c.item_id, c.path from rec_internal.ranker('default') r"
        " cross join rec_internal.profile_of('ann', r) u"
        " cross join jsonb_populate_record(null::rec_internal.profile, jsonb_build_object("
        "'next_items', u.next_items, 'companions', u.companions)) v"
        " cross join rec_internal.candidates(v, r, 1, null, '{}', '{i1}') c"
    )
    with db.transaction(force_rollback=True):
        db.execute("update rec.rankers set candidates = 1")
        assert db.execute(candidates).fetchall() == [("i0", "companion")]
        db.execute("update rec.rankers set together_weight = 0")
        assert db.execute(candidates).fetchall() == [("i0", "trend")]


def test_a_bad_rating_tells_where_people_went_and_is_no_popularity(db: Connection) -> None:
    log(db, [Choice("bob", 0, 20, "click"), Choice("bob", 1, 10, "rating")])
    assert db.execute("select item_id from rec.next_items('{i0}')").fetchall() == [("i1",)]
    assert db.execute("select item_id from rec.popular()").fetchall() == [("i0",)]
    assert db.execute("select rec.latest_items('bob', 1)").fetchone() == (["i1"],)


def test_an_item_is_new_until_an_event_speaks_for_it(db: Connection) -> None:
    log(db, [Choice("bob", 0, 30, "click"), Choice("bob", 1, 20, "dislike")])
    newness = db.execute("select item_id, newness from rec.score('ann', '{i0,i1,i2}')").fetchall()
    assert dict(newness) == {"i0": 0, "i1": 1, "i2": 1}
