"""Raw texts and old events that are not kept, and what stays exact without them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from tests.support.shops import fold, unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.clock

Connection = psycopg.Connection[tuple[Any, ...]]

ITEMS = [f"item {number}" for number in range(8)]
MONTHS = 6


@pytest.fixture
def shop(db: Connection) -> Connection:
    """Eight items, and a log of two users over half a year in partitions of months, folded."""
    with db.cursor() as cursor:
        cursor.executemany("insert into rec.items (item_id) values (%s)", [(i,) for i in ITEMS])
        cursor.executemany(
            "insert into rec.item_vectors values (%s, %s)", [(i, unit(i)) for i in ITEMS]
        )
    make_old_partitions(db)
    for user in ("ann", "bob"):
        events(db, user, [10 + 9 * place for place in range(20)])
    fold(db)
    return db


def make_old_partitions(db: Connection) -> None:
    """Partitions as a worker would have made them in the months before this one."""
    months = db.execute(
        "select to_char(m, '\"events_\"YYYY_MM'),"
        " m at time zone 'UTC', (m + interval '1 month') at time zone 'UTC'"
        " from date_trunc('month', now() at time zone 'UTC') t, generate_series("
        " t - %s * interval '1 month', t - interval '1 month', '1 month') m",
        [MONTHS],
    ).fetchall()
    for name, first, end in months:
        # The last one is there where the month ended after the migration.
        db.execute(
            f"create table if not exists rec_internal.{name} partition of rec.events"
            f" for values from ('{first.isoformat()}') to ('{end.isoformat()}')"
        )
        db.execute(f"alter table rec_internal.{name} owner to rec_owner")


def events(db: Connection, user: str, days_ago: Sequence[int], text: str | None = None) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec.events (user_id, item_id, kind, text, occurred_at)"
            " values (%s, %s, %s, %s, %s)",
            [
                (
                    user,
                    None if text else ITEMS[(days + len(user) + ord(user[0])) % len(ITEMS)],
                    "dislike" if days % 5 == 0 else "click",
                    text,
                    datetime.now(UTC) - timedelta(days=days),
                )
                for days in days_ago
            ],
        )


def retain(db: Connection) -> list[str]:
    """Apply the retention to its end and return what it did."""
    done = []
    while (row := db.execute("select rec.apply_retention()").fetchone()) and row[0]:
        done.append(str(row[0]))
    return done


def stored(db: Connection) -> dict[str, Any]:
    """Stored interests: vector, mass and second, by user and horizon."""
    rows = db.execute(
        "select user_id, horizon, interest::text, mass, as_of from rec.user_interests"
    )
    return {
        f"{user}, {horizon}": np.array(
            [*map(float, interest.strip("[]").split(",")), mass, as_of.timestamp()]
        )
        for user, horizon, interest, mass, as_of in rows
    }


def replayed(db: Connection, user: str) -> dict[str, Any]:
    rows = db.execute(
        "select horizon, interest::text, mass, as_of from rec_internal.replay(%s)", [user]
    ).fetchall()
    return {
        f"{user}, {horizon}": np.array(
            [*map(float, interest.strip("[]").split(",")), mass, as_of.timestamp()]
        )
        for horizon, interest, mass, as_of in rows
    }


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name


def counts(db: Connection) -> dict[str, Any]:
    rows = {i: m for i, *m in db.execute("select * from rec_internal.popularity").fetchall()}
    steps = db.execute(
        "select from_item || ' > ' || to_item, log_mass from rec_internal.item_transitions"
    )
    return {
        name: np.array(masses, float) for name, masses in (rows | dict(steps.fetchall())).items()
    }


def log(db: Connection) -> dict[int, datetime]:
    return dict(db.execute("select event_id, occurred_at from rec.events").fetchall())


def first_of_month(days: int) -> datetime:
    """The start of the month that was so many days ago: what lies after it has to stay."""
    then = datetime.now(UTC) - timedelta(days=days)
    return then.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def test_nothing_is_dropped_unless_the_settings_say_so(shop: Connection) -> None:
    events(shop, "ann", [400], "an old wish")
    before = shop.execute("select count(*), count(text) from rec.events").fetchone()
    assert retain(shop) == []
    assert shop.execute("select count(*), count(text) from rec.events").fetchone() == before


def test_old_months_go_with_their_partition_and_interests_stay(shop: Connection) -> None:
    before = stored(shop)
    events_before = log(shop)
    shop.execute("update rec.settings set events_kept = '90 days'")
    earliest = first_of_month(90)
    done = retain(shop)
    latest = first_of_month(90)  # the same, unless a month has just ended
    *months, last = done
    assert months
    assert all(month.startswith("rec_internal.events_2") for month in months)
    assert last == "counts"
    kept = log(shop).keys()
    assert kept <= {event for event, at in events_before.items() if at >= earliest}
    assert kept >= {event for event, at in events_before.items() if at >= latest}
    assert_close(stored(shop), before)
    assert_close(replayed(shop, "ann") | replayed(shop, "bob"), before)
    assert retain(shop) == []


def test_the_stored_interest_can_be_made_anew_from_base_and_log(shop: Connection) -> None:
    shop.execute("update rec.settings set events_kept = '90 days'")
    retain(shop)
    before = stored(shop)
    shop.execute("select rec.rebuild_user('ann')")
    assert_close(stored(shop), before)
    events(shop, "ann", [3])
    fold(shop)
    shop.execute("select rec.undo_event('ann', max(event_id)) from rec.events")
    assert_close(replayed(shop, "ann") | replayed(shop, "bob"), stored(shop))


def test_without_keep_interests_they_are_those_of_the_log_alone(shop: Connection) -> None:
    shop.execute("update rec.settings set events_kept = '90 days', keep_interests = false")
    assert "interests" in retain(shop)
    assert shop.execute("select count(*) from rec_internal.interest_bases").fetchone() == (0,)
    kept = shop.execute(
        "select user_id, item_id, kind, occurred_at from rec.events order by event_id"
    ).fetchall()
    found = stored(shop)
    shop.execute("truncate rec.events, rec_internal.pending, rec.user_interests")
    shop.execute("update rec.settings set events_kept = null")
    with shop.cursor() as cursor:
        cursor.executemany(
            "insert into rec.events (user_id, item_id, kind, occurred_at) values (%s, %s, %s, %s)",
            kept,
        )
    fold(shop)
    assert_close(found, stored(shop))


def test_counts_are_those_of_the_log_that_is_left_so_that_erasures_stay_exact(
    shop: Connection,
) -> None:
    shop.execute("update rec.settings set events_kept = '90 days'")
    retain(shop)
    left = counts(shop)
    shop.execute("select rec.rebuild_collaborative()")
    assert_close(counts(shop), left)
    shop.execute("select rec.forget_user('ann'), rec.forget_user('bob')")
    assert counts(shop) == {}
    assert shop.execute("select count(*) from rec_internal.interest_bases").fetchone() == (0,)


def test_strays_before_the_first_partition_go_too_and_their_texts(shop: Connection) -> None:
    shop.execute(
        "insert into rec_internal.texts values (rec_internal.content_hash('long ago'), %s)",
        [unit("t")],
    )
    events(shop, "cas", [500, 900], "long ago")
    fold(shop)
    before = stored(shop)
    shop.execute("update rec.settings set events_kept = '90 days'")
    assert {"strays", "vectors"} <= set(retain(shop))
    assert shop.execute("select count(*) from rec_internal.texts").fetchone() == (0,)
    assert shop.execute("select count(*) from rec.events where user_id = 'cas'").fetchone() == (0,)
    assert_close(replayed(shop, "cas") | replayed(shop, "ann") | replayed(shop, "bob"), before)


@pytest.mark.parametrize("text", ["not encoded", None])
def test_what_was_never_folded_goes_without_a_share(shop: Connection, text: str | None) -> None:
    events(shop, "ann", [170], text)
    shop.execute("update rec_internal.pending set retry_at = 'infinity', error = 'parked'")
    before = stored(shop)
    shop.execute("update rec.settings set events_kept = '90 days'")
    retain(shop)
    assert shop.execute("select count(*) from rec_internal.pending").fetchone() == (0,)
    assert_close(stored(shop), before)
    assert_close(replayed(shop, "ann") | replayed(shop, "bob"), before)


def test_an_event_older_than_the_log_may_hold_is_not_let_in(shop: Connection) -> None:
    shop.execute("update rec.settings set events_kept = '90 days'")
    retain(shop)
    number = shop.execute("select count(*) from rec.events").fetchone()
    events(shop, "ann", [91, 500])
    assert shop.execute("select count(*) from rec.events").fetchone() == number


def test_days_are_kept_alike_in_sessions_of_all_zones(shop: Connection) -> None:
    shop.execute("update rec.settings set events_kept = '2 days'")
    shop.execute("select set_config('timezone', %s, false)", [zone_of_a_shorter_day()])
    two_days = shop.execute("select now() - (now() - interval '2 days')").fetchone()
    assert two_days == (timedelta(hours=36),)
    track = "select rec.track('ann', 'item 1', p_occurred_at => now() - %s::interval)"
    assert shop.execute(track, ["40 hours"]).fetchone() != (None,)
    assert shop.execute(track, ["49 hours"]).fetchone() == (None,)


def zone_of_a_shorter_day() -> str:
    """A zone whose clocks went from UTC to twelve hours ahead yesterday, for half a year."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).timetuple().tm_yday - 1
    return f"<UTC>0<AHEAD>-12,{yesterday}/0,{(yesterday + 180) % 365}/0"


