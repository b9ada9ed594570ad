"""The same event sent twice, and an event that goes while it is folded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from rec_pkg.loading import load_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.hostile_input import Connection

SENT: Final = (
    "insert into rec.events (user_id, item_id, dedupe_key, occurred_at)"
    " values ('v', 'i1', 'order 17', '2026-01-02 03:04:05+00') on conflict do nothing"
)
TRACKED: Final = (
    "select rec.track('v', 'i1', p_occurred_at => clock_timestamp(), p_dedupe_key => 'order 17')"
)


@pytest.fixture
def db(db: Connection) -> Iterator[Connection]:
    """The small database, in which nothing of the user v stays from test to test."""
    yield db
    db.execute("select rec.forget_user('v')")


@pytest.fixture
def other(db: Connection) -> Iterator[Connection]:
    with psycopg.connect(db.info.dsn) as connection:
        yield connection


def mass(db: Connection) -> float:
    """What the user v adds up to once all is folded."""
    db.execute("select rec.apply_users('{v}')")
    row = db.execute(
        "select mass from rec.user_interests where user_id = 'v' and horizon = 'long'"
    ).fetchone()
    return float(row[0]) if row else 0.0


def counts_once(db: Connection) -> None:
    assert mass(db) == pytest.approx(1)
    assert db.execute("select from rec.events where user_id = 'v'").rowcount == 1
    assert db.execute("select from rec_internal.pending where user_id = 'v'").rowcount == 0


@pytest.mark.parametrize(("first", "again"), [(SENT, SENT), (TRACKED, TRACKED), (SENT, TRACKED)])
def test_an_event_that_is_sent_again_counts_once(db: Connection, first: str, again: str) -> None:
    db.execute(first)
    db.execute(again)
    counts_once(db)
    db.execute(again)
    counts_once(db)


def test_a_plain_insert_with_another_time_and_the_same_key_is_the_same_event(
    db: Connection,
) -> None:
    """The log is partitioned by time, and the keys are not."""
    db.execute(SENT)
    db.execute(SENT.replace("2026-01-02", "2026-01-03"))
    assert db.execute("select from rec.events where user_id = 'v'").rowcount == 1


@pytest.mark.parametrize("statement", [SENT, TRACKED], ids=["insert", "track"])
def test_of_two_sessions_that_send_an_event_one_waits_and_logs_nothing(
    db: Connection, other: Connection, statement: str
) -> None:
    other.execute(statement)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(db.execute, statement)
        assert second.running() or not second.done()
        other.commit()
        second.result(30)
    counts_once(db)


def test_if_the_first_session_rolls_back_the_second_one_logs_the_event(
    db: Connection, other: Connection
) -> None:
    other.execute(SENT)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(db.execute, SENT)
        other.rollback()
        second.result(30)
    counts_once(db)


def test_a_file_that_is_loaded_after_the_application_sent_the_event_adds_nothing(
    db: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,dedupe_key\nv,i1,order 17\nv,i1,order 17\n")
    db.execute(SENT)
    for _ in range(2):
        assert load_events(db, path).inserted == 0
    counts_once(db)


def test_an_event_is_not_deleted_while_a_worker_folds_it(db: Connection, other: Connection) -> None:
    db.execute(SENT)
    assert other.execute("select rec.apply_users('{v}')").fetchone() == (1,)
    with ThreadPoolExecutor(1) as pool:
        deleted = pool.submit(db.execute, "delete from rec.events where user_id = 'v'")
        other.commit()
        with pytest.raises(psycopg.errors.RestrictViolation):
            deleted.result(30)
    counts_once(db)


def test_an_event_is_not_folded_while_it_is_deleted(db: Connection, other: Connection) -> None:
    db.execute(SENT)
    other.execute("delete from rec.events where user_id = 'v'")
    assert db.execute("select rec.apply_users('{v}')").fetchone() == (0,)
    other.commit()
    assert mass(db) == 0
