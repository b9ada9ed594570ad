"""
A linear ranker as a choice model: the odds of an item are exp(weights @ terms).

This is the conditional logit (McFadden 1974) of the chosen items against uniformly drawn ones. With
uniform draws the weights hold for the whole catalogue; with draws among the best candidates they
would not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from rec_pkg.tuning.log import Flags, Floats

RIDGE: Final = 1e-3
STEPS: Final = 30
SMALLEST_STEP: Final = 1e-4


@dataclass(frozen=True, eq=False)
class Sample:
    """
    A sample of n choices.

    `terms` (n, 1 + drawn, columns) have the chosen item first; `weights` (n,) are the choices'.
    `possible` (n, 1 + drawn) tells which of the drawn items compete; `presence` (n, half-lives)
    tells how much of a visit was left.
    """

    terms: NDArray[np.float32]
    possible: Flags
    weights: Floats
    presence: Floats

    def rows(self, chosen: Flags) -> Sample:
        """Return the choices selected by `chosen`."""
        return Sample(*(getattr(self, field.name)[chosen] for field in fields(self)))


def fit(
    sample: Sample, columns: Sequence[int], free: Collection[int] = (), lift: Floats | None = None
) -> Floats:
    """
    Return the weights (columns,) of greatest likelihood; only those in `free` may be negative.

    Columns with negative weights are removed, the most negative first, and get the weight 0. `lift`
    (n, all columns), if given, multiplies the terms.
    """
    weights = np.zeros(len(columns))
    kept = list(range(len(columns)))
    while kept:
        found = _unbounded(sample, [columns[place] for place in kept], weights[kept], lift)
        weights[:] = 0
        weights[kept] = found
        wrong = [place for place in kept if weights[place] < 0 and columns[place] not in free]
        if not wrong:
            break
        kept.remove(min(wrong, key=weights.__getitem__))
    return weights


def _unbounded(
    sample: Sample, columns: Sequence[int], first: Floats, lift: Floats | None
) -> Floats:
    """
    Return the weights (columns,) of greatest likelihood, kept small by a ridge.

    The ridge applies to weights of columns divided by their standard deviation. Newton's method
    starts at the weights `first` and halves a step until it gains; the likelihood is concave.
    """
    terms = sample.terms[:, :, list(columns)]
    if lift is not None:
        terms *= lift[:, None, list(columns)].astype(np.float32)
    scale = terms.reshape(-1, len(columns)).std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1
    terms = (terms - terms[:, :1]) / scale.astype(np.float32)
    barred = np.where(sample.possible, 0.0, -np.inf)
    shares = sample.weights / sample.weights.sum()
    weights = first * scale
    loss, odds = _loss(weights, terms, barred, shares)
    for _ in range(STEPS):
        step = np.linalg.solve(*_curvature_and_slope(weights, terms, odds, shares))
        while np.abs(step).max() > SMALLEST_STEP:
            tried = _loss(weights - step, terms, barred, shares)
            if tried[0] <= loss:
                break
            step /= 2
        else:
            break
        weights -= step
        loss, odds = tried
    return np.asarray(weights / scale)


def _loss(
    weights: Floats, terms: NDArray[np.float32], barred: Floats, shares: Floats
) -> tuple[float, Floats]:
    """Return the ridge minus the log-likelihood, and the items' probabilities (n, 1 + drawn)."""
    scores = (terms @ weights.astype(np.float32)) + barred
    top = scores.max(axis=1, keepdims=True)
    odds = np.exp(scores - top)
    sums = odds.sum(axis=1, keepdims=True)
    likelihood = shares @ (np.log(sums) + top)[:, 0]
    return float(likelihood + RIDGE / 2 * weights @ weights), odds / sums


def _curvature_and_slope(
    weights: Floats, terms: NDArray[np.float32], likely: Floats, shares: Floats
) -> tuple[Floats, Floats]:
    """Return the derivatives of the loss; the chosen item's terms are subtracted from the terms."""
    means = np.matmul(likely[:, None].astype(np.float32), terms)[:, 0].astype(np.float64)
    roots = np.sqrt(likely * shares[:, None]).astype(np.float32)
    weighted = (terms * roots[:, :, None]).reshape(-1, len(weights))
    curvature = (weighted.T @ weighted).astype(np.float64) - (means * shares[:, None]).T @ means
    return curvature + RIDGE * np.eye(len(weights)), shares @ means + RIDGE * weights
