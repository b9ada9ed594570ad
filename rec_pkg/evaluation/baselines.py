"""
Simple models that rank the whole catalogue on the same cases.

All except popularity score an item by a sum over the user's history, in which the latest event has
weight 1, the one before it `decay`, then `decay`^2, and so on: item-kNN (cosine of binary columns;
Sarwar et al., WWW 2001), sequential rules (directed, 1 / distance; Ludewig and Jannach, UMUAI
2018), EASE (Steck, WWW 2019), and the centroid of TF-IDF or of content vectors (Rocchio).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from rec_pkg.evaluation.data import Event
    from rec_pkg.ranking_metrics import Floats, Integers

    Scorer = Callable[[Integers, Floats], Floats]
    """History (h,) and weights (h,) in, scores (items,) out."""

WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
WINDOW: Final = 10
RIDGE: Final = 100.0
MOST_ITEMS: Final = 8000
"""EASE inverts a square matrix over items with events; beyond this many, the most popular ones."""
LONGEST: Final = 200
"""Number of a history's events that count; at a decay of 0.9 the next one would add 1e-9."""
FARTHEST: Final = 100.0
"""Half-lives after which decayed counts are rescaled, long before they overflow."""


@dataclass(frozen=True, slots=True)
class Material:
    """
    The data that a model may learn from.

    `sequences` holds the items of each user, oldest first; `documents` holds a text per item;
    `vectors` (items, dims) are unit vectors, or zeros where a vector is missing.
    """

    sequences: Sequence[Integers]
    documents: Sequence[str]
    vectors: NDArray[np.float32]

    @property
    def n_items(self) -> int:
        """Return the size of the catalogue."""
        return len(self.documents)


def sequences_of(events: Iterable[Event], places: Mapping[str, int]) -> list[Integers]:
    """Return the items of each user in the order of the events."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.item_id is not None:
            found[event.user_id].append(places[event.item_id])
    return [np.array(items, dtype=np.int64) for items in found.values()]


def counts_of(sequences: Sequence[Integers], n_items: int) -> Floats:
    """Return the number of events of each item (items,)."""
    return np.bincount(_joined(sequences), minlength=n_items).astype(np.float64)


def popularity(material: Material) -> Scorer:
    """Score by the number of events."""
    counts = counts_of(material.sequences, material.n_items)
    return lambda _history, _weights: counts


def item_knn(material: Material) -> Scorer:
    """Score by the cosine between the users of two items; the same item, by returning users."""
    times = _interactions(material)
    users, again = times.sign(), np.asarray((times > 1).sum(axis=0)).ravel()
    together = users.T @ users
    popular = together.diagonal()
    scale = sparse.diags_array(1 / np.sqrt(np.maximum(popular, 1)))
    return _by_rows((scale @ (together + sparse.diags_array(again - popular)) @ scale).tocsr())


def sequential_rules(material: Material) -> Scorer:
    """Score by how often and how soon users went from one item to another, or came back."""
    steps: dict[tuple[int, int], float] = defaultdict(float)
    for items in material.sequences:
        listed = items.tolist()
        for place, item in enumerate(listed):
            for distance, later in enumerate(listed[place + 1 : place + 1 + WINDOW], 1):
                steps[item, later] += 1 / distance
    rows, columns = np.array(list(steps), dtype=np.int64).reshape(-1, 2).T
    shape = (material.n_items, material.n_items)
    return _by_rows(sparse.csr_array((list(steps.values()), (rows, columns)), shape=shape))


def ease(material: Material) -> Scorer:
    """Score by the linear auto-encoder whose diagonal is 0, in closed form."""
    users = _interactions(material).sign()
    popular = np.asarray(users.sum(axis=0)).ravel()
    active = np.sort(np.argsort(-popular, kind="stable")[: min(MOST_ITEMS, (popular > 0).sum())])
    chosen = users[:, active]
    gram = (chosen.T @ chosen).toarray()
    inverse = np.linalg.inv(gram + RIDGE * np.eye(len(active)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    where = np.full(material.n_items, -1)
    where[active] = np.arange(len(active))

    def score(history: Integers, decays: Floats) -> Floats:
        known = where[history] >= 0
        scores = np.zeros(material.n_items)
        scores[active] = decays[known] @ weights[where[history[known]]]
        return scores

    return score


def tfidf(material: Material) -> Scorer:
    """Score by the cosine to the centroid of the history's TF-IDF vectors."""
    return _by_centroid(tfidf_vectors(material.documents))


