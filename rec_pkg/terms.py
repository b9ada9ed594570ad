"""The terms of a score, declared once for Python; `sql/ranking/terms.sql` computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Term:
    """
    A term of an item's score.

    Args:
        name: its column in `rec.score` and `rec.recommend`.
        meaning: its description on the command line.
        of_events: whether `rec.explain` splits it into a share of each event.
        by_decay: whether it is computed with `latest_decay`.
        by_half_life: whether it is computed with `popularity_half_life`.
        lift: the fraction of `session_weight` by which it grows right after an event.
        sign: 1 if the score adds it, -1 if the score subtracts it.
    """

    name: str
    meaning: str
    of_events: bool = False
    by_decay: bool = False
    by_half_life: bool = False
    lift: float = 0.0
    sign: int = 1

    @property
    def weight(self) -> str:
        """Return the column of `rec.rankers` that holds the term's weight."""
        return f"{self.name}_weight"


TERMS: Final = (
    Term("content", "closeness to the user's interests", of_events=True),
    Term("latest", "closeness to the last events", of_events=True, by_decay=True),
    Term("closest", "closeness to the nearest of the last events", of_events=True),
    Term("transition", "how often users went on to it", by_decay=True, lift=1.0),
    Term("together", "how often users had it near the last items", by_decay=True, lift=1.0),
    Term("trend", "popularity that decays", by_half_life=True, lift=-1.0),
    Term("newness", "no event supports the item yet", lift=-1.0),
    Term("repeat", "the user has seen the item"),
    Term("aversion", "closeness to what the user disliked", sign=-1),
)
NAMES: Final = tuple(term.name for term in TERMS)


def told() -> str:
    """Return in one sentence what the score adds and subtracts, for the command line."""
    parts = {sign: [f"{t.name} ({t.meaning})" for t in TERMS if t.sign == sign] for sign in (1, -1)}
    return (
        f"The score adds {', '.join(parts[1])} and subtracts {', '.join(parts[-1])}, "
        "each multiplied by its weight in the ranker."
    )