def test_a_score_is_still_the_sum_of_its_shares(shop: Connection) -> None:
    shop.execute("update rec.settings set events_kept = '90 days'")
    retain(shop)
    row = shop.execute("select score from rec.score('ann', '{item 1}')").fetchone()
    shares = dict.fromkeys(("event", "earlier"), 0.0)
    for term, share in shop.execute("select term, share from rec.explain('ann', 'item 1')"):
        shares[term] = shares.get(term, 0.0) + share
    assert row
    assert sum(shares.values()) == pytest.approx(row[0], abs=1e-5)
    assert abs(shares["earlier"]) > 1e-4


@contextmanager
def insertions(url: str) -> Iterator[list[psycopg.Error]]:
    """Insert one event after another, none of which waits for a lock for more than a second."""
    errors: list[psycopg.Error] = []
    stopping = threading.Event()

    def insert() -> None:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("set lock_timeout = '1s'")
            while not stopping.is_set():
                try:
                    db.execute("select rec.track('cas', 'item 1')")
                except psycopg.Error as error:
                    errors.append(error)

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        yield errors
    finally:
        stopping.set()
        thread.join()


def test_a_reader_who_does_not_end_holds_up_the_drop_and_nobody_else(
    shop: Connection, database_url: str
) -> None:
    shop.execute("update rec.settings set events_kept = '90 days'")
    with psycopg.connect(database_url) as reader:
        reader.execute("select count(*) from rec.events")
        before = stored(shop)
        with insertions(database_url) as errors, pytest.raises(psycopg.errors.LockNotAvailable):
            shop.execute("select rec.apply_retention()")
        assert errors == []
        assert_close(stored(shop), before)
        assert shop.execute("select count(*) from rec_internal.interest_bases").fetchone() == (0,)
    fold(shop)
    assert retain(shop)


def test_raw_texts_go_as_soon_as_they_are_encoded_and_replay_goes_on(shop: Connection) -> None:
    shop.execute(
        "insert into rec_internal.texts values (rec_internal.content_hash('red boots'), %s)",
        [unit("t")],
    )
    events(shop, "ann", [40], "red boots")
    fold(shop)
    shop.execute("update rec.settings set keep_text = false")
    events(shop, "bob", [2], "red boots")
    events(shop, "bob", [1], "not encoded yet")
    fold(shop)
    texts = "select user_id, text from rec.events where text is not null order by user_id"
    assert shop.execute(texts).fetchall() == [("ann", "red boots"), ("bob", "not encoded yet")]
    assert retain(shop) == ["texts"]
    assert shop.execute(texts).fetchall() == [("bob", "not encoded yet")]
    assert_close(replayed(shop, "ann") | replayed(shop, "bob"), stored(shop))
    shop.execute("select rec.rebuild_user('bob')")
    assert_close(replayed(shop, "ann") | replayed(shop, "bob"), stored(shop))
