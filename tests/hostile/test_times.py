"""Events of all times, values and weights: they fold, are listed, explained, and erased."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from hypothesis import strategies as st

from tests.support.hostile_input import answer, hold

if TYPE_CHECKING:
    from tests.support.hostile_input import Connection

LATELY: Final = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS: Final = st.one_of(
    st.sampled_from(
        [
            "now",
            "4713-01-01 00:00:00+00 BC",
            "0001-01-01 00:00:00+00 BC",
            "1969-12-31 23:59:59.999999+00",
            "9999-12-31 23:59:59.999999+00",
            "294276-12-31 23:59:59.999999+00",
        ]
    ),
    st.integers(1, 4000).map(lambda year: f"{year:04}-02-28 01:02:03+00 BC"),
    st.datetimes().map(lambda time: f"{time.isoformat(' ')}+00"),
    # Ages at which what is left of a mass is very little, and not yet nothing.
    st.floats(0, 9.5).map(lambda power: (LATELY - timedelta(seconds=10**power)).isoformat()),
)
VALUES: Final = st.none() | st.floats(allow_nan=False, allow_infinity=False)
KINDS: Final = ("view", "click", "like", "rating", "dislike")
SIZES: Final = ("0", "1e-9", "1e-6", "0.1", "-0.5", "1", "2.5", "100", "-1000", "1000")
HALF_LIVES: Final = ("1 second", "2 hours", "1 month -29 days", "30 days", "10000 years")
WEIGHTS: Final = (
    *("content_weight", "latest_weight", "closest_weight", "transition_weight", "together_weight"),
    *("trend_weight", "newness_weight", "repeat_weight", "aversion_weight"),
)
RANKER: Final = "rec_internal.ranker('default')"
READERS: Final = (
    "select t::text from rec.recommend('u', 5, p_as_of => %(as_of)s) t",
    "select t::text from rec.score('u', '{i1,i9,nowhere}', %(as_of)s) t",
    "select t::text from rec.explain('u', 'i3', %(as_of)s) t",
    "select t::text from rec.interest('u', %(as_of)s) t",
    "select t::text from rec.topics('u', %(as_of)s) t",
    "select t::text from rec.next_items('{i1,i2}', p_as_of => %(as_of)s) t",
    "select t::text from rec.companion_items('{i1,i2}', p_as_of => %(as_of)s) t",
    "select t::text from rec.popular() t",
    "select t::text from rec_internal.tuning_log(100) t",
    "select t::text from rec_internal.folded_events t",
    "select rec.export_user('u')::text",
)
APART: Final = """
select coalesce(max(greatest(
    abs(u.mass - r.mass) / greatest(r.mass, 1),
    vector_norm(u.interest - r.interest) / greatest(r.mass, 1),
    abs(extract(epoch from u.as_of - r.as_of)))), 0)
from rec.user_interests u join rec_internal.replay('u', p_pending => false) r using (horizon)
where u.user_id = 'u'
union all
select count(*) from rec.user_interests u
full join rec_internal.replay('u', p_pending => false) r on r.horizon = u.horizon
where u.user_id = 'u' and r.horizon is null or r.horizon is not null and u.user_id is null
"""
ENDLESS: Final = """
select count(*) from rec_internal.popularity p
where p.log_mass in ('NaN', 'infinity') or p.log_outgoing in ('NaN', 'infinity', '-infinity')
    or p.log_incoming in ('NaN', 'infinity', '-infinity')
