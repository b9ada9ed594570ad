"""One statement may erase many users, beside others that do the same, and nobody deadlocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

USERS = [f"user {n}" for n in range(12)]
ROUNDS = 6


def fill(db: Connection) -> None:
    db.execute("insert into rec.items (item_id) select 'i' || n from generate_series(1, 5) n")
    db.execute(
        "insert into rec.item_vectors select item_id,"
        " array_prepend(ascii(right(item_id, 1)), array_fill(1, array[383]))::vector::halfvec"
        " from rec.items"
    )


def visit(db: Connection) -> None:
    db.execute(
        "select rec.track(u, 'i' || n, p_text => 'shared words'), rec.track(u, 'i' || n)"
        " from unnest(%s::text[]) u, generate_series(1, 5) n",
        [USERS],
    )
    db.execute("select rec.apply_pending(), rec.merge_deltas()")


def test_sets_in_opposite_orders_are_erased_side_by_side(db: Connection, database_url: str) -> None:
    fill(db)
    forget = "select rec.forget_user(u) from unnest(%s::text[]) u"
    pause = "select rec.pause_user(u) from unnest(%s::text[]) u"
    undo = (
        "select rec.undo_event(e.user_id, e.event_id) from rec.events e"
        " where e.user_id = any(%s) order by e.event_id desc limit 20"
    )
    calls = [
        (forget, USERS),
        (forget, USERS[::-1]),
        (undo, USERS),
        (pause, USERS),
        (pause, USERS[::-1]),
    ]

    def run(statement: str, users: list[str]) -> None:
        with closing(psycopg.connect(database_url, autocommit=True)) as own:
            own.execute(statement.encode(), [users])

    with ThreadPoolExecutor(len(calls)) as pool:
        for _ in range(ROUNDS):
            db.execute("delete from rec_internal.paused_users")
            visit(db)
            for done in [pool.submit(run, *call) for call in calls]:
                done.result(60)  # a deadlock is an error here
    db.execute("select rec.forget_user(u) from unnest(%s::text[]) u", [USERS])
    assert db.execute("select count(*) from rec.user_interests").fetchone() == (0,)
    assert db.execute("select count(*) from rec_internal.texts").fetchone() == (0,)
