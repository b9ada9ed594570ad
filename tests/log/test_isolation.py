"""Functions that decide by what they see and then write decide right at each isolation level."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.errors import SerializationFailure

Connection = psycopg.Connection[tuple[Any, ...]]

OLD_SNAPSHOTS = (IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)
DECIDING = (
    "select rec.forget_user('ann')",
    "select rec.undo_event('ann', 1)",
    "select rec.rebuild_user('ann')",
    "select rec.rebuild_collaborative()",
    "select rec.apply_retention()",
    "select rec_internal.lock_space()",
)


@pytest.mark.parametrize("level", OLD_SNAPSHOTS, ids=str)
@pytest.mark.parametrize("call", DECIDING)
def test_a_function_that_needs_the_latest_rows_refuses_an_old_snapshot(
    db: Connection, call: str, level: IsolationLevel
) -> None:
    db.execute("insert into rec.items (item_id) values ('a')")
    db.execute("select rec.track('ann', 'a')")
    with db.transaction(force_rollback=True):
        db.execute(f"set transaction isolation level {level.name.replace('_', ' ')}")
        with pytest.raises(SerializationFailure, match="snapshot") as refused, db.transaction():
            db.execute(call)
    assert "READ COMMITTED" in (refused.value.diag.message_hint or "")
    with db.transaction(force_rollback=True):
        db.execute(call)


@pytest.mark.parametrize("level", OLD_SNAPSHOTS, ids=str)
def test_a_pause_holds_for_a_transaction_with_an_older_snapshot(
    db: Connection, database_url: str, level: IsolationLevel
) -> None:
    insert = "insert into rec.events (user_id, item_id) values ('ann', 'a')"
    with closing(psycopg.connect(database_url)) as old:
        old.isolation_level = level
        old.execute("select from rec.events")
        db.execute("select rec.pause_user('ann')")
        with pytest.raises(SerializationFailure):
            old.execute(insert)
        old.rollback()
        assert old.execute(insert).rowcount == 0
        old.commit()
    assert db.execute("select count(*) from rec.events").fetchone() == (0,)
