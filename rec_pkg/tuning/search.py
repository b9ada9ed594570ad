"""
The search for a ranker's terms, half-life and decay, and for their weights.

Weights are those of greatest likelihood. The form of the ranker is chosen by nDCG@10 in a
cross-validation over users, because maximum likelihood alone prefers terms that do not help the top
of the list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Final

import numpy as np
from threadpoolctl import threadpool_limits

from rec_pkg.progress import silent
from rec_pkg.terms import NAMES
from rec_pkg.tuning.logit import Sample, fit
from rec_pkg.tuning.terms import LIFTED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from rec_pkg.progress import OnProgress
    from rec_pkg.tuning.log import Flags, Floats, Integers
    from rec_pkg.tuning.terms import Question, Shape, Terms

DRAWN: Final = 500
FOLDS: Final = 3
CUT: Final = 10
MOST_LEFT_OUT: Final = 2
FREE: Final = frozenset({"repeat"})
"""Terms that may count against an item: having seen it may."""
CONTENT: Final = frozenset({"content", "latest", "closest"})
SESSIONS: Final = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Values tried for `session_weight`, with each half-life of a visit."""
BONUSES: Final = tuple(step / 2 for step in range(17))
"""Bonuses tried for an item without events, in the unit of the score: log odds."""
GIVEN_UP: Final = 0.6
"""The fraction of the accuracy that new items could bring which may be given up for them."""
MOST_GIVEN_UP: Final = 0.05
"""
The largest fraction of all accuracy to give up: new items are chosen often only in young logs.
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """
    A form of the ranker: its terms, and the values of the settings that they depend on.

    `half_life_s` is that of popularity, `session` is `session_weight`, and `bonus` is the least
    weight of newness.
    """

    terms: tuple[str, ...]
    decay: float
    half_life_s: float
    session: float = 0.0
    session_half_life_s: float = 86_400.0
    bonus: float = 0.0


@dataclass(frozen=True, eq=False)
class Task:
    """
    Events to learn from, and the items that compete with the item of each.

    `keep_seen` lets items that a user had seen compete; `competing` are the items that may.
    """

    terms: Terms
    events: Integers
    competing: Integers
    keep_seen: bool

    @property
    def users(self) -> Integers:
        """Return the user of each event (n,)."""
        return self.terms.log.users[self.events]

    @property
    def weights(self) -> Floats:
        """Return the weight of each event (n,)."""
        return self.terms.log.kind_weights[self.events]

    def sample(self, seed: int, on_progress: OnProgress = silent) -> Sample:
        """Return the terms of each event's item and of uniformly drawn items."""
        generator = np.random.default_rng(seed)
        size = min(DRAWN, len(self.competing))
        shape = (len(self.events), 1 + size)
        terms = np.empty((*shape, len(self.terms.shape.columns)), dtype=np.float32)
        possible = np.ones(shape, dtype=np.bool_)
        presence = np.zeros((len(self.events), len(self.terms.shape.session_half_lives_s)))
        with one_thread():
            for done, (place, question) in enumerate(self.terms.walk(self.events), 1):
                drawn = generator.choice(self.competing, size, replace=False)
                terms[place] = question.matrix(np.concatenate([[question.target], drawn]))
                possible[place, 1:] = ~self._barred(question, drawn)
                presence[place] = question.presence
                on_progress("draw", done, len(self.events))
        return Sample(terms, possible, self.weights, presence)

    def ranks(
        self,
        rankers: Callable[[int, Floats], NDArray[np.floating]],
        on_progress: OnProgress = silent,
    ) -> Floats:
        """
        Return the ranks (n, rankers) of the events' items among all competing items.

        Ties count half. `rankers` returns the weights (columns, rankers) that rank an event, given
        its place and the presence of its user.
        """
        found: list[Floats] = [np.zeros(0)] * len(self.events)
        with one_thread():
            for done, (place, question) in enumerate(self.terms.walk(self.events), 1):
                others = self.competing[~self._barred(question, self.competing)]
                items = np.concatenate([[question.target], others])
                terms = question.matrix(items).astype(np.float64)
                scores = terms @ rankers(place, question.presence)
                above = (scores[1:] > scores[0]).sum(axis=0)
                level = (scores[1:] == scores[0]).sum(axis=0)
                found[place] = 1 + above + level / 2
                on_progress("rank", done, len(self.events))
        return np.array(found)

    def _barred(self, question: Question, items: Integers) -> Flags:
        barred: Flags = items == question.target
        return barred if self.keep_seen else barred | np.isin(items, question.seen)


def one_thread() -> AbstractContextManager[object]:
    """Run small products on one thread: beside a busy server, threads wait for each other."""
    limits: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limits


def ndcg(ranks: Floats) -> Floats:
    """Return the nDCG@10 of ranks with one right answer, in 0..1."""
    return np.where(ranks <= CUT, 1 / np.log2(1 + ranks), 0.0)


def weights_of(choice: Choice, sample: Sample, shape: Shape) -> Floats:
    """Return the weights of all columns of a shape, fitted on a sample; 0 if not chosen."""
    columns = shape.places(choice.terms, choice.decay, choice.half_life_s)
    free = {column for column, term in zip(columns, choice.terms, strict=True) if term in FREE}
    weights = np.zeros(len(shape.columns))
    lift = shape.lift(choice.session, choice.session_half_life_s, sample.presence)
    weights[columns] = fit(sample, columns, free, lift)
    if "newness" in choice.terms:
        newness = shape.places(["newness"], choice.decay, choice.half_life_s)
        weights[newness] = np.maximum(weights[newness], choice.bonus)
    return weights


