"""An erasure takes no more locks than the server has, however much a user wrote."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

TEXTS = 12_000


def test_a_user_of_thousands_of_texts_can_be_forgotten(db: Connection) -> None:
    db.execute(
        "insert into rec.events (user_id, kind, text)"
        " select 'ann', 'search', 'word ' || n from generate_series(1, %s) n",
        [TEXTS],
    )
    with db.transaction():
        assert db.execute("select rec.forget_user('ann')").fetchone() == (TEXTS,)
        held = db.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        ).fetchone()
    assert held is not None
    assert held[0] < 300, "one lock for a group of texts, not for each"
    assert db.execute("select count(*) from rec.events").fetchone() == (0,)
