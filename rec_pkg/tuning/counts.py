"""
Transitions and popularity, as of any moment of the past.

These are the counts of `rec_internal.item_transitions` and `rec_internal.popularity`, kept with
their times instead of being summed, so that each question sees only the events strictly before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rec_pkg.tuning.log import Flags, Floats, Integers, Log

NOBODY: Final = -1
NOTHING: Final = 1e-9
"""A smaller value is only rounding, left after an item's only events are subtracted again."""


@dataclass(frozen=True, eq=False)
class Steps:
    """
    Steps from one item to a later one of the same user, grouped by `keys` and sorted by time.

    `others` are the items at the other end. An amount is 1 / distance, as of the step's time `at`.
    """

    starts: Integers
    others: Integers
    amounts: Floats
    at: Floats
    users: Integers

    def before(self, key: int, moment: float, but_user: int = NOBODY) -> slice | Integers:
        """Return the steps of an item strictly before a moment, except those of `but_user`."""
        first, last = int(self.starts[key]), int(self.starts[key + 1])
        last = first + int(np.searchsorted(self.at[first:last], moment))
        if but_user == NOBODY:
            return slice(first, last)
        return first + np.flatnonzero(self.users[first:last] != but_user)


def steps_of(log: Log, window: int) -> tuple[Steps, Steps]:
    """
    Return the steps grouped by the item they leave, and grouped by the item they lead to.

    As in `rec_internal.add_deltas`, each of the `window` previous items adds 1 / distance.
    """
    chosen = np.flatnonzero(log.chosen)
    chosen = chosen[np.argsort(log.users[chosen], kind="stable")]
    parts = [_steps_at(log, chosen, distance) for distance in range(1, window + 1)]
    left, right, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    sources, targets = log.items[left], log.items[right]
    amounts, at, users = 1.0 / distance, log.at[right], log.users[right]
    return (
        _grouped(sources, targets, amounts, at, users, log.n_items),
        _grouped(targets, sources, amounts, at, users, log.n_items),
    )


def _steps_at(log: Log, chosen: Integers, distance: int) -> tuple[Integers, Integers, Integers]:
    left, right = chosen[:-distance], chosen[distance:]
    same = log.users[left] == log.users[right]
    return left[same], right[same], np.full(int(same.sum()), distance)


def _grouped(  # noqa: PLR0913, PLR0917  # one parameter per column of a step
    keys: Integers, others: Integers, amounts: Floats, at: Floats, users: Integers, n_items: int
) -> Steps:
    order = np.lexsort((at, keys))
    starts = np.searchsorted(keys[order], np.arange(n_items + 1))
    return Steps(starts, others[order], amounts[order], at[order], users[order])


class Trend:
    """
    The decayed weight of the positive events of each item, for several half-lives at once.

    Moments must not decrease from call to call.
    """

    def __init__(self, log: Log, half_lives_s: Sequence[float]) -> None:
        self._log = log
        self._liked: Flags = log.chosen & (log.weights > 0)
        self._half_lives = np.asarray(half_lives_s, dtype=np.float64)
        self._masses = np.zeros((log.n_items, len(half_lives_s)))
        self._order = np.argsort(log.at, kind="stable")
        self._times = log.at[self._order]
        self._done = 0
        self._moment = -np.inf

    def masses(self, moment: float, but: Integers | None = None) -> Floats:
        """Return the masses (items, half-lives) strictly before a moment, without some events."""
        self._masses *= np.exp2(-(moment - self._moment) / self._half_lives)
        self._moment = moment
        last = int(np.searchsorted(self._times, moment))
        self._add(self._masses, self._order[self._done : last], 1.0)
        self._done = max(self._done, last)
        if but is None or len(but) == 0:
            return self._masses
        others = self._masses.copy()
        self._add(others, but, -1.0)
        others[others < NOTHING] = 0.0
        return others

    def _add(self, masses: Floats, events: Integers, sign: float) -> None:
        events = events[self._liked[events]]
        ages = self._moment - self._log.at[events]
        decayed = np.exp2(-ages[:, None] / self._half_lives)
        np.add.at(masses, self._log.items[events], sign * self._log.weights[events, None] * decayed)
