"""The event log of a deployment as arrays, oldest event first."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Vectors = NDArray[np.float32]
    Flags = NDArray[np.bool_]

NONE: Final = -1
"""Marks an event without an item, or without a text."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """A row of `rec.horizons`; the half-life in seconds."""

    half_life_s: float
    weight: float


@dataclass(frozen=True, eq=False)
class Log:
    """
    n events of numbered users on numbered items, in the order in which they occurred.

    `at` holds epoch seconds; `weights` come from kind and value, `kind_weights` from the kind
    alone; `seen` tells which events mark an item as seen. `item_vectors` (items, dims) and
    `text_vectors` (texts, dims) are unit vectors, or zeros where a vector is missing.
    """

    users: Integers
    items: Integers
    texts: Integers
    weights: Floats
    kind_weights: Floats
    seen: Flags
    at: Floats
    item_vectors: Vectors
    text_vectors: Vectors
    horizons: tuple[Horizon, ...] = field(default=())

    @property
    def n_items(self) -> int:
        """Return the size of the catalogue."""
        return len(self.item_vectors)

    @cached_property
    def _by_user(self) -> tuple[Integers, Integers]:
        """Return the places of the events grouped by user, and where each user begins."""
        order = np.argsort(self.users, kind="stable")
        n_users = int(self.users.max(initial=NONE)) + 1
        return order, np.searchsorted(self.users[order], np.arange(n_users + 1))

    @cached_property
    def chosen(self) -> Flags:
        """Return which events are of a kind that supports an item, whatever their value."""
        return np.asarray((self.items != NONE) & (self.kind_weights > 0))

    def of_user(self, user: int) -> Integers:
        """Return the places of a user's events, oldest first."""
        order, starts = self._by_user
        return np.asarray(order[starts[user] : starts[user + 1]])

    def before(self, event: int) -> Integers:
        """Return the places of the same user's events strictly before this one, oldest first."""
        own = self.of_user(int(self.users[event]))
        return np.asarray(own[self.at[own] < self.at[event]])

    def vectors(self, events: Integers) -> Vectors:
        """Return the vectors (events, dims) of events: item, text, or the unit vector between."""
        summed = _rows(self.item_vectors, self.items[events])
        summed = summed + _rows(self.text_vectors, self.texts[events])
        return unit(summed)

    def has_vectors(self, events: Integers) -> Flags:
        """Return which events have all vectors of their item and text."""
        found = (self.items[events] != NONE) | (self.texts[events] != NONE)
        for places, filled in (
            (self.items[events], self._filled[0]),
            (self.texts[events], self._filled[1]),
        ):
            named = places != NONE
            found[named] &= filled[places[named]]
        return np.asarray(found)

    @cached_property
    def _filled(self) -> tuple[Flags, Flags]:
        """Return which items and texts have a vector, as of the first call."""
        items, texts = (v.any(axis=1) for v in (self.item_vectors, self.text_vectors))
        return np.asarray(items), np.asarray(texts)


def unit(vectors: Vectors) -> Vectors:
    """Return vectors (n, dims) scaled to length 1; a zero vector stays as it is."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


def _rows(vectors: Vectors, places: Integers) -> Vectors:
    named = places != NONE
    rows = np.zeros((len(places), vectors.shape[1]), dtype=np.float32)
    rows[named] = vectors[places[named]]
    return rows
