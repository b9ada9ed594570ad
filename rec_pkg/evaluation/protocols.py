"""
The questions of an evaluation, and what may be known when each is asked.

A plan consists of a log that is loaded beforehand, a stream of later events, and test cases. Every
protocol follows the same rule: a case sees only the events strictly before its moment. Events of
the same moment do not see each other, even if they belong to different users.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal

from rec_pkg.errors import BadInput
from rec_pkg.evaluation.data import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from rec_pkg.evaluation.data import Dataset, HistoryRow

Protocol = Literal["time", "loo", "rows"]

SPLIT: Final = 0.9
TEST_USERS: Final = "test:"
FIRST_TARGET_AT: Final = datetime(2020, 1, 1, tzinfo=UTC)
BETWEEN_ROWS: Final = timedelta(milliseconds=1)
BETWEEN_EVENTS: Final = timedelta(hours=1)
"""
The invented clock of rows without times.

The events of a sequence are an hour apart, so that the latest counts most; targets are at or after
`FIRST_TARGET_AT`, and what came before them is earlier. Sequences are a millisecond apart, in file
order.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """
    A question and its answer.

    `history` is everything the user did before `moment`, oldest first; `position` is the number of
    stream events before `moment`. `person` is the person behind `user_id`; intervals are taken over
    persons.
    """

    person: str
    user_id: str
    history: Sequence[Event]
    target: str
    moment: datetime
    position: int


@dataclass(frozen=True, slots=True)
class Plan:
    """
    The steps of an evaluation.

    With `fresh`, the users of the cases are not in the log: each history is made known only for its
    own case.
    """

    protocol: Protocol
    log: Sequence[Event]
    stream: Sequence[Event]
    cases: Sequence[Case]
    fresh: bool = False

    def sample(self, limit: int | None, seed: int = 0) -> Plan:
        """Return the plan with at most `limit` cases, drawn uniformly."""
        if limit is None or limit >= len(self.cases):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.cases)), limit))
        return replace(self, cases=[self.cases[place] for place in chosen])


def make_plan(
    dataset: Dataset,
    protocol: Protocol,
    *,
    core: int,
    keep_seen: bool,
    disliking: Collection[str] = (),
) -> Plan:
    """
    Turn a data set into a plan.

    Args:
        dataset: with events for `time` and `loo`, with rows for `rows`.
        protocol: `time` asks for every event after the 90 % quantile of the times whose user is
            known by then; `loo` for the last event of every user; `rows` for the test rows.
        core: keep users and items that have at least this many of the other, applied repeatedly; 0
            keeps all.
        keep_seen: whether an item that the user had before can be a target.
        disliking: kinds of events that cannot be targets.

    Raises:
        BadInput: if the data set does not have that form or leaves nothing to ask.
    """
    if protocol == "rows":
        plan = rows_plan(dataset.valid, dataset.test, keep_seen=keep_seen)
    else:
        events = sorted(core_events(dataset.events, core), key=attrgetter("at"))
        make = time_plan if protocol == "time" else loo_plan
        plan = make(events, keep_seen=keep_seen, disliking=disliking)
    if not plan.cases:
        raise BadInput(f"{dataset.name} leaves nothing to ask by the protocol {protocol}")
    return plan


def core_events(events: Sequence[Event], core: int) -> Sequence[Event]:
    """Return the events of users with `core` items and items with `core` users, and all texts."""
    while core > 1:
        pairs = {(e.user_id, e.item_id) for e in events if e.item_id is not None}
        users = Counter(user for user, _ in pairs)
        items = Counter(item for _, item in pairs)
        kept = [
            e
            for e in events
            if users[e.user_id] >= core and (e.item_id is None or items[e.item_id] >= core)
        ]
        if len(kept) == len(events):
            break
        events = kept
    return events


def time_plan(events: Sequence[Event], *, keep_seen: bool, disliking: Collection[str] = ()) -> Plan:
    """Return the plan that asks for every event of a known user after the 90 % quantile."""
    if not events:
        return Plan("time", (), (), ())
    split = events[int(SPLIT * len(events))].at
    first = sum(event.at < split for event in events)

    def is_target(place: int) -> bool:
        return events[place].kind not in disliking

    return _plan("time", events, first, is_target, keep_seen=keep_seen)