class Search:
    """The search for the best form of a ranker on a task, by cross-validation over users."""

    def __init__(self, task: Task, seed: int, on_progress: OnProgress = silent) -> None:
        self._task = task
        self._on_progress = on_progress
        self._sample = task.sample(seed, on_progress)
        self._folds = np.unique(task.users, return_inverse=True)[1] % FOLDS

    @property
    def telling(self) -> tuple[str, ...]:
        """Return the terms that differ between competing items; the log is silent on others."""
        shape, able = self._task.terms.shape, self._sample.possible
        differing = self._sample.terms[able].std(axis=0, dtype=np.float64) > 0
        return tuple(
            term
            for term in NAMES
            if differing[shape.places([term], shape.decays[0], shape.half_lives_s[0])].all()
        )

    def best(self, first: Choice) -> tuple[Choice, Floats]:
        """
        Return the best form, and its weights (columns,) fitted on all examples.

        First come the values, where those of `first` win ties, and the weight of a visit. Then up
        to two terms are dropped if that gains anything. Finally newness gets its best weight.
        """
        shape = self._task.terms.shape
        half_lives_s = shape.half_lives_s if "trend" in first.terms else (first.half_life_s,)
        values = [
            replace(first, decay=decay, half_life_s=half_life_s)
            for decay, half_life_s in product(shape.decays, half_lives_s)
        ]
        others = [choice for choice in values if choice != first]
        best = self._best_of([first, *others])
        if LIFTED.keys() & set(best.terms):
            sessions = [
                replace(best, session=session, session_half_life_s=half_life_s)
                for session, half_life_s in product(SESSIONS, shape.session_half_lives_s)
            ]
            best = self._best_of([best, *sessions])
        best = self._best_of([best, *with_fewer_terms(best)])
        if "newness" in best.terms:
            best = self._with_bonus(best)
        return best, weights_of(best, self._sample, shape)

    def _best_of(self, choices: Sequence[Choice]) -> Choice:
        """Return the best-ranking choice, the first one if several are equal."""
        return choices[int(np.argmax(self._ndcgs(self._weights(choices), choices).mean(axis=0)))]

    def _with_bonus(self, choice: Choice) -> Choice:
        """
        Return the choice with the bonus that hits most of the new items that were chosen.

        A bonus may cost accuracy: at most a standard error, or, if that is more, `GIVEN_UP` of what
        new items would bring if they were hit like others, but no more of the latter than
        `MOST_GIVEN_UP` of all accuracy. Among equally good bonuses the smallest wins.
        """
        choices = [replace(choice, bonus=bonus) for bonus in BONUSES]
        newness = self._task.terms.shape.places(["newness"], choice.decay, choice.half_life_s)
        weights = np.repeat(self._weights([choice]), len(choices), axis=2)
        weights[:, newness] = np.maximum(weights[:, newness], BONUSES)
        values = self._ndcgs(weights, choices)
        means, brought = values.mean(axis=0), values[self._new].sum(axis=0)
        best = int(np.argmax(means))
        allowed = min(GIVEN_UP * self._new.mean(), MOST_GIVEN_UP) * means[best]
        losses = values[:, [best]] - values
        able = [
            number
            for number in range(len(choices))
            if losses[:, number].mean() <= max(allowed, _error(losses[:, number]))
        ]
        return choices[max(able, key=lambda number: (brought[number], -number))]

    @property
    def _new(self) -> Flags:
        """Return which examples' items had no events (n,)."""
        shape = self._task.terms.shape
        (column,) = shape.places(["newness"], shape.decays[0], shape.half_lives_s[0])
        return np.asarray(self._sample.terms[:, 0, column] > 0)

    def _weights(self, choices: Sequence[Choice]) -> Floats:
        """Return the weights (folds, columns, choices), fitted on the users of the other folds."""
        shape = self._task.terms.shape
        weights = np.zeros((FOLDS, len(shape.columns), len(choices)))
        for fold in range(FOLDS):
            others = self._sample.rows(self._folds != fold)
            for number, choice in enumerate(choices):
                weights[fold, :, number] = weights_of(choice, others, shape)
                self._on_progress("fit", fold * len(choices) + number + 1, FOLDS * len(choices))
        return weights

    def _ndcgs(self, weights: Floats, choices: Sequence[Choice]) -> Floats:
        """Return the nDCG@10 (events, choices), each user ranked by weights of other users."""
        task, folds = self._task, self._folds

        def rankers(place: int, presence: Floats) -> Floats:
            return np.asarray(weights[folds[place]] * lifts(task.terms.shape, choices, presence))

        ranks = task.ranks(rankers, self._on_progress)
        return np.asarray(ndcg(ranks) * (task.weights / task.weights.mean())[:, None])


def lifts(shape: Shape, choices: Sequence[Choice], presence: Floats) -> Floats:
    """Return the factors by which a visit lifts the columns (columns, choices)."""
    return np.stack(
        [shape.lift(each.session, each.session_half_life_s, presence) for each in choices], axis=1
    )


def with_fewer_terms(choice: Choice) -> list[Choice]:
    """
    Return the choices with one or two terms fewer, each with at least one content term.

    Newness is never dropped, because its weight is chosen separately.
    """
    able = [term for term in choice.terms if term != "newness"]
    left_out = [set(out) for n in range(1, MOST_LEFT_OUT + 1) for out in combinations(able, n)]
    return [
        replace(choice, terms=tuple(term for term in choice.terms if term not in out))
        for out in left_out
        if not CONTENT & set(choice.terms) <= out
    ]


def _error(values: Floats) -> float:
    """Return the standard error of a mean."""
    return float(values.std() / np.sqrt(max(len(values), 1)))
