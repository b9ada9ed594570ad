"""The terms that tuning learns from: those of `rec.score`, and never of what came later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgvector.psycopg import register_vector

from rec_pkg.terms import NAMES as TERMS
from rec_pkg.tuning import Store
from rec_pkg.tuning.counts import Trend
from rec_pkg.tuning.log import NONE, Horizon, Log, unit
from rec_pkg.tuning.terms import Shape, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

Connection = psycopg.Connection[tuple[Any, ...]]

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
YEAR_S = 365 * 86_400
DAY_S = 86_400.0
USERS = ("ann", "bob", "cai")
ITEMS = [f"i{number}" for number in range(9)]
GONE, BLANK = "i7", "i8"
TEXTS = ["warm", "旧"]
COUNTED = ("transition", "together", "trend", "newness", "repeat")
COLUMNS = "content, latest, closest, transition, together, trend, newness, repeat, -aversion"


@dataclass(frozen=True)
class Happening:
    user: str
    item: str | None
    text: str | None
    kind: str
    value: float | None
    age_s: int

    @property
    def row(self) -> tuple[object, ...]:
        at = NOW - timedelta(seconds=self.age_s)
        return self.user, self.item, self.text, self.kind, self.value, at


@dataclass(frozen=True)
class Ranking:
    """Settings that terms are computed with."""

    window: int
    latest_items: int
    prior: float
    trend_days: float
    transition_days: float
    short_s: int
    long_s: int
    long_weight: float
    session_weight: float
    session_hours: float


chosen_items = st.sampled_from([item for item in ITEMS if item != BLANK])
happenings = st.builds(
    Happening,
    st.sampled_from(USERS),
    chosen_items,
    st.none() | st.sampled_from(TEXTS),
    st.sampled_from(("click", "click", "purchase", "rating", "wish", "dislike", "skip")),
    st.none() | st.floats(0, 5),
    st.integers(1, 7 * 86_400) | st.integers(1, 5 * YEAR_S),
) | st.builds(
    Happening,
    st.sampled_from(USERS),
    st.none(),
    st.sampled_from(TEXTS),
    st.sampled_from(("search", "dislike")),
    st.none(),
    st.integers(1, 5 * YEAR_S),
)
rankings = st.builds(
    Ranking,
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from((0.5, 5.0)),
    st.sampled_from((0.25, 7.0, 1000.0)),
    st.sampled_from((30.0, 1000.0)),
    st.sampled_from((60, 7200)),
    st.sampled_from((3600, 30 * 86_400)),
    st.sampled_from((0.0, 0.5, 3.0)),
    st.sampled_from((0.0, 0.5, 0.9)),
    st.sampled_from((1.0, 1000.0)),
)


VECTORS = unit(np.random.default_rng(5).normal(size=(10, 384)).astype(np.float32))


@pytest.fixture(scope="module")
def nine_items(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Connection]:
    """Nine items, one of them sold out and one without a vector; two texts; a kind of our own."""
    with new_database() as url, psycopg.connect(url, autocommit=True) as db:
        register_vector(db)
        db.execute("insert into rec.items (item_id) select unnest(%s::text[])", [ITEMS])
        db.execute("update rec.items set available = item_id <> %s", [GONE])
        with db.cursor() as cursor:
            cursor.executemany(
                "insert into rec.item_vectors values (%s, %s::real[]::halfvec)",
                [(item, VECTORS[n].tolist()) for n, item in enumerate(ITEMS) if item != BLANK],
            )
        db.execute("insert into rec.event_kinds values ('skip', -1, false, 1, 1)")
        yield db


def write_log(db: Connection, ranking: Ranking, events: Sequence[Happening]) -> None:
    """Make the log that of these events, folded and merged under these settings."""
    db.execute("truncate rec.events")
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec_internal.texts"
            " values (rec_internal.content_hash(%s), %s::real[]::halfvec)",
            [(text, VECTORS[8 + n].tolist()) for n, text in enumerate(TEXTS)],
        )
    db.execute(
        "update rec.settings set transition_window = %s, popularity_half_life = %s,"
        " transition_half_life = %s",
        [
            ranking.window,
            timedelta(days=ranking.trend_days),
            timedelta(days=ranking.transition_days),
        ],
    )
    db.execute(
        "update rec.rankers set latest_items = %s, transition_prior = %s, together_weight = 1,"
        " session_weight = %s, session_half_life = %s",
        [
            ranking.latest_items,
            ranking.prior,
            ranking.session_weight,
            timedelta(hours=ranking.session_hours),
        ],
    )
    for horizon, half_life_s, weight in (
        ("short", ranking.short_s, 0.5 * (ranking.long_weight > 0)),
        ("long", ranking.long_s, ranking.long_weight),
    ):
        db.execute(
            "update rec.horizons set half_life = %s, weight = %s where horizon = %s",
            [timedelta(seconds=half_life_s), weight, horizon],
        )
    append(db, events)
    db.execute("select rec.apply_pending()")
    db.execute("select rec.merge_deltas()")


def append(db: Connection, events: Sequence[Happening]) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec.events (user_id, item_id, text, kind, value, occurred_at)"
            " values (%s, %s, %s, %s, %s, %s)",
            [event.row for event in events],
        )


def read_log(store: Store) -> tuple[Log, Integers]:
    log, available = store.log(1000)
    store.fill_vectors(log, np.arange(log.n_items), np.arange(len(log.text_vectors)))
    return log, available


def read_shape(store: Store) -> Shape:
    now = store.settings("default")
    return Shape(
        decays=(0.3, 0.7, 1.0),
        half_lives_s=(3 * DAY_S, now.half_life_s),
        latest_items=now.latest_items,
        window=now.window,
        prior=now.prior,
        transition_half_life_s=now.transition_half_life_s,
        session_half_lives_s=(DAY_S / 8, now.session_half_life_s),
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(happenings, min_size=1, max_size=24), rankings)
def test_the_terms_are_those_of_the_score(
    nine_items: Connection, events: list[Happening], ranking: Ranking
) -> None:
    db, store = nine_items, Store(nine_items)
    write_log(db, ranking, events)
    append(db, [Happening(user, "i0", None, "click", None, 0) for user in USERS])
    log, available = read_log(store)
    shape = read_shape(store)
    asked = np.flatnonzero(log.at == NOW.timestamp())
    assert len(asked) == len(USERS)
    names = [ITEMS[item] for item in available]
    assert names == [item for item in ITEMS if item != GONE]

    for place, question in Terms(log, shape).walk(asked):
        user = USERS[log.users[asked[place]]]
        lift = shape.lift(
            ranking.session_weight, store.settings("default").session_half_life_s, question.presence
        )
        matrix = question.matrix(available) * lift
        for decay in shape.decays:
            db.execute("update rec.rankers set latest_decay = %s", [decay])
            rows = db.execute(
                f"select {COLUMNS} from rec.score(%s, %s, %s) order by item_id",
                [user, names, NOW - timedelta(microseconds=1)],
            ).fetchall()
            found = matrix[:, shape.places(TERMS, decay, store.settings("default").half_life_s)]
            for column, term in enumerate(TERMS):
                expected = [row[column] for row in rows]
                slack = 1e-6 if term in COUNTED else 1e-4
                assert found[:, column] == pytest.approx(expected, abs=slack, rel=1e-6), term


def test_items_that_left_the_catalogue_are_left_out(nine_items: Connection) -> None:
    events = [Happening("ann", item, None, "click", None, 9) for item in ("i1", "lost", "i2")]
    append(nine_items, events)
    try:
        log, _ = Store(nine_items).log(1000)
    finally:
        nine_items.execute("delete from rec.events where item_id = 'lost'")
    assert "lost" not in {ITEMS[item] for item in log.items if item != NONE}


# What may be known

N_ITEMS = 12
HORIZONS = (Horizon(2 * 3600.0, 0.5), Horizon(30 * DAY_S, 0.5))
SHAPE = Shape(decays=(0.5, 0.9), half_lives_s=(DAY_S, 7 * DAY_S), latest_items=4, window=3)
FRESH = Shape(**{name: getattr(SHAPE, name) for name in SHAPE.__slots__} | {"fresh": True})


def random_rows(generator: np.random.Generator, n: int, first: int, last: int) -> Floats:
    """Rows of user, item, text, weight, kind's weight, seen, time; whole hours, so some tie."""
    kinds = generator.choice([1.0, 3.0, -2.0], n, p=[0.6, 0.2, 0.2])
    weights = kinds * generator.choice([1.0, -0.5, 0.2], n, p=[0.7, 0.15, 0.15])
    items = generator.integers(NONE, N_ITEMS, n)
    return np.stack(
        [
            generator.integers(0, 4, n),
            items,
            np.where(items == NONE, generator.integers(0, 3, n), NONE),
            weights,
            kinds,
            generator.random(n) < 0.8,
            generator.integers(first, last, n) * 3600.0,
        ],
        axis=1,
    )


