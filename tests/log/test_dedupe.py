"""Of two events of a user with the same dedupe key one is stored, however they come."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.errors import SerializationFailure

Connection = psycopg.Connection[tuple[Any, ...]]

ROADS = {
    "track": "select rec.track('ann', 'a', p_dedupe_key => 'k')",
    "insert": "insert into rec.events (user_id, item_id, dedupe_key) values ('ann', 'a', 'k')",
    "insert of another moment": "insert into rec.events (user_id, item_id, dedupe_key, occurred_at)"
    " values ('ann', 'a', 'k', now() - interval '2 months')",
    "load": "do $$ begin perform rec_internal.stage_events();"
    " insert into pg_temp.loaded_events (user_id, item_id, kind, dedupe_key)"
    " values ('ann', 'a', 'click', 'k'); perform rec_internal.merge_events(); end $$",
}
LEVELS = (
    IsolationLevel.READ_COMMITTED,
    IsolationLevel.REPEATABLE_READ,
    IsolationLevel.SERIALIZABLE,
)


def stored(db: Connection) -> int:
    row = db.execute("select count(*) from rec.events where user_id = 'ann'").fetchone()
    assert row
    return int(row[0])


@pytest.mark.parametrize("second", ROADS.values(), ids=ROADS)
@pytest.mark.parametrize("first", ROADS.values(), ids=ROADS)
def test_whichever_two_roads_they_take(db: Connection, first: str, second: str) -> None:
    db.execute(first)
    db.execute(second)
    assert stored(db) == 1


@pytest.mark.parametrize("level", LEVELS, ids=str)
@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_a_commit_between_the_snapshot_and_the_call_is_noticed(
    db: Connection, database_url: str, road: str, level: IsolationLevel
) -> None:
    with closing(psycopg.connect(database_url)) as old:
        old.isolation_level = level
        old.execute("select from rec.events")  # the snapshot, from REPEATABLE READ on
        db.execute(ROADS["track"])
        if level == IsolationLevel.READ_COMMITTED:
            old.execute(road)
            old.commit()
        else:
            with pytest.raises(SerializationFailure):
                old.execute(road)
            old.rollback()
            old.execute(road)  # what whoever retries does
            old.commit()
    assert stored(db) == 1


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_a_key_that_is_not_committed_yet_is_waited_for(
    db: Connection, database_url: str, road: str
) -> None:
    with closing(psycopg.connect(database_url)) as first, ThreadPoolExecutor() as pool:
        first.execute(ROADS["insert"])
        second = pool.submit(db.execute, road)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        first.commit()
        second.result(30)
    assert stored(db) == 1


def test_track_returns_the_id_of_the_first_event(db: Connection) -> None:
    db.execute(ROADS["insert"])
    first = db.execute("select event_id from rec.events").fetchone()
    assert db.execute(ROADS["track"]).fetchone() == first


def test_a_key_can_be_used_again_once_its_event_is_taken_back(db: Connection) -> None:
    for taking in (
        "delete from rec.events where user_id = 'ann'",
        "select rec.undo_event('ann', max(event_id)) from rec.events",
        "select rec.forget_user('ann')",
        "truncate rec.events",
    ):
        db.execute(ROADS["track"])
        db.execute(taking)
        assert stored(db) == 0, taking
        assert db.execute("select count(*) from rec_internal.dedupe_keys").fetchone() == (0,)
    db.execute(ROADS["track"])
    assert stored(db) == 1


def test_what_a_rollback_takes_with_it_does_not_block_the_key(db: Connection) -> None:
    with db.transaction(force_rollback=True):
        db.execute(ROADS["track"])
    db.execute(ROADS["track"])
    assert stored(db) == 1


def test_users_have_keys_of_their_own(db: Connection) -> None:
    db.execute("select rec.track('ann', 'a', p_dedupe_key => 'k')")
    db.execute("select rec.track('bob', 'a', p_dedupe_key => 'k')")
    assert db.execute("select count(*) from rec.events").fetchone() == (2,)