union all
select count(*) from rec_internal.item_transitions t
where t.log_mass in ('NaN', 'infinity', '-infinity')
"""


@dataclass(frozen=True)
class Happening:
    """An event of the user u, and whether all that waits is folded after it."""

    item: int
    kind: str
    value: float | None
    at: str
    folded: bool


happenings = st.lists(
    st.builds(
        Happening,
        st.integers(0, 10),
        st.sampled_from(KINDS),
        VALUES,
        MOMENTS,
        st.booleans(),
    ),
    min_size=1,
    max_size=9,
)


@dataclass(frozen=True)
class Tuned:
    """Settings at the ends of what the CHECKs let pass."""

    kinds: dict[str, tuple[str, str | None, str | None]]
    horizons: dict[str, tuple[str, str]]
    weights: dict[str, str]
    half_lives: tuple[str, str]


tuned = st.builds(
    Tuned,
    st.dictionaries(
        st.sampled_from(KINDS),
        st.tuples(st.sampled_from(SIZES), st.sampled_from(["-1e9", "0", "2.5", "1e9"]))
        .flatmap(lambda two: st.sampled_from(["1e-9", "1", "1e9"]).map(lambda s: (*two, s)))
        .flatmap(lambda three: st.sampled_from([three, (three[0], None, None)])),
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(["short", "long"]),
        st.tuples(st.sampled_from(HALF_LIVES), st.sampled_from(["0", "1e-9", "0.5", "1e9"])),
    ),
    st.dictionaries(
        st.sampled_from(WEIGHTS), st.sampled_from(["0", "1e-100", "-100", "100"]), max_size=4
    ),
    st.tuples(st.sampled_from(HALF_LIVES), st.sampled_from(HALF_LIVES)),
)


@pytest.mark.clock
def test_events_of_any_time_and_value_fold_to_what_a_replay_gives(
    db: Connection, pytestconfig: pytest.Config
) -> None:
    def folds(case: tuple[list[Happening], str | None]) -> None:
        events, as_of = case
        with db.transaction(force_rollback=True):
            live(db, events)
            check_all(db, as_of)

    hold(pytestconfig, folds, st.tuples(happenings, as_ofs()), quick=25, full=1500)


def test_settings_at_the_ends_of_their_ranges_break_nothing(
    db: Connection, pytestconfig: pytest.Config
) -> None:
    def works(case: tuple[Tuned, list[Happening], str | None]) -> None:
        settings, events, as_of = case
        with db.transaction(force_rollback=True):
            set_up(db, settings)
            live(db, events)
            check_all(db, as_of)

    hold(pytestconfig, works, st.tuples(tuned, happenings, as_ofs()), quick=25, full=1500)


@pytest.mark.clock
def test_indifferent_ratings_fold_however_long_one_waits_between_them(db: Connection) -> None:
    """A rating of 2.5 weighs nothing, so that the mass of what came before fades to nothing."""
    with db.transaction(force_rollback=True):
        for place in range(9):
            db.execute(
                "select rec.track('u', 'i1', %s, p_value => 2.5,"
                " p_occurred_at => now() - interval '200 days' + %s * interval '15 days')",
                ["like" if place == 0 else "rating", place],
            )
            assert fold(db) == 1
        check_all(db, None)


@pytest.mark.clock
@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324, 2.5 + 5e-16, -2.5])
def test_no_value_is_too_great_or_too_small(db: Connection, value: float) -> None:
    with db.transaction(force_rollback=True):
        rating = "select rec.track('u', 'i1', 'rating', p_value => %s)"
        for neutral, scale in (("2.5", "2.5"), ("0", "1e-9"), ("0", "1e9")):
            db.execute("update rec.event_kinds set neutral = %s, scale = %s", [neutral, scale])
            db.execute(rating, [value])
            check_readers(db, None)
        check_all(db, None)


@pytest.mark.clock
@pytest.mark.parametrize("as_of", ["infinity", "-infinity", "294276-12-31 23:59:59+00", "now"])
def test_no_moment_is_too_far_from_an_event(db: Connection, as_of: str) -> None:
    with db.transaction(force_rollback=True):
        for at in ("4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59+00", "now"):
            for kind in ("like", "dislike"):
                db.execute("select rec.track('u', 'i1', %s, p_occurred_at => %s)", [kind, at])
        check_readers(db, as_of)
        check_all(db, as_of)


@pytest.mark.clock
@pytest.mark.parametrize("at", ["infinity", "-infinity"])
@pytest.mark.parametrize("column", ["occurred_at", "received_at"])
def test_infinity_is_no_time_of_an_event(db: Connection, column: str, at: str) -> None:
    insert = f"insert into rec.events (user_id, item_id, {column}) values ('u', 'i1', %s)"
    if (column, at) == ("received_at", "infinity"):
        with db.transaction(force_rollback=True):
            db.execute(insert, [at])
            assert answer(db, "select received_at = now() from rec.events where user_id = 'u'")
        return
    with pytest.raises(psycopg.errors.CheckViolation, match=f"events_{column}_check"):
        db.execute(insert, [at])


@pytest.mark.clock
def test_an_event_of_a_clock_that_is_ahead_counts_as_of_its_arrival(db: Connection) -> None:
    with db.transaction(force_rollback=True):
        before = answer(db, "select t::text from rec.popular(20) t where item_id <> 'i7'")
        db.execute(
            "insert into rec.events (user_id, item_id, occurred_at) values"
            " ('u', 'i7', '9999-01-01'), ('v', 'i8', now())"
        )
        assert fold(db) >= 2
        assert db.execute(
            "select every(as_of = now()) from rec.user_interests where user_id = 'u'"
        ).fetchone() == (True,)
        after = answer(db, "select t::text from rec.popular(20) t where item_id <> 'i7'")
        assert before is not None
        assert after is not None
        assert len(after) >= len(before) > 0
        masses = db.execute("select max(mass), min(mass) from rec.popular(20)").fetchone()
        assert masses is not None
        assert 0 < masses[1] <= masses[0] < 100


@pytest.mark.clock
def test_a_click_now_is_the_latest_though_a_clock_was_years_ahead(db: Connection) -> None:
    """Even if more events than count as the latest came from that clock."""
    with db.transaction(force_rollback=True):
        db.execute(
            "insert into rec.events (user_id, item_id, kind, occurred_at, received_at)"
            " select 'u', 'i2', k, now() + n * interval '1 year', now() - interval '1 hour'"
            " from generate_series(1, 60) n, unnest(array['like', 'dislike']) k"
        )
        fold(db)
        for kind, latest in (("click", "i8"), ("dislike", "i9")):
            db.execute("select rec.track('u', %s, %s)", [latest, kind])
        assert answer(db, "select (rec.latest_items('u', 2))[1]") == ["i8"]
        db.execute("update rec.rankers set topic_events = 2")  # this like and this dislike
        for source in (
            f"(select embedding from rec_internal.latest_shares('u', {RANKER}) limit 1)",
            "(select centre from rec.topics('u'))",
        ):
            near = f"select v.item_id from rec.item_vectors v order by v.embedding <=> {source}"
            assert answer(db, f"{near}::halfvec, v.item_id limit 1") == ["i8"], source
        disliked = (
            f"select max(strength) from rec_internal.dislikes('u', {RANKER}) d"
            " join rec.item_vectors v on v.item_id = 'i9'"
            " and v.embedding <=> d.embedding::halfvec < 1e-3"
        )
        assert answer(db, disliked) == ["1.0"]
        then = "select (rec.latest_items('u', 2, now() - interval '30 minutes'))[1]"
        assert answer(db, then) == ["i2"]


@pytest.mark.clock
def test_a_late_event_counts_as_if_it_had_come_in_time(db: Connection) -> None:
    insert = (
        "insert into rec.events (user_id, item_id, occurred_at, received_at)"
        " select %s, 'i' || n, now() - n * interval '1 hour', now() - n * interval '1 hour'"
        " from unnest(%s::integer[]) n"
    )
    with db.transaction(force_rollback=True):
        db.execute(insert, ["u", [1, 2, 3, 4]])
        fold(db)
        for late in ([4, 2], [1], [3]):
            db.execute(insert, ["late", late])
            fold(db)
        apart = db.execute(
            "select max(vector_norm(a.interest - b.interest)), max(abs(a.mass - b.mass))"
            " from rec.user_interests a join rec.user_interests b using (horizon)"
            " where a.user_id = 'u' and b.user_id = 'late'"
        ).fetchone()
        assert apart == pytest.approx((0, 0), abs=1e-5)
        steps = (
            "select from_item, to_item, round(sum(amount)::numeric, 6)::text from ("
            "  select f.item as from_item, to_item, step / (cardinality(from_items) - place + 1)"
            "  from rec_internal.item_deltas, unnest(from_items) with ordinality as f (item, place)"
            "  where user_id = %s) as steps (from_item, to_item, amount) group by 1, 2"
            " having abs(sum(amount)) > 1e-9 order by 1, 2"
        )
        in_time = db.execute(steps, ["u"]).fetchall()
        assert len(in_time) == 6
        assert db.execute(steps, ["late"]).fetchall() == in_time


def as_ofs() -> st.SearchStrategy[str | None]:
    return st.none() | st.sampled_from(["infinity", "-infinity"]) | MOMENTS


def live(db: Connection, events: list[Happening]) -> None:
    """Insert the events of u and fold them as they say."""
    for event in events:
        db.execute(
            "insert into rec.events (user_id, item_id, kind, value, occurred_at)"
            " values ('u', %s, %s, %s, %s)",
            [f"i{event.item}", event.kind, event.value, event.at],
        )
        if event.folded:
            fold(db)


def fold(db: Connection) -> int:
    """Fold what waits of the users of the tests and return how many events that were."""
    folded = db.execute("select rec.apply_users(array['u', 'v', 'late'])").fetchone()
    assert folded
    return int(folded[0])


def set_up(db: Connection, settings: Tuned) -> None:
    for kind, values in settings.kinds.items():
        db.execute(
            "update rec.event_kinds set weight = %s, neutral = %s, scale = %s where kind = %s",
            [*values, kind],
        )
    for horizon, of_horizon in settings.horizons.items():
        db.execute(
            "update rec.horizons set half_life = %s, weight = %s where horizon = %s",
            [*of_horizon, horizon],
        )
    for name, weight in settings.weights.items():
        db.execute(f"update rec.rankers set {name} = %s", [weight])
    db.execute(
        "update rec.settings set popularity_half_life = %s, transition_half_life = %s",
        settings.half_lives,
    )


def check_all(db: Connection, as_of: str | None) -> None:
    """Pass if all readers answer, stored is replayed, and counts are finite, forgotten too."""
    fold(db)
    db.execute("select rec.merge_deltas()")
    check_readers(db, as_of)
    assert max(row[0] for row in db.execute(APART)) < 1e-5
    assert {row[0] for row in db.execute(ENDLESS)} == {0}
    db.execute("select rec.forget_user('u')")
    assert {row[0] for row in db.execute(ENDLESS)} == {0}


def check_readers(db: Connection, as_of: str | None) -> None:
    for reader in READERS:
        rows = answer(db, reader, {"as_of": as_of} if "as_of" in reader else ())
        assert rows is not None, reader
        assert not any("NaN" in row or "Infinity" in row for row in rows), (reader, rows)
