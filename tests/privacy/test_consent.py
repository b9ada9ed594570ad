"""Paused users: their events are not stored, by whichever road they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import FlushError
from typer.testing import CliRunner

from rec_pkg.cli import app
from rec_pkg.client import Client
from rec_pkg.models import Event
from rec_pkg.schema import migrate

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import Engine

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def paused(db: Connection) -> Connection:
    """Two items; ann has clicked on one and is paused since, bob is not."""
    db.execute("insert into rec.items (item_id) values ('a'), ('b')")
    db.execute(
        "insert into rec.item_vectors"
        " select item_id, array_fill(1, array[384])::halfvec from rec.items"
    )
    db.execute("select rec.track('ann', 'a')")
    assert db.execute("select rec.pause_user('ann')").fetchone() == (True,)
    return db


def events(db: Connection) -> dict[str, int]:
    rows = db.execute("select user_id, count(*) from rec.events group by 1").fetchall()
    queued = db.execute("select user_id, count(*) from rec_internal.pending group by 1").fetchall()
    assert sorted(rows) == sorted(queued)
    return dict(rows)


def test_track_stores_nothing_and_returns_null(paused: Connection) -> None:
    assert paused.execute("select rec.track('ann', 'b')").fetchone() == (None,)
    assert paused.execute("select rec.track('bob', 'b') is not null").fetchone() == (True,)
    assert events(paused) == {"ann": 1, "bob": 1}


def test_an_insert_and_a_copy_leave_the_rows_of_paused_users_out(paused: Connection) -> None:
    inserted = paused.execute(
        "insert into rec.events (user_id, item_id, text)"
        " values ('ann', 'b', 'secret'), ('bob', 'b', null) returning user_id"
    )
    assert inserted.fetchall() == [("bob",)]
    with paused.cursor() as cursor:
        with cursor.copy("copy rec.events (user_id, item_id) from stdin") as copy:
            for user in ("ann", "bob", "ann"):
                copy.write_row((user, "a"))
        assert cursor.rowcount == 1
    assert events(paused) == {"ann": 1, "bob": 2}


def test_a_log_whose_texts_were_dropped_is_copied_with_their_hashes(paused: Connection) -> None:
    insert = "insert into rec.events (user_id, text_hash) values ('bob', %s) returning text_hash"
    assert paused.execute(insert, [b"hash"]).fetchone() == (b"hash",)


def test_nothing_is_looked_up_while_nobody_was_ever_paused(db: Connection) -> None:
    """What the trigger costs is paid from the first pause on."""
    looked = "select pg_sequence_last_value('rec_internal.admits_all') is null"
    db.execute("select rec.track('ann', 'a'), rec.undo_event('ann', 1)")
    assert db.execute(looked).fetchone() == (False,)
    db.execute("select rec.pause_user('ann')")
    assert db.execute(looked).fetchone() == (True,)


@pytest.mark.parametrize("road", ["rec.pause_user", "insert", "copy"])
def test_a_pause_counts_in_sessions_that_were_there_before(
    db: Connection, database_url: str, road: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("insert into rec.events (user_id, item_id) values ('ann', 'a')")
        if road == "copy":
            with db.cursor().copy("copy rec_internal.paused_users (user_id) from stdin") as copy:
                copy.write_row(("ann",))
        elif road == "insert":
            db.execute("insert into rec_internal.paused_users (user_id) values ('ann')")
        else:
            db.execute("select rec.pause_user('ann')")
        other.execute("insert into rec.events (user_id, item_id) values ('ann', 'b'), ('bob', 'b')")
    assert events(db) == {"ann": 1, "bob": 1}


def test_a_pause_outlives_a_migration_and_counts_for_whom_the_sequence_is_closed(
    db: Connection, engine: Engine
) -> None:
    db.execute("select rec.pause_user('ann')")
    migrate(engine)
    db.execute("insert into rec.events (user_id, item_id) values ('ann', 'b'), ('bob', 'b')")
    db.execute("delete from rec_internal.paused_users")
    migrate(engine)
    db.execute("select setval('rec_internal.admits_all', 1, true)")
    db.execute("alter table rec_internal.paused_users disable trigger admit_some")
    db.execute("select rec.pause_user('ann')")
    db.execute("revoke all on sequence rec_internal.admits_all from public")
    role = f"writer_{db.info.dbname}"
    db.execute(f"create role {role}")
    try:
        db.execute(f"grant usage on schema rec to {role}")
        db.execute(f"grant insert (user_id, item_id) on rec.events to {role}")
        db.execute(f"set role {role}")
        db.execute("insert into rec.events (user_id, item_id) values ('ann', 'b'), ('bob', 'b')")
    finally:
        db.execute("reset role")
        db.execute(f"drop owned by {role}")
        db.execute(f"drop role {role}")
    assert events(db) == {"bob": 2}


def test_a_file_is_loaded_without_the_rows_of_paused_users(
    paused: Connection, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,dedupe_key\nann,b,1\nbob,b,2\nbob,a,3\n")
    result = CliRunner().invoke(
        app, ["load", "events", str(path), "--json"], env={"PGREC_DATABASE_URL": database_url}
    )
    assert result.exit_code == 0, result.output
    assert events(paused) == {"ann": 1, "bob": 2}


def test_a_session_stores_what_it_is_given_of_the_others(
    paused: Connection, engine: Engine
) -> None:
    rows = [{"user_id": "ann", "item_id": "b"}, {"user_id": "bob", "item_id": "b"}]
    with Session(engine) as session:
        session.execute(insert(Event), rows)
        assert Client.on(session).track("ann", "b") is None
        session.commit()
    assert events(paused) == {"ann": 1, "bob": 1}


def test_an_event_object_of_a_paused_user_cannot_be_flushed(
    paused: Connection, engine: Engine
) -> None:
    """A session wants to know the key of what it adds, and there is none."""
    with Session(engine) as session:
        session.add(Event(user_id="ann", item_id="b"))
        with pytest.raises(FlushError):
            session.flush()
    assert events(paused) == {"ann": 1}


def test_an_inserting_role_needs_no_right_to_see_who_is_paused(paused: Connection) -> None:
    role = f"writer_{paused.info.dbname}"
    paused.execute(f"create role {role}")
    try:
        paused.execute(f"grant usage on schema rec to {role}")
        paused.execute(f"grant insert (user_id, item_id) on rec.events to {role}")
        paused.execute(f"set role {role}")
        paused.execute(
            "insert into rec.events (user_id, item_id) values ('ann', 'b'), ('bob', 'b')"
        )
    finally:
        paused.execute("reset role")
        paused.execute(f"drop owned by {role}")
        paused.execute(f"drop role {role}")
    assert events(paused) == {"ann": 1, "bob": 1}


def test_lists_of_a_paused_user_go_on_from_what_is_there(paused: Connection) -> None:
    listed = paused.execute("select item_id, content from rec.recommend('ann', 2)").fetchall()
    assert [item for item, _ in listed] == ["b"]
    assert listed[0][1] == pytest.approx(1, abs=1e-3)


def test_a_resumed_user_is_followed_again(paused: Connection, engine: Engine) -> None:
    client = Client(engine)
    assert client.pause("ann") is False
    assert client.track("ann", "b") is None
    assert client.resume("ann") is True
    assert client.resume("ann") is False
    assert client.track("ann", "b")
    assert events(paused) == {"ann": 2}


def test_forgetting_a_user_forgets_the_pause(paused: Connection) -> None:
    paused.execute("select rec.forget_user('ann')")
    assert paused.execute("select * from rec_internal.paused_users").fetchall() == []
