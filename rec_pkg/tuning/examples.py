"""Selects the events of a log that the ranker is fitted on and judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rec_pkg.tuning.log import NONE

if TYPE_CHECKING:
    from rec_pkg.tuning.log import Flags, Integers, Log


def able_events(
    log: Log, available: Integers, *, since: float = -np.inf, keep_seen: bool = False
) -> Flags:
    """
    Return which events can be examples: the user chose an available item and has earlier events.

    Without `keep_seen`, the item must be new to the user. `since` is in epoch seconds.
    """
    first = np.full(int(log.users.max(initial=NONE)) + 1, np.inf)
    np.minimum.at(first, log.users, log.at)
    able: Flags = log.chosen & (log.at > first[log.users]) & (log.at >= since)
    able &= np.isin(log.items, available)
    return able if keep_seen else able & _first_times(log)


def examples(log: Log, able: Flags, n: int, seed: int) -> Integers:
    """Return the places of `n` events: each user's latest, capped per user as low as possible."""
    places = np.flatnonzero(able)[::-1]
    users = log.users[places]
    order = np.argsort(users, kind="stable")
    sizes = np.bincount(users)
    back = np.empty(len(places), dtype=np.int64)
    back[order] = np.arange(len(places)) - (np.cumsum(sizes) - sizes)[users[order]]
    cap = _cap(sizes, n)
    chosen = np.random.default_rng(seed).permutation(places[back < cap])[:n]
    return np.sort(chosen)


def split(log: Log, events: Integers, share: float, seed: int) -> tuple[Integers, Integers]:
    """Return the events to learn from, and those to judge by, of a `share` of the users."""
    users = np.unique(log.users[events])
    drawn = np.random.default_rng(seed).permutation(users)[: int(share * len(users))]
    judging = np.isin(log.users[events], drawn)
    return events[~judging], events[judging]


def _first_times(log: Log) -> Flags:
    """Return which events are their user's first on their item."""
    pairs = log.users * (log.n_items + 1) + log.items
    firsts = np.zeros(len(pairs), dtype=np.bool_)
    firsts[np.unique(pairs, return_index=True)[1]] = True
    return firsts


def _cap(sizes: Integers, n: int) -> int:
    """Return the smallest number of events per user that gives `n` events in total."""
    largest = int(sizes.max(initial=0))
    for cap in range(1, largest):
        if np.minimum(sizes, cap).sum() >= n:
            return cap
    return largest
