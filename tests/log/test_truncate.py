"""A TRUNCATE of the log takes with it what its events added up to."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

DERIVED = (
    "rec.user_interests",
    "rec_internal.pending",
    "rec_internal.item_deltas",
    "rec_internal.popularity",
    "rec_internal.item_transitions",
)


def visit(db: Connection) -> None:
    """Two clicks that are folded and merged, one that is folded, one that waits."""
    db.execute("select rec.track('ann', 'a'), rec.track('ann', 'b')")
    db.execute("select rec.apply_pending(), rec.merge_deltas()")
    db.execute("select rec.track('ann', 'c')")
    db.execute("select rec.apply_pending()")
    db.execute("select rec.track('ann', 'a')")


def counts(db: Connection) -> dict[str, int]:
    rows = {}
    for table in DERIVED:
        row = db.execute(f"select count(*) from {table}").fetchone()
        assert row
        rows[table] = row[0]
    return rows


def add_items(db: Connection) -> None:
    db.execute("insert into rec.items (item_id) select unnest('{a,b,c}'::text[])")
    db.execute(
        "insert into rec.item_vectors select item_id,"
        " array_prepend(ascii(item_id), array_fill(1, array[383]))::vector::halfvec from rec.items"
    )


def test_after_a_truncate_the_same_events_give_what_they_gave_before(db: Connection) -> None:
    add_items(db)
    visit(db)
    before = counts(db)
    assert all(before.values())
    db.execute("truncate rec.events")
    assert not any(counts(db).values())
    visit(db)
    assert counts(db) == before
    mass = db.execute("select mass from rec.user_interests where horizon = 'long'").fetchone()
    assert mass is not None
    assert abs(mass[0] - 3) < 1e-3, "each event counts once"


def test_a_truncate_may_name_what_it_takes_with_it(db: Connection) -> None:
    add_items(db)
    visit(db)
    db.execute("truncate rec.events, rec_internal.pending, rec.user_interests")
    assert not any(counts(db).values())


def test_a_truncate_is_an_erasure_that_a_vacuum_completes(db: Connection) -> None:
    db.execute("select rec.track('ann', 'a')")
    db.execute("truncate rec.events")
    assert db.execute("select count(*) from rec.erasure_status").fetchone() == (1,)
