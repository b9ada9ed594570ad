"""Tables that are rewritten all the time stay small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

    Db = psycopg.Connection[tuple[Any, ...]]

USERS, ROUNDS = 20, 20
LARGE = 10_000_000
# Dead rows that autovacuum waits for, by the settings of the table and else of the server.
PATIENCE = """
    select coalesce(
            (select option_value::float from pg_options_to_table(c.reloptions)
            where option_name = 'autovacuum_vacuum_threshold'), 50)
        + coalesce(
            (select option_value::float from pg_options_to_table(c.reloptions)
            where option_name = 'autovacuum_vacuum_scale_factor'), 0.2) * %s
    from pg_class c where c.oid = %s::regclass
"""


@pytest.mark.parametrize("table", ["rec_internal.pending", "rec_internal.item_deltas"])
def test_a_queue_is_vacuumed_after_some_thousand_rows_however_long_it_was(
    db: Db, table: str
) -> None:
    row = db.execute(PATIENCE, [LARGE, table]).fetchone()
    assert row
    assert row[0] <= 10_000


@pytest.mark.parametrize(
    "table", ["rec.user_interests", "rec_internal.popularity", "rec_internal.item_transitions"]
)
def test_what_grows_is_vacuumed_when_a_twentieth_of_it_is_dead(db: Db, table: str) -> None:
    row = db.execute(PATIENCE, [LARGE, table]).fetchone()
    assert row
    assert row[0] <= 0.051 * LARGE


def test_folding_into_known_interests_touches_no_index_and_takes_no_more_room(db: Db) -> None:
    db.execute("insert into rec.items (item_id) values ('a')")
    db.execute("insert into rec.item_vectors values ('a', array_fill(1, array[384])::halfvec)")
    sizes = []
    for _ in range(ROUNDS):
        db.execute(
            "insert into rec.events (user_id, item_id)"
            " select 'user ' || n, 'a' from generate_series(1, %s) n",
            [USERS],
        )
        db.execute("select rec.apply_pending()")
        row = db.execute("select pg_relation_size('rec.user_interests')").fetchone()
        assert row
        sizes.append(row[0])
    db.execute("select pg_stat_force_next_flush()")
    updated, hot = db.execute(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables"
        " where relid = 'rec.user_interests'::regclass"
    ).fetchall()[0]
    assert updated == 2 * USERS * (ROUNDS - 1)
    assert hot > 0.8 * updated
    assert sizes[-1] <= 2 * sizes[0]
