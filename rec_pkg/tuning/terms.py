"""
The terms of a score for one question and any items, as `rec.score` computes them.

Unlike the SQL, steps are counted without limiting them to the strongest.

Aversion is negative here, because the score subtracts it.

Terms that depend on a setting to be chosen have a column for each of its values. Terms that a
running visit lifts or lowers are given as outside any visit; `Shape.lift` returns the factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from rec_pkg.terms import NAMES, TERMS
from rec_pkg.tuning.counts import NOBODY, Steps, Trend, steps_of
from rec_pkg.tuning.log import NONE, unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rec_pkg.tuning.log import Floats, Integers, Log, Vectors

BY_DECAY: Final = frozenset(term.name for term in TERMS if term.by_decay)
BY_HALF_LIFE: Final = frozenset(term.name for term in TERMS if term.by_half_life)
LIFTED: Final = {term.name: term.lift for term in TERMS}
"""The fraction of `session_weight` by which each term grows right after an event."""
NO_DIRECTION: Final = 1e-3
TINY: Final = float(np.finfo(np.float64).tiny)
BLOCK: Final = 10_000
"""Events whose vectors are in memory at a time, because histories may be very long."""


@dataclass(frozen=True, slots=True)
class Shape:
    """
    The inputs of terms: the values to choose from, and the settings that stay fixed.

    Half-lives are in seconds. A question sees the counts as of its moment. With `fresh` it sees
    those of the whole log except its own user's, as a user would who is not in the log.
    """

    decays: tuple[float, ...]
    half_lives_s: tuple[float, ...]
    latest_items: int = 10
    window: int = 10
    prior: float = 5.0
    transition_half_life_s: float = 1000 * 86_400.0
    session_half_lives_s: tuple[float, ...] = (86_400.0,)
    fresh: bool = False

    @property
    def columns(self) -> tuple[tuple[str, float | None], ...]:
        """Return the term and value of each column."""
        return tuple((term, value) for term in NAMES for value in self._values(term))

    def _values(self, term: str) -> tuple[float | None, ...]:
        if term in BY_DECAY:
            return self.decays
        return self.half_lives_s if term in BY_HALF_LIFE else (None,)

    def places(self, terms: Iterable[str], decay: float, half_life_s: float) -> list[int]:
        """Return the columns of terms for one value of each setting."""
        value = dict.fromkeys(BY_DECAY, decay) | dict.fromkeys(BY_HALF_LIFE, half_life_s)
        places = {column: place for place, column in enumerate(self.columns)}
        return [places[term, value.get(term)] for term in terms]

    def lift(self, session: float, session_half_life_s: float, presence: Floats) -> Floats:
        """Return a visit's factors of the columns (..., columns), given presence (..., values)."""
        signs = np.array([LIFTED[term] for term, _ in self.columns])
        place = self.session_half_lives_s.index(session_half_life_s)
        return np.asarray(1 + session * presence[..., place, None] * signs)


class Terms:
    """The terms of questions about a log: each `event` is a question asked just before it."""

    def __init__(self, log: Log, shape: Shape) -> None:
        self._log = log
        self.shape = shape
        self._leaving, self._arriving = steps_of(log, shape.window)
        self._end = float(log.at.max()) + 1.0

    def walk(self, events: Integers) -> Iterator[tuple[int, Question]]:
        """Yield the place and the question of each event, ordered by time."""
        trend = Trend(self._log, self.shape.half_lives_s)
        for place in np.argsort(self._log.at[events], kind="stable").tolist():
            event = int(events[place])
            user = self._log.of_user(int(self._log.users[event]))
            masses = trend.masses(self.counted_at(event), user if self.shape.fresh else None)
            yield place, Question(self, event, self._log.before(event), masses)

    def counted_at(self, event: int) -> float:
        """Return the moment as of which the question of an event sees the counts."""
        return self._end if self.shape.fresh else float(self._log.at[event])

    @property
    def log(self) -> Log:
        """Return the log."""
        return self._log

    def followed(self, latest: Integers, moment: float, user: int) -> tuple[Floats, Floats]:
        """Return transition and together (items, decays) from the latest items, latest first."""
        prior = self.shape.prior
        going = np.zeros((len(latest), self._log.n_items))
        both = np.zeros_like(going)
        for place, item in enumerate(latest):
            out = self._masses(self._leaving, item, moment, user)
            into = self._masses(self._arriving, item, moment, user)
            going[place] = out / (out.sum() + prior)
            both[place] = (out + into) / (out.sum() + into.sum() + prior)
        kept = np.array(self.shape.decays)[:, None] ** np.arange(len(latest))
        return np.sqrt(kept @ going).T, np.sqrt(kept @ both).T

    def _masses(self, steps: Steps, item: int, moment: float, user: int) -> Floats:
        """Return the decayed steps of an item, summed by the item at their other end."""
        chosen = steps.before(item, moment, user if self.shape.fresh else NOBODY)
        ages = moment - steps.at[chosen]
        decayed = steps.amounts[chosen] * np.exp2(-ages / self.shape.transition_half_life_s)
        masses = np.bincount(steps.others[chosen], decayed, minlength=self._log.n_items)
        return masses.astype(np.float64, copy=False)


