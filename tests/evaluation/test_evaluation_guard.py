from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rec_pkg.errors import Leak
from rec_pkg.evaluation.data import Event
from rec_pkg.evaluation.protocols import Case
from rec_pkg.evaluation.replay import guard
from rec_pkg.evaluation.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


START = datetime(2024, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def event(user: str, item: str | None, hours: float, kind: str = "click") -> Event:
    return Event(user, item, kind, None if item else "a wish", None, at(hours))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url) as store:
        yield store


HISTORY = (event("ann", "a", 1), event("ann", "b", 2))
CASE = Case("ann", "ann", HISTORY, "target", at(5), 0)


def test_the_guard_passes_what_may_be_known(store: Store) -> None:
    store.track([*HISTORY, event("bob", "target", 4.9)])

    guard(store, CASE, fresh=False)


@pytest.mark.parametrize(
    "leak",
    [
        event("ann", "target", 5),
        event("ann", "target", 1.5),
        event("ann", "target", 6),
        event("bob", "target", 5),
        event("bob", "else", 7),
    ],
)
def test_the_guard_catches_a_planted_leak(store: Store, leak: Event) -> None:
    store.track([*HISTORY, leak])

    with pytest.raises(Leak):
        guard(store, CASE, fresh=False)


def test_the_guard_catches_a_missing_history(store: Store) -> None:
    store.track(HISTORY[:1])

    with pytest.raises(Leak):
        guard(store, CASE, fresh=False)


def test_the_guard_catches_what_another_case_left_behind(store: Store) -> None:
    mine = Case("ann", "test:1:ann", (event("test:1:ann", "a", 1),), "target", at(5), 0)
    store.track(mine.history)
    guard(store, mine, fresh=True)

    store.track([event("test:0:ann", "target", 1)])

    with pytest.raises(Leak):
        guard(store, mine, fresh=True)


def test_the_guard_catches_a_sum_from_the_future(store: Store) -> None:
    store.track(HISTORY)
    store._connection.execute(  # noqa: SLF001  # as if a fold had seen more
        "insert into rec.user_interests (user_id, horizon, interest, mass, as_of)"
        " select 'ann', 'long', array_fill(0.1::real, array[a.atttypmod])::vector, 1, %s"
        " from pg_attribute a where attrelid = 'rec.user_interests'::regclass"
        " and attname = 'interest'",
        (at(5),),
    )

    with pytest.raises(Leak):
        guard(store, CASE, fresh=False)
