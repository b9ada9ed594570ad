from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rec_pkg.evaluation import protocols
from rec_pkg.evaluation.data import Event, HistoryRow

if TYPE_CHECKING:
    from rec_pkg.evaluation.protocols import Plan

START = datetime(2024, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def event(user: str, item: str | None, hours: float, kind: str = "click") -> Event:
    return Event(user, item, kind, None if item else "a wish", None, at(hours))


def log_of_many(seed: int = 3) -> list[Event]:
    chance = random.Random(seed)
    return [
        event(f"u{chance.randrange(8)}", f"i{chance.randrange(60)}", chance.randrange(60))
        for _ in range(300)
    ]


def assert_causal(plan: Plan) -> None:
    assert plan.cases
    known = [*plan.log]
    done = 0
    for case in plan.cases:
        known += plan.stream[done : case.position]
        done = case.position
        assert all(e.at < case.moment for e in known)
        assert list(case.history) == [e for e in known if e.user_id == case.user_id]
        assert case.history
        assert all(e.at >= case.moment for e in plan.stream[done:])


@pytest.mark.parametrize("keep_seen", [True, False])
def test_no_case_sees_an_event_at_or_after_its_moment(keep_seen: bool) -> None:  # noqa: FBT001
    events = sorted(log_of_many(), key=lambda e: e.at)

    for make in (protocols.time_plan, protocols.loo_plan):
        plan = make(events, keep_seen=keep_seen)
        assert_causal(plan)
        assert [*plan.log, *plan.stream] == events
        seen = [case.target in {e.item_id for e in case.history} for case in plan.cases]
        assert not any(seen) or keep_seen


def test_time_asks_for_every_later_event_of_a_known_user() -> None:
    events = [event("a", f"i{hour}", hour) for hour in range(18)]
    events += [event("new", "x", 18), event("new", "y", 19), event("a", "z", 20, "dislike")]

    plan = protocols.time_plan(events, keep_seen=False, disliking={"dislike"})

    assert len(plan.log) == 18
    assert [(case.user_id, case.target) for case in plan.cases] == [("new", "y")]
    assert [e.item_id for e in plan.cases[0].history] == ["x"]


def test_loo_asks_each_user_once_for_the_last_event() -> None:
    events = [
        event(user, f"i{hour}", hour + shift)
        for shift, user in ((0, "a"), (0.5, "b"))
        for hour in range(3)
    ]

    plan = protocols.loo_plan(sorted(events, key=lambda e: e.at), keep_seen=False)

    assert [(case.user_id, case.target) for case in plan.cases] == [("a", "i2"), ("b", "i2")]
    assert [len(case.history) for case in plan.cases] == [2, 2]


def test_rows_of_a_user_that_continue_each_other_are_one_sequence() -> None:
    valid = [
        HistoryRow("u", ("a",), "b"),
        HistoryRow("v", ("x",), "y"),
        HistoryRow("u", ("a", "b"), "c"),
        HistoryRow("u", ("b", "c"), "d"),  # a window that has moved on
        HistoryRow("u", ("q",), "r"),
    ]

    plan = protocols.rows_plan(valid, [HistoryRow("u", ("a", "b"), "c")], keep_seen=True)

    sequences: dict[str, list[str | None]] = {}
    for e in plan.log:
        sequences.setdefault(e.user_id, []).append(e.item_id)
    assert sorted(map(tuple, sequences.values())) == [("a", "b", "c", "d"), ("q", "r"), ("x", "y")]


def test_a_test_row_is_a_fresh_user_after_the_log() -> None:
    rows = [HistoryRow("u", ("a", "b"), "c"), HistoryRow("u", ("a", "b", "c"), "d")]

    plan = protocols.rows_plan(rows, rows, keep_seen=True)

    assert plan.fresh
    users = [case.user_id for case in plan.cases]
    assert len(set(users)) == 2
    assert not {*users} & {e.user_id for e in plan.log}
    assert [case.person for case in plan.cases] == ["u", "u"]
    for case in plan.cases:
        times = [e.at for e in case.history]
        assert times == sorted(times)
        assert max(times) < case.moment
        assert max(e.at for e in plan.log) < case.moment


def test_core_leaves_users_and_items_that_hold_each_other() -> None:
    dense = [event(f"u{user}", f"i{item}", user) for user in range(3) for item in range(3)]
    loose = [event("u0", "rare", 9), event("once", "i0", 9), event("u1", None, 9)]

    assert protocols.core_events([*dense, *loose], 3) == [*dense, loose[2]]
    assert protocols.core_events([*dense, *loose], 0) == [*dense, *loose]


def test_a_sample_is_seeded_and_keeps_the_order() -> None:
    plan = protocols.time_plan(sorted(log_of_many(), key=lambda e: e.at), keep_seen=True)

    some = plan.sample(5, seed=1)

    assert some.cases == plan.sample(5, seed=1).cases != plan.sample(5, seed=2).cases
    assert [case.moment for case in some.cases] == sorted(case.moment for case in some.cases)
    assert plan.sample(None) is plan