def user_rows(*happened: tuple[int, float, float]) -> Floats:
    """Rows of one user from item, weight and time of each event."""
    rows = np.zeros((len(happened), 7))
    rows[:, [1, 3, 6]] = happened
    rows[:, 2], rows[:, 4] = NONE, 1
    return rows


def as_log(rows: Floats) -> Log:
    generator = np.random.default_rng(1)
    vectors = unit(generator.normal(size=(N_ITEMS + 3, 16)).astype(np.float32))
    users, items, texts = rows[:, :3].T.astype(np.int64)
    weights, kinds, seen, at = rows[:, 3:].T
    parts = users, items, texts, weights, kinds, seen > 0, at
    return Log(*parts, vectors[:N_ITEMS], vectors[N_ITEMS:], HORIZONS)


def by_time(rows: Floats) -> Floats:
    return rows[np.argsort(rows[:, 6], kind="stable")]


def terms_at(rows: Floats, event: int, shape: Shape = SHAPE) -> Floats:
    """The terms of all items for the question of an event, (items, columns)."""
    ((_, question),) = Terms(as_log(rows), shape).walk(np.array([event]))
    return question.matrix(np.arange(N_ITEMS)).astype(np.float64)


@pytest.mark.parametrize("seed", range(20))
def test_what_comes_at_or_after_an_event_changes_none_of_its_terms(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = by_time(random_rows(generator, 60, 0, 40))
    event = int(np.flatnonzero(rows[:, 6] >= 20 * 3600)[0])
    hour = int(rows[event, 6] // 3600)
    before = rows[rows[:, 6] < rows[event, 6]]
    others = by_time(random_rows(generator, 50, hour, 60))
    changed = np.concatenate([before, rows[event][None], others])

    found = terms_at(rows, event)

    assert found == pytest.approx(terms_at(by_time(changed), len(before)), abs=1e-6)
    assert found != pytest.approx(terms_at(rows, len(rows) - 1), abs=1e-6)


def test_many_questions_in_a_row_are_answered_as_each_alone() -> None:
    rows = by_time(random_rows(np.random.default_rng(3), 80, 0, 400))
    asked = np.random.default_rng(4).permutation(80)[:30]

    moments = []
    for place, question in Terms(as_log(rows), SHAPE).walk(asked):
        alone = terms_at(rows, int(asked[place]))
        assert question.matrix(np.arange(N_ITEMS)) == pytest.approx(alone, abs=1e-6)
        moments.append(rows[asked[place], 6])
    assert len(moments) == 30
    assert moments == sorted(moments)


def counts_of(rows: Floats, latest: Sequence[int], end: float, shape: Shape) -> dict[str, Floats]:
    """Transition, together and trend of each item as of a moment, event by event."""
    masses, trend = np.zeros((N_ITEMS, N_ITEMS)), np.zeros(N_ITEMS)
    for user in np.unique(rows[:, 0]):
        chosen = [row for row in rows if row[0] == user and row[1] != NONE and row[4] > 0]
        for place, row in enumerate(chosen):
            left = 0.5 ** ((end - row[6]) / shape.transition_half_life_s)
            for distance in range(1, min(shape.window, place) + 1):
                masses[int(chosen[place - distance][1]), int(row[1])] += left / distance
            if row[3] > 0:
                trend[int(row[1])] += row[3] * 0.5 ** ((end - row[6]) / shape.half_lives_s[0])
    going, both = np.zeros(N_ITEMS), np.zeros(N_ITEMS)
    for place, item in enumerate(latest):
        kept, around = shape.decays[0] ** place, masses[item] + masses[:, item]
        going += kept * masses[item] / (masses[item].sum() + shape.prior)
        both += kept * around / (around.sum() + shape.prior)
    return {"transition": np.sqrt(going), "together": np.sqrt(both), "trend": np.log1p(trend)}


@pytest.mark.parametrize("seed", range(10))
def test_of_a_fresh_user_only_others_are_counted_and_those_always(seed: int) -> None:
    rows = by_time(random_rows(np.random.default_rng(seed), 60, 0, 40))
    event = 30
    user, moment, end = rows[event, 0], rows[event, 6], rows[-1, 6] + 1
    own = rows[(rows[:, 0] == user) & (rows[:, 6] < moment)]
    latest = own[(own[:, 1] != NONE) & (own[:, 4] > 0)][::-1][: SHAPE.latest_items, 1].astype(int)
    expected = counts_of(rows[rows[:, 0] != user], latest.tolist(), end, FRESH)

    found, usual = terms_at(rows, event, FRESH), terms_at(rows, event)

    for term in TERMS:
        (column,) = FRESH.places([term], FRESH.decays[0], FRESH.half_lives_s[0])
        if term in expected:
            assert found[:, column] == pytest.approx(expected[term], abs=1e-6), term
        elif term == "newness":
            assert found[:, column].tolist() == (expected["trend"] == 0).tolist()
        else:
            assert found[:, column] == pytest.approx(usual[:, column], abs=1e-6), term


def test_a_log_from_before_1970_has_a_trend() -> None:
    rows = by_time(random_rows(np.random.default_rng(2), 40, -200_000, -199_900))

    masses = Trend(as_log(rows), [DAY_S]).masses(rows[-1, 6] + 1)

    assert np.log1p(masses[:, 0]) == pytest.approx(
        counts_of(rows, [], rows[-1, 6] + 1, SHAPE)["trend"]
    )
    assert masses.any()


def test_a_user_long_away_keeps_the_direction_of_the_longest_horizon() -> None:
    content = terms_at(user_rows((0, 1, 0), (1, 1, 1e15)), 1)[:, 0]

    assert content[0] == pytest.approx(1)


def test_a_very_long_history_counts_whole() -> None:
    generator = np.random.default_rng(6)
    rows = np.repeat(random_rows(generator, 1, 0, 1), 25_001, axis=0)
    rows[:, 1], rows[:, 2], rows[:, 3:5] = generator.integers(0, N_ITEMS, len(rows)), NONE, 1
    rows[-1, 6] += 3600
    log = as_log(rows)
    total = log.item_vectors[log.items[:-1]].sum(axis=0, dtype=np.float64)
    mean = total / np.linalg.norm(total)

    assert terms_at(rows, 25_000)[:, 0] == pytest.approx(log.item_vectors @ mean, abs=1e-5)


def test_likes_and_dislikes_that_cancel_each_other_have_no_direction() -> None:
    almost = terms_at(user_rows((0, 1, 0), (0, -1, 0), (1, 1e-3, 0), (2, 1, 9)), 3)
    enough = terms_at(user_rows((0, 1, 0), (0, -1, 0), (1, 3e-3, 0), (2, 1, 9)), 3)

    assert not almost[:, 0].any()
    assert enough[1, 0] == pytest.approx(1)


def test_an_item_stays_known_when_its_trend_has_gone() -> None:
    rows = user_rows((0, 1, 0), (1, 1, 2000 * DAY_S))

    found = terms_at(rows, 1)

    (newness,) = SHAPE.places(["newness"], 0.5, DAY_S)
    (trend,) = SHAPE.places(["trend"], 0.5, DAY_S)
    assert found[:2, newness].tolist() == [0, 1]
    assert not found[:, trend].any()
