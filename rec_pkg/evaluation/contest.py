"""
Runs the baselines on the cases of a plan.

Each baseline learns from the log once; recent popularity sees everything strictly before a case.
With `loo`, whose log is streamed, they learn again ten times. Decays and half-lives are chosen by
nDCG@10 on the last tenth of the log, never on a test case.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from rec_pkg.evaluation import baselines
from rec_pkg.evaluation.baselines import Material, RecentPopularity, sequences_of, weighed
from rec_pkg.evaluation.protocols import time_plan
from rec_pkg.progress import silent
from rec_pkg.ranking_metrics import CUT, NOBODY, SHOWN, Answers, accuracy
from rec_pkg.tuning.run import DECAYS, HALF_LIVES_S

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from rec_pkg.evaluation.baselines import ContentRanker, Scorer
    from rec_pkg.evaluation.data import Event
    from rec_pkg.evaluation.protocols import Case, Plan
    from rec_pkg.progress import OnProgress
    from rec_pkg.ranking_metrics import Floats, Integers

LEARNERS: Final[Mapping[str, Callable[[Material], Scorer]]] = {
    "content": baselines.content,
    "popularity": baselines.popularity,
    "item_knn": baselines.item_knn,
    "sequential_rules": baselines.sequential_rules,
    "ease": baselines.ease,
    "tfidf": baselines.tfidf,
}
RECENT: Final = "recent_popularity"
NAMES: Final = ("content", "popularity", RECENT, "item_knn", "sequential_rules", "ease", "tfidf")
USUAL: Final = 0.7
USUAL_HALF_LIFE_S: Final = 7 * 86_400.0
VALIDATED: Final = 500
REFITS: Final = 10


@dataclass(frozen=True, slots=True)
class Contest:
    """
    The catalogue, and whether a user's list may contain items that the user had before.

    Events of `disliking` kinds teach nothing and predict nothing, but mark an item as had.
    `content` replaces the model of that name.
    """

    places: Mapping[str, int]
    documents: Sequence[str]
    vectors: NDArray[np.float32]
    keep_seen: bool
    disliking: Collection[str] = ()
    content: ContentRanker | None = None

    def run(
        self, plan: Plan, on_progress: OnProgress = silent
    ) -> tuple[dict[str, Answers], dict[str, float]]:
        """Return the answers of each model, and its chosen decay or half-life (in seconds)."""
        chosen = self._choose(plan)
        answers: dict[str, Answers] = {}
        for number, name in enumerate(NAMES):
            on_progress("baselines", number, len(NAMES))
            if name == RECENT:
                answers[name] = self.recent_popularity(plan, chosen[name])
            elif name == "content" and self.content:
                answers[name] = self._answers(self.content, plan.cases, self.content.decay)
            else:
                answers[name] = self._learned(name, plan, chosen.get(name, USUAL))
        on_progress("baselines", len(NAMES), len(NAMES))
        return answers, chosen

    def _choose(self, plan: Plan) -> dict[str, float]:
        """Return the best parameter of each model on the last tenth of the log."""
        trial = time_plan(plan.log, keep_seen=self.keep_seen, disliking=self.disliking)
        trial = trial.sample(VALIDATED)
        chosen = {name: USUAL for name in NAMES if name != "popularity"}
        chosen[RECENT] = USUAL_HALF_LIFE_S
        if self.content:
            chosen["content"] = self.content.decay
        if not trial.cases:
            return chosen
        for name in chosen:
            if name == "content" and self.content:
                continue
            if name == RECENT:
                options = {s: self.recent_popularity(trial, s) for s in HALF_LIVES_S}
            else:
                scorer = LEARNERS[name](self._material(trial.log))
                options = {d: self._answers(scorer, trial.cases, d) for d in DECAYS}
            chosen[name] = max(options, key=lambda option: _ndcg(options[option]))
        return chosen

    def _learned(self, name: str, plan: Plan, decay: float) -> Answers:
        """Learn from the events before each part of the cases, and answer that part."""
        parts = min(REFITS, len(plan.cases)) if plan.protocol == "loo" else 1
        ends = np.linspace(0, len(plan.cases), parts + 1).astype(int).tolist()
        answered = []
        for first, last in pairwise(ends):
            known = [*plan.log, *plan.stream[: plan.cases[first].position if parts > 1 else 0]]
            scorer = LEARNERS[name](self._material(known))
            answered.append(self._answers(scorer, plan.cases[first:last], decay))
        return _joined(answered)

    def recent_popularity(self, plan: Plan, half_life_s: float) -> Answers:
        """Answer with the counts strictly before each case."""
        model = RecentPopularity(len(self.places), half_life_s)
        self._add(model, plan.log)
        done, answered = 0, []
        for case in plan.cases:
            self._add(model, plan.stream[done : case.position])
            done = case.position
            answered.append(self._answer(model.counts.copy(), case))
        return _stacked(answered)

    def _add(self, model: RecentPopularity, events: Sequence[Event]) -> None:
        named = [e for e in self._chosen(events) if e.item_id is not None]
        model.add(
            self._places(named),
            np.array([event.at.timestamp() for event in named], dtype=np.float64),
        )

    def _material(self, events: Sequence[Event]) -> Material:
        sequences = sequences_of(self._chosen(events), self.places)
        return Material(sequences, self.documents, self.vectors)

    def _answers(self, scorer: Scorer, cases: Sequence[Case], decay: float) -> Answers:
        def answer(case: Case) -> tuple[float, Integers]:
            history = self._places(self._chosen(case.history))
            return self._answer(scorer(*weighed(history, decay)), case)

        return _stacked([answer(case) for case in cases])

    def _chosen(self, events: Iterable[Event]) -> list[Event]:
        return [event for event in events if event.kind not in self.disliking]

    def _places(self, events: Iterable[Event]) -> Integers:
        named = [self.places[e.item_id] for e in events if e.item_id is not None]
        return np.array(named, dtype=np.int64)

    def _answer(self, scores: Floats, case: Case) -> tuple[float, Integers]:
        """Return the rank of the target, and the list."""
        scores = np.array(scores, dtype=np.float64)
        if not self.keep_seen:
            scores[self._places(case.history)] = -np.inf
        return rank(scores, self.places[case.target]), best(scores)


def rank(scores: Floats, target: int) -> float:
    """Return 1 + the number of items above the target + half of those tied with it."""
    own = scores[target]
    if own == -np.inf:
        return np.inf
    above, level = np.sum(scores > own), np.sum(scores == own) - 1
    return float(1 + above + level / 2)


def best(scores: Floats) -> Integers:
    """Return the places of the 20 highest scores, highest first; equal scores keep their order."""
    n = min(SHOWN, len(scores))
    limit = np.partition(scores, -n)[-n]
    able = np.flatnonzero((scores >= limit) & (scores > -np.inf))
    shown = able[np.argsort(-scores[able], kind="stable")][:n]
    return np.pad(shown, (0, SHOWN - len(shown)), constant_values=NOBODY)


def _ndcg(answers: Answers) -> float:
    return float(accuracy(answers.ranks)[f"ndcg@{CUT}"].mean())


def _stacked(answered: Sequence[tuple[float, Integers]]) -> Answers:
    ranks = np.array([place for place, _ in answered], dtype=np.float64)
    return Answers(ranks, np.array([shown for _, shown in answered]).reshape(-1, SHOWN))


def _joined(parts: Sequence[Answers]) -> Answers:
    return Answers(
        np.concatenate([part.ranks for part in parts]),
        np.concatenate([part.lists for part in parts]),
    )
