"""
Plays a plan through the real tables.

Events are written by `rec.track`, folded by `rec.apply_pending` and merged by `rec.merge_deltas`;
the lists come from `rec.recommend` as of the moment of the case.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import numpy as np

from rec_pkg.errors import Leak
from rec_pkg.evaluation.protocols import TEST_USERS
from rec_pkg.progress import silent
from rec_pkg.ranking_metrics import NOBODY, SHOWN, Answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rec_pkg.evaluation.protocols import Case, Plan
    from rec_pkg.evaluation.store import Store
    from rec_pkg.progress import OnProgress
    from rec_pkg.ranking_metrics import Flags, Floats, Integers

STEP: Final = "rec.recommend"


def guard(store: Store, case: Case, *, fresh: bool) -> None:
    """
    Check that the tables hold only what may be known at the moment of a case.

    They must hold exactly the user's history, and nothing of any user at or after the moment. With
    `fresh`, they must hold nothing of the other cases either.

    Raises:
        Leak: if they hold anything else.
    """
    seen = store.visible(case.user_id)
    if seen.items != [event.item_id for event in case.history]:
        raise Leak(f"{case.user_id} has other events than the history of the case")
    for moment in (seen.latest, seen.folded_until):
        if moment is not None and moment >= case.moment:
            raise Leak(f"{moment} is known at {case.moment}")
    if fresh and store.events_of(TEST_USERS) != len(case.history):
        raise Leak("events of another case are known")


def play(  # noqa: PLR0913  # two ways to ask, and what to ask
    store: Store,
    plan: Plan,
    places: Mapping[str, int],
    *,
    keep_seen: bool,
    frozen: bool,
    oracle: bool = False,
    on_progress: OnProgress = silent,
) -> dict[str, Answers]:
    """
    Return the product's lists (rec) for the cases of a plan whose log is loaded and folded.

    With `oracle`, also return an oracle's lists of the same candidates: the target comes first if
    it is one of them. No order of the candidates can be better.

    Args:
        store: the scratch database.
        plan: its cases are ordered by their moments.
        places: of the items, by their ids.
        keep_seen: whether lists may contain items that the user had before.
        frozen: keep popularity and transitions as they are after the log.
        oracle: also query the candidates of each list, which takes nearly as long.
        on_progress: called after each case.

    Raises:
        Leak: if the tables hold what must not be known yet.
    """
    lists = np.full((len(plan.cases), SHOWN), NOBODY, dtype=np.int64)
    able = np.zeros(len(plan.cases), dtype=np.bool_)
    done = 0
    for number, case in enumerate(plan.cases):
        if case.position > done:
            store.track(plan.stream[done : case.position])
            done = case.position
            store.fold()
            if not frozen:
                store.merge()
        with store.taken_back() if plan.fresh else nullcontext():
            if plan.fresh:
                store.track(case.history)
            guard(store, case, fresh=plan.fresh)
            question = (case.user_id, SHOWN, case.moment)
            items = store.recommend(*question, exclude_seen=not keep_seen)
            able[number] = oracle and case.target in store.candidates(
                *question, exclude_seen=not keep_seen
            )
        lists[number, : len(items)] = [places[item] for item in items]
        on_progress(STEP, number + 1, len(plan.cases))
    targets = np.array([places[case.target] for case in plan.cases], dtype=np.int64)
    answers = {"rec": Answers(_ranks(lists, targets), lists)}
    if oracle:
        best = _with_first(lists, targets, able)
        answers["oracle"] = Answers(_ranks(best, targets), best)
    return answers


def _with_first(lists: Integers, targets: Integers, able: Flags) -> Integers:
    """Return lists (n, 20) that start with the targets (n,) wherever `able` is true."""
    best = lists.copy()
    for place in np.flatnonzero(able):
        others = lists[place][lists[place] != targets[place]]
        best[place] = [targets[place], *others][:SHOWN]
    return best


def _ranks(lists: Integers, targets: Integers) -> Floats:
    """Return the rank of each target in its list, infinity if it is not there."""
    hits = lists == targets[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