class Question:
    """The knowledge about a user just before an event, and the terms that follow from it."""

    def __init__(self, terms: Terms, event: int, history: Integers, masses: Floats) -> None:
        self._terms = terms
        self._log = terms.log
        self.event = event
        self._history = history
        self._masses = masses
        self._moment = float(self._log.at[event])

    @property
    def target(self) -> int:
        """Return the item of the event."""
        return int(self._log.items[self.event])

    @cached_property
    def seen(self) -> Integers:
        """Return the items that the user had seen."""
        marked = self._history[self._log.seen[self._history]]
        items = np.unique(self._log.items[marked])
        return np.asarray(items[items != NONE])

    @property
    def presence(self) -> Floats:
        """
        Return the remainder of a visit (values,), for each of the shape's `session_half_lives_s`.

        It is 1 right after an event of the user, and 0 before the first.
        """
        half_lives = np.array(self._terms.shape.session_half_lives_s)
        if len(self._encoded) == 0:
            return np.zeros(len(half_lives))
        away = self._moment - self._log.at[self._encoded].max()
        return np.asarray(np.exp2(-away / half_lives))

    def matrix(self, items: Integers) -> Vectors:
        """Return the terms of items outside any visit, (items, columns of the shape)."""
        vectors = self._log.item_vectors[items]
        content, latest, closest, aversion = self._compared(vectors)
        transition, together = self._followed
        masses = self._masses[items]
        repeat = np.isin(items, self.seen)[:, None]
        parts = {
            "content": content,
            "latest": latest,
            "closest": closest,
            "transition": transition[items],
            "together": together[items],
            "trend": np.log1p(masses),
            "newness": (masses == 0).all(axis=1, keepdims=True),
            "repeat": repeat,
            "aversion": -aversion,
        }
        return np.concatenate([parts[term] for term in NAMES], axis=1, dtype=np.float32)

    def _compared(self, vectors: Vectors) -> tuple[Floats, ...]:
        """Return content, latest, closest and aversion, each (items, its columns)."""
        last, disliked, strengths = self._latest_vectors, *self._disliked
        decays = np.array(self._terms.shape.decays)
        sums = unit(decays[:, None] ** np.arange(len(last)) @ last)
        queries = np.concatenate([self._content[None], sums, last, disliked]).astype(np.float32)
        cosines = np.split(
            vectors @ queries.T, np.cumsum([1, len(sums), len(last)]).tolist(), axis=1
        )
        content, latest, each, avoided = cosines
        nothing = np.zeros((len(vectors), 1))
        closest = each.max(axis=1, keepdims=True) if len(last) else nothing
        aversion = np.concatenate([nothing, avoided * strengths], axis=1).max(axis=1, keepdims=True)
        return content, latest, closest, aversion

    @cached_property
    def _encoded(self) -> Integers:
        return np.asarray(self._history[self._log.has_vectors(self._history)])

    @cached_property
    def _content(self) -> Floats:
        """Return the vector whose product with a unit vector is the mix of the horizons."""
        log, events = self._log, self._encoded
        if len(events) == 0 or not log.horizons:
            return np.zeros(log.item_vectors.shape[1])
        half_lives = np.array([horizon.half_life_s for horizon in log.horizons])
        ages = log.at[events].max() - log.at[events]
        factors = log.weights[events] * np.exp2(-ages / half_lives[:, None])
        sums, masses = self._summed(events, factors), np.abs(factors).sum(axis=1)
        lengths = np.linalg.norm(sums, axis=1)
        pointing = lengths > NO_DIRECTION * masses
        away = np.exp2(-(self._moment - log.at[events].max()) / half_lives)
        shares = [horizon.weight for horizon in log.horizons] * pointing * masses * away
        if not shares.any():
            shares = pointing & (half_lives == half_lives.max())
        directions = sums / np.maximum(lengths, TINY)[:, None]
        return np.asarray(shares / max(shares.sum(), TINY) @ directions)

    def _summed(self, events: Integers, factors: Floats) -> Floats:
        """Return the sums (horizons, dims) of vectors times factors (horizons, events)."""
        sums = np.zeros((len(factors), self._log.item_vectors.shape[1]))
        for first in range(0, len(events), BLOCK):
            block = slice(first, first + BLOCK)
            sums += factors[:, block] @ self._log.vectors(events[block])
        return sums

    @cached_property
    def _latest_vectors(self) -> Vectors:
        """Return the vectors of the last liked events, latest first."""
        liked = self._encoded[self._log.weights[self._encoded] > 0]
        return self._log.vectors(liked[::-1][: self._terms.shape.latest_items])

    @cached_property
    def _disliked(self) -> tuple[Vectors, Floats]:
        """Return the vectors of the last disliked events, and the remaining weight of each."""
        bad = self._encoded[self._log.weights[self._encoded] < 0]
        bad = bad[::-1][: self._terms.shape.latest_items]
        longest = max((horizon.half_life_s for horizon in self._log.horizons), default=1.0)
        return self._log.vectors(bad), np.exp2(-(self._moment - self._log.at[bad]) / longest)

    @cached_property
    def _followed(self) -> tuple[Floats, Floats]:
        history, log = self._history, self._log
        chosen = history[log.chosen[history]]
        latest = log.items[chosen[::-1][: self._terms.shape.latest_items]]
        moment = self._terms.counted_at(self.event)
        return self._terms.followed(latest, moment, int(log.users[self.event]))
