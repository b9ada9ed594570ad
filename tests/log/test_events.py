"""Writing events: what the triggers do in the application's transaction, and what they refuse."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

Connection = psycopg.Connection[tuple[Any, ...]]


def count(db: Connection, table: str) -> int:
    row = db.execute(f"select count(*) from {table}").fetchone()
    assert row
    return int(row[0])


def notifications(db: Connection) -> int:
    return len(list(db.notifies(timeout=0.2)))


def test_an_insert_queues_each_event_once(db: Connection) -> None:
    db.execute("insert into rec.events (user_id, item_id) values ('a', 'x'), ('b', 'x')")
    with (
        db.cursor() as cursor,
        cursor.copy("copy rec.events (user_id, item_id) from stdin") as copy,
    ):
        copy.write_row(("a", "y"))
    assert db.execute("select user_id from rec_internal.pending order by event_id").fetchall() == [
        ("a",),
        ("b",),
        ("a",),
    ]


@pytest.mark.clock
def test_a_repeated_dedupe_key_counts_once(db: Connection) -> None:
    first = db.execute("select rec.track('a', 'x', p_dedupe_key => 'k')").fetchone()
    again = db.execute("select rec.track('a', 'x', p_dedupe_key => 'k')").fetchone()
    assert first == again
    assert db.execute("select rec.track('b', 'x', p_dedupe_key => 'k')").fetchone() != first
    insert = (
        "insert into rec.events (user_id, item_id, dedupe_key, occurred_at)"
        " values ('a', 'x', 'm', '2026-01-01') on conflict do nothing"
    )
    db.execute(insert)
    db.execute(insert)
    assert count(db, "rec.events") == count(db, "rec_internal.pending") == 3


def test_concurrent_calls_with_one_dedupe_key_give_one_event(
    db: Connection, database_url: str
) -> None:
    ids: list[int] = []

    def track() -> None:
        with psycopg.connect(database_url) as own:
            row = own.execute("select rec.track('a', 'x', p_dedupe_key => 'k')").fetchone()
            assert row
            ids.append(row[0])

    threads = [threading.Thread(target=track) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == count(db, "rec.events") == 1


def test_a_blank_text_is_no_text(db: Connection) -> None:
    db.execute("insert into rec.events (user_id, item_id, text) values ('a', 'x', '  ')")
    assert db.execute("select text, text_hash from rec.events").fetchone() == (None, None)
    with pytest.raises(psycopg.errors.CheckViolation, match="needs an item_id or a text"):
        db.execute("select rec.track('a', p_text => ' ')")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("null, 'x'", psycopg.errors.NullValueNotAllowed),
        ("'', 'x'", psycopg.errors.NullValueNotAllowed),
        ("'a'", psycopg.errors.CheckViolation),
        ("'a', 'x', 'no such kind'", psycopg.errors.ForeignKeyViolation),
        ("'a', 'x', null", psycopg.errors.ForeignKeyViolation),
        ("'a', 'x', p_value => 'NaN'", psycopg.errors.CheckViolation),
        ("'a', 'x', p_value => 'Infinity'", psycopg.errors.CheckViolation),
        ("'a', 'x', p_occurred_at => 'infinity'", psycopg.errors.CheckViolation),
    ],
)
def test_bad_events_are_refused(db: Connection, arguments: str, error: type[psycopg.Error]) -> None:
    with pytest.raises(error):
        db.execute(f"select rec.track({arguments})")
    assert count(db, "rec.events") == count(db, "rec_internal.pending") == 0


def test_no_worker_sleeps_so_nothing_is_notified(db: Connection) -> None:
    db.execute("listen rec_events")
    db.execute("select rec.track('a', 'x')")
    assert notifications(db) == 0


def test_a_sleeping_worker_is_notified_with_an_empty_payload(
    db: Connection, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as sleeper:
        sleeper.execute("listen rec_events")
        assert sleeper.execute(
            "select rec_internal.try_sleep(rec_internal.sleep_lock())"
        ).fetchone() == ("asleep",)
        db.execute("select rec.track('a', 'x')")
        assert [n.payload for n in sleeper.notifies(timeout=2, stop_after=1)] == [""]
        sleeper.execute("select rec_internal.stop_sleeping(rec_internal.sleep_lock())")
        db.execute("select rec.track('a', 'x')")
        assert notifications(sleeper) == 0


def test_nobody_falls_asleep_while_a_writer_would_not_notify(
    db: Connection, database_url: str
) -> None:
    with psycopg.connect(database_url) as writer:
        writer.execute("select rec.track('a', 'x')")
        assert db.execute(
            "select rec_internal.try_sleep(rec_internal.sleep_lock())"
        ).fetchone() == ("busy",)
        writer.commit()
        assert db.execute(
            "select rec_internal.try_sleep(rec_internal.sleep_lock())"
        ).fetchone() == ("asleep",)
        with psycopg.connect(database_url, autocommit=True) as second:
            assert second.execute(
                "select rec_internal.try_sleep(rec_internal.sleep_lock())"
            ).fetchone() == ("guarded",)


def test_a_resting_worker_is_woken_by_texts_alone(db: Connection, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as worker:
        worker.execute("listen rec_events")
        assert worker.execute(
            "select rec_internal.try_sleep(rec_internal.rest_lock())"
        ).fetchone() == ("asleep",)
        db.execute("select rec.track('a', 'x')")
        assert notifications(worker) == 0
        db.execute("select rec.track('a', p_text => 'a warm coat')")
        assert [n.payload for n in worker.notifies(timeout=2, stop_after=1)] == [""]
        worker.execute("select rec_internal.stop_sleeping(rec_internal.rest_lock())")
        db.execute("select rec.track('a', p_text => 'a cold drink')")
        assert notifications(worker) == 0


def test_nobody_rests_while_a_writer_of_a_text_would_not_notify(
    db: Connection, database_url: str
) -> None:
    rest = "select rec_internal.try_sleep(rec_internal.rest_lock())"
    with psycopg.connect(database_url) as writer:
        writer.execute("select rec.track('a', 'x')")
        assert db.execute(rest).fetchone() == ("asleep",)
        assert db.execute(
            "select rec_internal.stop_sleeping(rec_internal.rest_lock())"
        ).fetchone() == (True,)
        writer.execute("select rec.track('a', p_text => 'a warm coat')")
        assert db.execute(rest).fetchone() == ("busy",)
        assert db.execute(
            "select rec_internal.try_sleep(rec_internal.rest_lock(), 0.01)"
        ).fetchone() == ("busy",)
        assert db.execute("show lock_timeout").fetchone() == ("0",)
        writer.commit()
        assert db.execute(rest).fetchone() == ("asleep",)


def test_who_waits_to_rest_learns_of_the_commit_and_texts_that_begin_meanwhile_notify(
    db: Connection, database_url: str
) -> None:
    with (
        psycopg.connect(database_url) as writer,
        psycopg.connect(database_url, autocommit=True) as worker,
        ThreadPoolExecutor(1) as thread,
    ):
        worker.execute("listen rec_events")
        writer.execute("select rec.track('a', p_text => 'a warm coat')")
        rest = "select rec_internal.try_sleep(rec_internal.rest_lock(), 60)"
        resting = thread.submit(lambda: worker.execute(rest).fetchone())
        while not db.execute(
            "select true from pg_locks where pid = %s and not granted", [worker.info.backend_pid]
        ).fetchone():
            time.sleep(0.01)
        db.execute("select rec.track('b', p_text => 'a cold drink')")
        writer.commit()
        assert resting.result() == ("asleep",)
        assert [n.payload for n in worker.notifies(timeout=2, stop_after=1)] == [""]


def test_an_event_on_an_unknown_item_is_parked_until_the_item_is_there(db: Connection) -> None:
    db.execute("select rec.track('a', 'late'), rec.track('a', 'here')")
    add_encoded(db, ["here"])
    assert db.execute("select rec.apply_pending()").fetchone() == (1,)
    assert db.execute("select item_id, error from rec.parked").fetchall() == [
        ("late", "unknown item 'late'")
    ]
    add_encoded(db, ["late"])
    assert count(db, "rec.parked") == 0
    assert db.execute("select rec.apply_pending()").fetchone() == (1,)
    assert count(db, "rec_internal.pending") == 0


def test_an_event_of_a_removed_kind_is_parked_and_can_be_retried(db: Connection) -> None:
    add_encoded(db, ["x"])
    db.execute("insert into rec.event_kinds values ('share', 2)")
    db.execute("select rec.track('a', 'x', 'share')")
    db.execute("delete from rec.event_kinds where kind = 'share'")
    assert db.execute("select rec.apply_pending()").fetchone() == (0,)
    assert db.execute("select error from rec.parked").fetchone() == ("unknown event kind 'share'",)
    db.execute("insert into rec.event_kinds values ('share', 2)")
    assert db.execute("select rec.retry('{a}')").fetchone() == (1,)
    assert db.execute("select rec.apply_pending()").fetchone() == (1,)


def test_an_event_is_never_parked_without_a_reason(db: Connection) -> None:
    db.execute("select rec.track('a', 'x')")
    db.execute("update rec.settings set max_attempts = 1")
    db.execute(
        "select rec_internal.park(array[user_id], array[event_id], null) from rec_internal.pending"
    )
    assert db.execute("select error from rec.parked").fetchall() == [("no reason given",)]


@pytest.mark.clock
def test_an_event_whose_vector_is_missing_waits(db: Connection) -> None:
    db.execute("insert into rec.items (item_id) values ('x')")
    db.execute("select rec.track('a', 'x')")
    assert db.execute("select rec.apply_pending()").fetchone() == (0,)
    assert db.execute("select retry_at > now(), error from rec_internal.pending").fetchone() == (
        True,
        None,
    )


def test_two_sessions_never_fold_an_event_twice_nor_wait_for_each_other(
    db: Connection, database_url: str
) -> None:
    add_encoded(db, ["x"])
    db.execute(
        "insert into rec.events (user_id, item_id)"
        " select 'u' || n % 5, 'x' from generate_series(1, 20) n"
    )
    with psycopg.connect(database_url) as first:
        assert first.execute("select rec.apply_users('{u0,u1}')").fetchone() == (8,)
        assert db.execute("select rec.apply_users('{u0,u1,u2}')").fetchone() == (4,)
        assert db.execute("select rec.apply_pending()").fetchone() == (8,)
        first.commit()
    assert db.execute("select rec.apply_pending()").fetchone() == (0,)
    masses = db.execute("select distinct round(mass) from rec.user_interests").fetchall()
    assert masses == [(4,)]


def test_users_behind_a_long_queue_of_one_who_is_locked_are_folded(
    db: Connection, database_url: str
) -> None:
    """Of a long queue only a part is read at first."""
    add_encoded(db, ["x"])
    db.execute(
        "insert into rec.events (user_id, item_id)"
        " select 'crowd', 'x' from generate_series(1, 12000)"
    )
    db.execute("select rec.track('b', 'x')")
    with psycopg.connect(database_url) as other:
        other.execute("select pg_advisory_xact_lock(rec_internal.user_lock('crowd'))")
        assert db.execute("select rec.apply_pending(1)").fetchone() == (1,)
        assert db.execute("select rec.apply_pending(1)").fetchone() == (0,)
    assert db.execute("select rec.apply_pending(1)").fetchone() == (12000,)


def test_an_old_snapshot_does_not_bring_an_erased_interest_back(
    db: Connection, database_url: str
) -> None:
    add_encoded(db, ["x"])
    db.execute("select rec.track('ann', 'x')")
    db.execute("select rec.apply_pending()")
    with psycopg.connect(database_url) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select 1 from rec.events")
        db.execute("select rec.forget_user('ann')")
        old.execute("select rec.track('ann', 'x')")
        with pytest.raises(psycopg.errors.SerializationFailure):
            old.execute("select rec.apply_users('{ann}')")
        old.rollback()
    assert count(db, "rec.user_interests") == 0


def test_sessions_that_fold_at_once_share_the_users_and_leave_no_rest_of_one(
    db: Connection, database_url: str
) -> None:
    """Also where the oldest events are those of all users in turn."""
    add_encoded(db, ["x"])
    db.execute(
        "insert into rec.events (user_id, item_id)"
        " select 'u' || n % 6, 'x' from generate_series(1, 60) n"
    )
    call = "select rec.apply_pending(20)"
    left = "select count(*) from rec_internal.pending group by user_id"
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        assert first.execute(call).fetchone() == second.execute(call).fetchone() == (20,)
        first.commit()
        second.commit()
    assert db.execute(left).fetchall() == [(10,), (10,)]
    assert db.execute(call).fetchone() == (20,)
    assert db.execute(call).fetchone() == (0,)


def test_a_user_of_whom_one_event_is_claimed_is_left_alone(
    db: Connection, database_url: str
) -> None:
    add_encoded(db, ["x"])
    db.execute("select rec.track('a', 'x')")
    with psycopg.connect(database_url) as first:
        assert first.execute("select rec.apply_pending()").fetchone() == (1,)
        db.execute("select rec.track('a', 'x')")
        assert db.execute("select rec.apply_pending()").fetchone() == (0,)
        first.commit()
    assert db.execute("select rec.apply_pending()").fetchone() == (1,)


def test_folding_undoing_rebuilding_and_forgetting_at_once_never_deadlock(
    db: Connection, database_url: str
) -> None:
    items = [f"i{number}" for number in range(5)]
    add_encoded(db, items)
    errors: list[psycopg.Error] = []
    end = time.monotonic() + 4

    def repeat(statement: str) -> None:
        with psycopg.connect(database_url, autocommit=True) as own:
            while time.monotonic() < end:
                try:
                    own.execute(statement)
                except psycopg.Error as error:
                    errors.append(error)

    track = (
        "select rec.track((array['a', 'b'])[1 + n % 2], 'i' || n % 5) from generate_series(1, 9) n"
    )
    statements = [
        *(track, track, "select rec.apply_pending(10)", "select rec.apply_pending(10)"),
        *(
            "select rec.merge_deltas()",
            "select rec.rebuild_user('a')",
            "select rec_internal.retry_waiting()",
        ),
        "select rec.undo_event('a', max(event_id)) from rec.events where user_id = 'a'",
        "select rec.forget_user('b')",
    ]
    threads = [threading.Thread(target=repeat, args=[statement]) for statement in statements]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    while db.execute("select rec.apply_pending()").fetchone() != (0,):
        pass
    assert count(db, "rec_internal.pending") == 0
    apart = db.execute(
        "select max(abs(u.mass - r.mass) / greatest(r.mass, 1e-6)) from rec.user_interests u,"
        " lateral rec_internal.replay(u.user_id) r where r.horizon = u.horizon"
    ).fetchone()
    assert apart
    assert (apart[0] or 0) < 1e-4


def test_statistics_of_empty_tables_do_not_make_folding_quadratic(db: Connection) -> None:
    """A vacuum of the emptied queue leaves estimates of no rows; the time then must not explode."""
    add_encoded(db, [f"i{number}" for number in range(50)])
    db.execute("analyze")
    db.execute(
        "insert into rec.events (user_id, item_id, occurred_at)"
        " select 'solo', 'i' || n % 50, now() - n * interval '1 s' from generate_series(1, 5000) n"
    )
    db.execute("set statement_timeout = '60s'")  # it was minutes; now it is a second
    assert db.execute("select rec.apply_pending(5000)").fetchone() == (5000,)
    assert db.execute("select rec.merge_deltas() > 0").fetchone() == (True,)


def test_a_large_backlog_of_one_user_is_folded_and_what_names_no_item_is_parked(
    db: Connection,
) -> None:
    """Among ten thousand events, half of them parked, some arrive late."""
    add_encoded(db, [f"i{number}" for number in range(50)])
    insert = (
        "insert into rec.events (user_id, item_id, occurred_at)"
        " select 'solo', case when n %% 2 = 0 then 'i' || n / 2 %% 50 else 'unknown' end,"
        " now() - n * %s * interval '1 s' from generate_series(1, %s) n"
    )
    db.execute(insert, [10, 10_000])
    assert db.execute("select rec.apply_pending()").fetchone() == (5000,)
    parked = "select count(*) from rec_internal.pending where retry_at = 'infinity'"
    assert db.execute(parked).fetchone() == (5000,)
    db.execute(insert, [15, 1000])
    assert db.execute("select rec.apply_pending()").fetchone() == (500,)
    told = "select sum(amount), sum(step * cardinality(from_items)) from rec_internal.{}"
    deltas = db.execute(told.format("item_deltas")).fetchone()
    anew = "steps_of('solo') s cross join lateral (select 1 as step) o"
    assert deltas == db.execute(told.format(anew)).fetchone()


def test_ids_that_no_index_could_hold_are_refused(db: Connection) -> None:
    for statement in (
        "insert into rec.items (item_id) values (repeat('x', 1001))",
        "insert into rec.events (user_id, item_id) values (repeat('x', 1001), 'i')",
        "insert into rec.events (user_id, item_id) values ('u', repeat('x', 1001))",
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute(statement)


def test_an_event_that_the_application_deletes_leaves_the_queue(db: Connection) -> None:
    add_encoded(db, ["x"])
    db.execute("select rec.track('a', 'x'), rec.track('b', 'x')")
    db.execute("delete from rec.events where user_id = 'a'")
    assert db.execute("select rec.apply_pending()").fetchone() == (1,)
    assert count(db, "rec_internal.pending") == 0


def test_vectors_of_another_encoder_are_refused(db: Connection) -> None:
    add_encoded(db, ["x"])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="another encoder"):
        db.execute("select rec_internal.store_texts(%s, '{}', '{}')", ["b" * 64])


def test_a_changed_item_waits_for_its_new_vector_and_an_unchanged_one_does_not(
    db: Connection,
) -> None:
    add_encoded(db, ["x", "y"])
    db.execute("update rec.items set title = 'new' where item_id = 'x'")
    db.execute("update rec.items set available = false where item_id = 'y'")
    assert db.execute("select item_id from rec_internal.claim_items(10)").fetchall() == [("x",)]


def add_encoded(db: Connection, items: Sequence[str]) -> None:
    """Insert items and store a vector for each, as a worker does."""
    fingerprint = "a" * 64
    db.execute("select rec_internal.register_encoder(%s, 'test', '{}', 384)", [fingerprint])
    for item in items:
        db.execute("insert into rec.items (item_id) values (%s)", [item])
        db.execute(
            "select rec_internal.store_items(%s, array[item_id], array[content_hash],"
            " array[array_fill(1, array[384])::halfvec]) from rec.items where item_id = %s",
            [fingerprint, item],
        )
