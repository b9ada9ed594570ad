"""
Metrics of lists. With one right answer per case, recall and hit rate are the same.

Ranks count from 1 and may end in a half (the middle of a tie); infinity means not found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Flags = NDArray[np.bool_]

SHOWN: Final = 20
CUT: Final = 10
RESAMPLES: Final = 1000
NOBODY: Final = -1
"""Marks a place of a list that was not filled."""


@dataclass(frozen=True, slots=True)
class Answers:
    """
    A model's answers to n cases.

    `ranks` (n,) are the targets' ranks among all items; `lists` (n, 20) hold places of items, best
    first.
    """

    ranks: Floats
    lists: Integers


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over cases, and the interval that contains 95 % of its resamples over users."""

    mean: float
    low: float
    high: float


def accuracy(ranks: Floats) -> dict[str, Floats]:
    """Return hit rate, nDCG, reciprocal rank and recall of each case (n,), all in 0..1."""
    found = ranks <= CUT
    listed = ranks <= SHOWN
    return {
        f"hr@{CUT}": found.astype(np.float64),
        f"ndcg@{CUT}": np.where(found, 1 / np.log2(1 + ranks), 0.0),
        "mrr": np.where(listed, 1 / ranks, 0.0),
        f"recall@{SHOWN}": listed.astype(np.float64),
    }


def variety(lists: Integers, vectors: Floats, counts: Floats) -> dict[str, Floats]:
    """
    Return intra-list distance, novelty and share of filled places of each list (n,).

    Args:
        lists: (n, 20) places of items.
        vectors: (items, dims) of length 1, or 0 for items without a vector.
        counts: (items,) numbers of events in the log.
    """
    return {
        f"intra_list_distance@{CUT}": intra_list_distance(lists[:, :CUT], vectors),
        f"novelty@{CUT}": novelty(lists[:, :CUT], counts),
        "share_filled": np.mean(lists != NOBODY, axis=1),
    }


def intra_list_distance(lists: Integers, vectors: Floats) -> Floats:
    """Return the mean of 1 - cosine over the pairs of each list, in 0..2; 0 for one item."""
    filled = (lists != NOBODY).astype(np.float64)
    sizes = filled.sum(axis=1)
    summed = np.zeros((len(lists), vectors.shape[1]))
    lengths = np.zeros(len(lists))
    for column in range(lists.shape[1]):
        chosen = vectors[lists[:, column]] * filled[:, [column]]
        summed += chosen
        lengths += np.einsum("ij,ij->i", chosen, chosen)
    twice = np.einsum("ij,ij->i", summed, summed) - lengths
    pairs = sizes * (sizes - 1)
    return np.where(pairs > 0, 1 - twice / np.maximum(pairs, 1), 0.0)


def novelty(lists: Integers, counts: Floats) -> Floats:
    """
    Return the mean of -log2 p over each list, in bits (self-information; Zhou et al., PNAS 2010).

    p is the item's share of the events of the log, after one event is added to each item.
    """
    bits = -np.log2((counts + 1) / (counts + 1).sum())
    filled = lists != NOBODY
    sums = np.where(filled, bits[lists], 0.0).sum(axis=1)
    return np.asarray(sums / np.maximum(filled.sum(axis=1), 1))


def coverage(lists: Integers, n_items: int) -> float:
    """Return the share of the catalogue that is among the first 10 of at least one list."""
    shown = np.unique(lists[:, :CUT])
    return float((shown != NOBODY).sum() / n_items)


def bootstrap(values: Mapping[str, Floats], users: Integers, seed: int = 0) -> dict[str, Figure]:
    """
    Return the mean and interval of each value over cases; users are drawn with replacement.

    Args:
        values: name -> (n,).
        users: (n,) number of the user of each case.
        seed: of the draws; the same for all models, so that their intervals can be compared.
    """
    if len(users) == 0:
        return {}
    _, users = np.unique(users, return_inverse=True)
    cases = _sums(users, np.ones(len(users)))
    sums = np.stack([_sums(users, value) for value in values.values()], axis=1)
    means = _resampled(sums, cases, seed)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    totals = sums.sum(axis=0) / cases.sum()
    return {
        name: Figure(float(totals[place]), float(low[place]), float(high[place]))
        for place, name in enumerate(values)
    }


def _sums(users: Integers, values: Floats) -> Floats:
    return np.bincount(users, values).astype(np.float64)


def _resampled(sums: Floats, cases: Floats, seed: int) -> Floats:
    """Return the means (1000, values) of resamples that draw users with replacement."""
    generator = np.random.default_rng(seed)
    draws = np.empty((RESAMPLES, sums.shape[1]))
    for number in range(RESAMPLES):
        drawn = generator.integers(0, len(cases), len(cases))
        draws[number] = sums[drawn].sum(axis=0) / cases[drawn].sum()
    return draws


def numbered(names: list[str]) -> Integers:
    """Return a number for each name, counting from 0; equal names get equal numbers."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)
