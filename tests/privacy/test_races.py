"""Erasing and counting anew while others fold: what two sessions do at once comes out right."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[tuple[Any, ...]]

ONES = "array_fill(1, array[384])::halfvec"


@pytest.fixture
def db(db: Connection) -> Connection:
    db.execute("insert into rec.items (item_id) select 'i' || n from generate_series(1, 5) n")
    db.execute(f"insert into rec.item_vectors select item_id, {ONES} from rec.items")
    return db


def fold(db: Connection) -> int:
    row = db.execute("select rec.apply_pending()").fetchone()
    assert row
    return int(row[0])


def waits_for_a_lock(db: Connection) -> bool:
    row = db.execute(
        "select exists (select from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock')"
    ).fetchone()
    return row == (True,)


def test_an_event_is_not_folded_by_a_vector_that_an_erasure_takes_along(
    db: Connection, database_url: str
) -> None:
    db.execute(
        f"insert into rec_internal.texts values (rec_internal.content_hash('red boots'), {ONES})"
    )
    db.execute("select rec.track('ann', p_text => 'red boots', p_kind => 'search')")
    with psycopg.connect(database_url) as erasing:
        erasing.execute("select rec.forget_user('ann')")
        db.execute("select rec.track('bob', p_text => 'red boots', p_kind => 'search')")
        db.execute("select rec.track('bob', 'i1')")
        assert fold(db) == 1
    assert fold(db) == 0
    db.execute("select rec_internal.retry_waiting()")
    waiting = db.execute("select text from rec_internal.claim_texts(10)").fetchall()
    assert waiting == [("red boots",)]


def test_what_is_folded_while_counts_are_made_anew_counts_once(
    db: Connection, database_url: str
) -> None:
    for item in ("i1", "i2"):
        db.execute("select rec.track('ann', %s)", [item])
    assert fold(db) == 2
    db.execute("select rec.merge_deltas()")
    db.execute("select rec.track('bob', 'i2')")

    def rebuild() -> None:
        with psycopg.connect(database_url) as own:
            own.execute("select rec.rebuild_collaborative()")

    thread = threading.Thread(target=rebuild)
    with psycopg.connect(database_url) as blocking:
        blocking.execute("select from rec_internal.popularity for update")
        thread.start()
        while not waits_for_a_lock(db):
            pass
        assert fold(db) == 1
    thread.join()
    db.execute("select rec.merge_deltas()")
    masses = db.execute("select item_id, round(mass) from rec.popular()").fetchall()
    assert dict(masses) == {"i1": 1, "i2": 2}


@pytest.mark.clock
def test_old_events_are_not_dropped_while_another_session_folds_them(
    db: Connection, database_url: str
) -> None:
    db.execute("select rec.track('ann', 'i1', p_occurred_at => now() - interval '800 days')")
    db.execute("update rec.settings set events_kept = '1 year'")
    with psycopg.connect(database_url) as folding:
        folding.execute("select rec.apply_pending()")
        assert db.execute("select rec.apply_retention()").fetchone() == (None,)
    assert db.execute("select rec.apply_retention()").fetchone() == ("strays",)
    apart = db.execute(
        "select max(abs(u.mass - r.mass)), count(*) from rec.user_interests u"
        " join rec_internal.replay('ann') r using (horizon)"
    ).fetchone()
    assert apart == (pytest.approx(0, abs=1e-9), 2)
