"""The states of a queued event: due, waiting, failing, parked; sql/log/queue.sql has the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

if TYPE_CHECKING:
    Connection = psycopg.Connection[tuple[Any, ...]]

STATES: Final = (
    "select e.kind, rec_internal.queue_state(p), p.attempts from rec_internal.pending p"
    " join rec.events e using (user_id, event_id) order by e.event_id"
)
PREDICATES: Final = (
    "select rec_internal.queue_state(p), rec_internal.is_due(p), rec_internal.is_waiting(p),"
    " rec_internal.is_parked(p) from rec_internal.pending p order by event_id"
)


@pytest.fixture
def queue(db: Connection) -> Connection:
    """An event in each state: of them only the kind tells which."""
    db.execute("insert into rec.items (item_id) values ('a'), ('b')")
    db.execute("insert into rec.item_vectors values ('a', array_fill(1, array[384])::halfvec)")
    db.execute("update rec.settings set max_attempts = 3")
    db.execute("select rec.track('ann', 'b', 'view')")  # its item has no vector yet
    db.execute("select rec.track('bob', 'nowhere', 'like')")
    db.execute("select rec.apply_pending()")
    db.execute("select rec.track('cid', 'a', 'cart')")
    db.execute("select rec_internal.park('{cid}', array[max(event_id)], 'x') from rec.events")
    db.execute("update rec_internal.pending set retry_at = now() + '1 h' where user_id = 'cid'")
    db.execute("select rec.track('dan', 'a')")
    return db


def states(db: Connection) -> dict[str, str]:
    return {kind: state for kind, state, _ in db.execute(STATES)}


def test_each_state_has_a_word_and_at_most_one_predicate(queue: Connection) -> None:
    assert states(queue) == {
        "view": "waiting",
        "like": "parked",
        "cart": "failing",
        "click": "due",
    }
    assert queue.execute(PREDICATES).fetchall() == [
        ("waiting", False, True, False),
        ("parked", False, False, True),
        ("failing", False, False, False),
        ("due", True, False, False),
    ]


def test_folding_takes_what_is_due_and_leaves_the_rest_in_its_state(queue: Connection) -> None:
    assert queue.execute("select rec.apply_pending()").fetchone() == (1,)
    assert states(queue) == {"view": "waiting", "like": "parked", "cart": "failing"}


def test_what_waits_is_due_again_once_vectors_have_come(queue: Connection) -> None:
    assert queue.execute("select rec_internal.retry_waiting()").fetchone() == (1,)
    assert states(queue)["view"] == "due"
    assert states(queue)["cart"] == "failing", "a pause after a failure is not cut short"
    queue.execute("select rec.apply_pending()")
    assert states(queue)["view"] == "waiting", "none has come"


def test_what_is_parked_is_due_again_when_it_is_retried(queue: Connection) -> None:
    assert queue.execute("select rec.retry()").fetchone() == (1,)
    assert states(queue) == {"view": "waiting", "like": "due", "cart": "failing", "click": "due"}


def test_a_failure_pauses_an_event_and_too_many_park_it(queue: Connection) -> None:
    fail = "select rec_internal.park('{dan}', array[max(event_id)], 'no luck') from rec.events"
    seen = []
    for _ in range(3):
        queue.execute(fail)
        seen += [row[1:] for row in queue.execute(STATES) if row[0] == "click"]
    assert seen == [("failing", 1), ("failing", 2), ("parked", 3)]
    told = queue.execute("select error from rec.parked where user_id = 'dan'").fetchall()
    assert told == [("no luck",)]


@pytest.mark.parametrize("state", ["view", "like", "cart", "click"])
def test_no_event_is_parked_without_a_reason(queue: Connection, state: str) -> None:
    of_state = "where event_id = (select event_id from rec.events where kind = %s)"
    before = states(queue)
    with pytest.raises(psycopg.errors.CheckViolation, match="parked without a reason"):
        queue.execute(
            f"update rec_internal.pending set retry_at = 'infinity', error = null {of_state}",
            [state],
        )
    assert states(queue) == before
    queue.execute(
        f"update rec_internal.pending set retry_at = 'infinity', error = 'why' {of_state}", [state]
    )
    assert states(queue)[state] == "parked"


def test_an_operator_reads_why_each_event_is_parked(queue: Connection) -> None:
    rows = queue.execute("select user_id, item_id, error from rec.parked").fetchall()
    assert rows == [("bob", "nowhere", "unknown item 'nowhere'")]
