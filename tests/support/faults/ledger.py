"""The comparison after every fault: each event counted once, everywhere where it counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.faults.world import Connection

KEYS = "select dedupe_key, count(*) from rec.events where dedupe_key is not null group by 1"
# Stored sums beside those of a replay, over the whole mass: what one event is off on average.
INTERESTS = """
    select w.user_id, r.horizon, coalesce(u.mass, 0) - r.mass,
        coalesce(u.interest <-> r.interest, vector_norm(r.interest)) / r.mass, u.as_of = r.as_of
    from (select distinct e.user_id from rec.events e) w
    cross join lateral rec_internal.replay(w.user_id) r
    left join rec.user_interests u on u.user_id = w.user_id and u.horizon = r.horizon
"""
COUNTS = """
    select 'popularity', p.item_id, '', p.log_mass, p.log_outgoing, p.log_incoming
    from rec_internal.popularity p
    union all
    select 'transition', t.from_item, t.to_item, t.log_mass, null, null
    from rec_internal.item_transitions t
"""


@dataclass
class Verdict:
    """What became of the events: the numbers that have to be zero, and how far sums are off."""

    events: int
    lost: int
    twice: int
    interest_off: float
    counts_off: float


def judge(db: Connection, acknowledged: Iterable[str] = ()) -> Verdict:
    """
    Compare log, interests and counts of a database in which nothing waits any more.

    The kinds of its events weigh 1, so that the mass of the horizon `count` counts events.
    """
    keys: dict[str, int] = dict(db.execute(KEYS).fetchall())
    rows = db.execute(INTERESTS).fetchall()
    off = [round(row[2]) for row in rows if row[1] == "count"]
    row = db.execute("select count(*) from rec.events").fetchone()
    assert row
    return Verdict(
        events=row[0],
        lost=len(set(acknowledged) - keys.keys()) - sum(number for number in off if number < 0),
        twice=sum(number - 1 for number in keys.values())
        + sum(number for number in off if number > 0),
        interest_off=max((row[3] if row[4] else 1.0 for row in rows), default=0.0),
        counts_off=_counts_off(db),
    )


def _counts_off(db: Connection) -> float:
    """How far popularity and transitions are from what a rebuild gives, as a share of the mass."""
    before = _counts(db)
    with db.transaction(force_rollback=True):
        db.execute("select rec.rebuild_collaborative()")
        after = _counts(db)
    if before.keys() != after.keys():
        return 1.0
    pairs = [
        pair
        for key in before
        for pair in zip(before[key], after[key], strict=True)
        if pair != (None, None)
    ]
    return max((_apart(*pair) for pair in pairs), default=0.0)


def _apart(before: float | None, after: float | None) -> float:
    if before is None or after is None:
        return 1.0
    return 0.0 if before == after else abs(before - after)


def _counts(db: Connection) -> dict[tuple[str, ...], list[float | None]]:
    rows = db.execute(COUNTS).fetchall()
    counted = Counter(tuple(row[:3]) for row in rows)
    assert max(counted.values(), default=1) == 1
    return {tuple(row[:3]): list(row[3:]) for row in rows}