def content(material: Material) -> Scorer:
    """Score by the cosine to the centroid of the history's content vectors."""
    return _by_centroid(material.vectors)


@dataclass(frozen=True, slots=True)
class ContentRanker:
    """
    A ranker fitted to a log that uses content vectors only.

    Its terms are the cosine to the centroid of the last events, the greatest cosine to any of them,
    and whether the item is in the history, each with a weight.
    """

    vectors: NDArray[np.float32]
    n_latest: int
    decay: float
    latest: float
    closest: float
    repeat: float

    def __call__(self, history: Integers, weights: Floats) -> Floats:
        """Score all items; `weights` of the history follow from `decay`."""
        del weights
        if len(history) == 0:
            return np.zeros(len(self.vectors))
        recent, decays = weighed(history[-self.n_latest :], self.decay)
        each = self.vectors @ self.vectors[recent].T
        centroid = _by_centroid(self.vectors)(recent, decays)
        scores = self.latest * centroid + self.closest * each.max(axis=1)
        scores[history] += self.repeat
        return np.asarray(scores, dtype=np.float64)


def tfidf_vectors(documents: Sequence[str]) -> Any:  # noqa: ANN401  # scipy has no types
    """Return unit rows (documents, words): 1 + log tf, times log(n / df) + 1, as a sparse array."""
    counted = [Counter(WORD.findall(document.lower())) for document in documents]
    words = {word: place for place, word in enumerate(sorted({w for c in counted for w in c}))}
    rows = np.repeat(np.arange(len(counted)), [len(count) for count in counted])
    columns = np.array([words[word] for count in counted for word in count], dtype=np.int64)
    often = np.array([n for count in counted for n in count.values()], dtype=np.float64)
    rarity = np.log(len(documents) / np.bincount(columns, minlength=len(words))) + 1
    values = (1 + np.log(often)) * rarity[columns]
    lengths = np.sqrt(np.bincount(rows, values**2, minlength=len(documents)))
    shape = (len(documents), len(words))
    return sparse.csr_array((values / lengths[rows], (rows, columns)), shape=shape)


def weighed(history: Integers, decay: float) -> tuple[Integers, Floats]:
    """Return the last events, oldest first, and their weights; the latest has weight 1."""
    recent = history[-LONGEST:]
    return recent, decay ** np.arange(len(recent) - 1, -1, -1, dtype=np.float64)


class RecentPopularity:
    """Counts of events that halve every `half_life_s` seconds, up to a common factor."""

    def __init__(self, n_items: int, half_life_s: float) -> None:
        self.counts = np.zeros(n_items)
        self._half_life = half_life_s
        self._unit_at: float | None = None

    def add(self, places: Integers, times: Floats) -> None:
        """Add events (n,) at epoch seconds (n,), which must not decrease from call to call."""
        for place, at in zip(places.tolist(), times.tolist(), strict=True):
            age = (at - self._unit_at) / self._half_life if self._unit_at is not None else 0.0
            if self._unit_at is None or age > FARTHEST:
                self.counts *= 2.0 ** -min(age, 1000.0)
                self._unit_at, age = at, 0.0
            self.counts[place] += 2.0**age


def _interactions(material: Material) -> Any:  # noqa: ANN401  # scipy has no types
    """Return a matrix of users by items: how often a user had an item."""
    sizes = [len(items) for items in material.sequences]
    rows = np.repeat(np.arange(len(sizes)), sizes)
    columns = _joined(material.sequences)
    shape = (len(sizes), material.n_items)
    return sparse.coo_array((np.ones(len(columns)), (rows, columns)), shape=shape).tocsr()


def _joined(sequences: Sequence[Integers]) -> Integers:
    return np.concatenate([np.zeros(0, dtype=np.int64), *sequences])


def _by_rows(matrix: Any) -> Scorer:  # noqa: ANN401  # scipy has no types
    return lambda history, weights: np.asarray(matrix[history].T @ weights)


def _by_centroid(vectors: Any) -> Scorer:  # noqa: ANN401  # scipy has no types
    def score(history: Integers, weights: Floats) -> Floats:
        centroid = vectors[history].T @ weights
        unit = centroid / max(np.linalg.norm(centroid), 1e-12)
        return np.asarray(vectors @ unit.astype(vectors.dtype))

    return score