def loo_plan(events: Sequence[Event], *, keep_seen: bool, disliking: Collection[str] = ()) -> Plan:
    """
    Return the plan that asks for the last event of every user, each at its own moment.

    Without `keep_seen`, it is the last event on an item that was new to the user.

    The log is everything before the first such moment; the rest is streamed, because events that
    others did later are not known either.
    """
    last: dict[str, int] = {}
    had: set[tuple[str, str]] = set()
    for place, event in enumerate(events):
        if event.item_id is None or event.kind in disliking:
            continue
        if keep_seen or (event.user_id, event.item_id) not in had:
            last[event.user_id] = place
        had.add((event.user_id, event.item_id))
    places = set(last.values())
    plan = _plan("loo", events, 0, places.__contains__, keep_seen=keep_seen)
    if not plan.cases:
        return plan
    first = plan.cases[0].position
    moved = [replace(case, position=case.position - first) for case in plan.cases]
    return replace(plan, log=events[:first], stream=events[first:], cases=moved)


def _plan(
    protocol: Protocol,
    events: Sequence[Event],
    first: int,
    is_target: Callable[[int], bool],
    *,
    keep_seen: bool,
) -> Plan:
    """Walk through events ordered by time; those from the place `first` on may be targets."""
    histories: dict[str, list[Event]] = defaultdict(list)
    cases: list[Case] = []
    place = 0
    for moment, group in groupby(events, key=attrgetter("at")):
        together = list(group)
        for offset, event in enumerate(together):
            past = histories[event.user_id]
            if place >= first and past and event.item_id and is_target(place + offset):
                history = tuple(past)
                if keep_seen or all(event.item_id != e.item_id for e in history):
                    cases.append(
                        Case(
                            event.user_id,
                            event.user_id,
                            history,
                            event.item_id,
                            moment,
                            place - first,
                        )
                    )
        for event in together:
            histories[event.user_id].append(event)
        place += len(together)
    return Plan(protocol, events[:first], events[first:], cases)


def rows_plan(valid: Sequence[HistoryRow], test: Sequence[HistoryRow], *, keep_seen: bool) -> Plan:
    """
    Return the plan whose log is the validation rows with their targets, on an invented clock.

    Rows of one user in which each history ends with what came before form one sequence, so that no
    event is in the log twice. Every test row is a user of its own, asked an hour after its history
    and after the log.
    """
    log = [
        event
        for place, sequence in enumerate(_sequences(valid))
        for event in sequence.dated(FIRST_TARGET_AT + place * BETWEEN_ROWS)
    ]
    log.sort(key=attrgetter("at"))
    end = log[-1].at if log else FIRST_TARGET_AT
    moment = end + BETWEEN_EVENTS + BETWEEN_ROWS
    cases = [
        Case(
            person=row.user_id,
            user_id=f"{TEST_USERS}{place}:{row.user_id}",
            history=_dated(f"{TEST_USERS}{place}:{row.user_id}", row.history, end + BETWEEN_ROWS),
            target=row.target,
            moment=moment,
            position=0,
        )
        for place, row in enumerate(test)
        if keep_seen or row.target not in row.history
    ]
    return Plan("rows", log, (), cases, fresh=True)


@dataclass(slots=True)
class _Sequence:
    """The events of a user of the validation rows; the former targets begin at `first_target`."""

    user_id: str
    items: list[str]
    first_target: int

    def dated(self, first_target_at: datetime) -> list[Event]:
        """Return the events, an hour apart."""
        later = len(self.items) - 1 - self.first_target
        return _dated(self.user_id, self.items, first_target_at + later * BETWEEN_EVENTS)


def _sequences(rows: Sequence[HistoryRow]) -> list[_Sequence]:
    """Join the rows of a user that continue each other; number those that do not."""
    found: dict[str, list[_Sequence]] = defaultdict(list)
    for row in rows:
        history = list(row.history)
        known = found[row.user_id]
        grown = next((s for s in known if s.items[-len(history) :] == history), None)
        if grown is None:
            name = f"log:{row.user_id}:{len(known)}"
            known.append(_Sequence(name, [*history, row.target], len(history)))
        else:
            grown.items.append(row.target)
    return [sequence for sequences in found.values() for sequence in sequences]


def _dated(user_id: str, items: Sequence[str], last_at: datetime) -> list[Event]:
    return [
        Event(user_id, item, "click", None, None, last_at - back * BETWEEN_EVENTS)
        for back, item in zip(range(len(items) - 1, -1, -1), items, strict=True)
    ]
