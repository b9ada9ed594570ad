"""Runs an evaluation, from folder to report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rec_pkg.database import conninfo
from rec_pkg.errors import BadInput
from rec_pkg.evaluation.baselines import ContentRanker
from rec_pkg.evaluation.contest import NAMES, Contest
from rec_pkg.evaluation.data import read_dataset
from rec_pkg.evaluation.protocols import make_plan
from rec_pkg.evaluation.replay import play
from rec_pkg.evaluation.report import Report, Result
from rec_pkg.evaluation.scratch import run_worker, scratch_database
from rec_pkg.evaluation.store import Store, read_ranker
from rec_pkg.evaluation.tuned import Tuned, calibrate, tune
from rec_pkg.progress import silent
from rec_pkg.ranking_metrics import accuracy, bootstrap, coverage, numbered, variety

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from rec_pkg.evaluation.data import Dataset
    from rec_pkg.evaluation.protocols import Plan, Protocol
    from rec_pkg.progress import OnProgress
    from rec_pkg.ranking_metrics import Answers, Figure, Floats
    from rec_pkg.settings import Settings

COLD_HISTORY: Final = 2
"""A user with at most this many events is cold."""


@dataclass(frozen=True, slots=True)
class Options:
    """
    The options of an evaluation.

    `protocol` None means `time` if there are events, else `rows`. `core` keeps users and items that
    have this many of the other (`time` and `loo`). `frozen` keeps the collaborative tables as they
    are after the log. `limit` draws this many cases, with `seed`. With `tune`, the vectors are
    calibrated on the catalogue and the ranker is tuned on the log first. With `oracle`, the best
    order of the candidates is another model. `ranker` names the row of `rec.rankers` in the
    configured database that makes the lists; None means the ranker of a new database.
    """

    protocol: Protocol | None = None
    core: int = 5
    keep_seen: bool = False
    frozen: bool = False
    limit: int | None = None
    seed: int = 0
    tune: bool = False
    oracle: bool = False
    ranker: str | None = None


def evaluate(
    settings: Settings,
    folder: Path,
    options: Options | None = None,
    on_progress: OnProgress = silent,
) -> Report:
    """
    Play the log of a data set through a scratch database and score its lists.

    Raises:
        BadInput: if the folder has no usable data set.
        DatabaseRefused: if the role may not create databases.
        Leak: if a list could have been made from data not known at the time of its question.
    """
    options = options or Options()
    started = perf_counter()
    dataset = read_dataset(folder)
    with scratch_database(settings, dataset, on_progress) as address, Store.open(address) as store:
        if options.ranker:
            store.take_ranker(read_ranker(conninfo(settings), options.ranker))
        kinds = store.kinds()
        _check_kinds(dataset, kinds)
        disliking = {kind for kind, weight in kinds.items() if weight < 0}
        plan = _plan(dataset, options, disliking)
        places = {item: place for place, item in enumerate(dataset.item_ids)}
        calibrated = options.tune and calibrate(address, on_progress)
        vectors = store.vectors(dataset.item_ids)
        store.load(plan.log)
        store.gather_statistics()
        run_worker(settings, address, store.pending, on_progress)
        found = _tuned(address, plan, options, on_progress)
        store.gather_statistics()
        content = found.content and ContentRanker(vectors, store.latest_items(), **found.content)
        answers, chosen = Contest(
            places, dataset.documents, vectors, options.keep_seen, disliking, content or None
        ).run(plan, on_progress)
        own = play(
            store,
            plan,
            places,
            keep_seen=options.keep_seen,
            frozen=options.frozen,
            oracle=options.oracle,
            on_progress=on_progress,
        )
        facts = {
            "encoder": store.encoder(),
            "calibrated": calibrated,
            "tuning": found.facts,
            "parameters": chosen,
            "seconds": round(perf_counter() - started, 1),
        }
    return Report(
        dataset=dataset.name,
        protocol=plan.protocol,
        n=len(plan.cases),
        models=_results(plan, own | {n: answers[n] for n in NAMES}, places, vectors),
        facts=_asked(dataset, plan, options) | facts,
    )


def _asked(dataset: Dataset, plan: Plan, options: Options) -> dict[str, Any]:
    """Return the options of the evaluation, and the numbers of what it covered."""
    return {
        "users": len({case.person for case in plan.cases}),
        "items": len(dataset.item_ids),
        "log_events": len(plan.log),
        "dropped_rows": dataset.dropped,
        "core": None if plan.protocol == "rows" else options.core,
        "keep_seen": options.keep_seen,
        "ranker": options.ranker,
        "frozen": options.frozen,
        "limit": options.limit,
        "seed": options.seed,
    }


def _tuned(address: str, plan: Plan, options: Options, on_progress: OnProgress) -> Tuned:
    if not options.tune:
        return Tuned({}, None)
    return tune(
        address, plan, keep_seen=options.keep_seen, seed=options.seed, on_progress=on_progress
    )


def _plan(dataset: Dataset, options: Options, disliking: Collection[str]) -> Plan:
    return make_plan(
        dataset,
        options.protocol or ("time" if dataset.events else "rows"),
        core=options.core,
        keep_seen=options.keep_seen,
        disliking=disliking,
    ).sample(options.limit, options.seed)


def _check_kinds(dataset: Dataset, kinds: Mapping[str, float]) -> None:
    if strange := sorted({event.kind for event in dataset.events} - kinds.keys()):
        known = ", ".join(sorted(kinds))
        raise BadInput(f"unknown kinds {', '.join(strange)}; the kinds are {known}")


def _results(
    plan: Plan,
    answers: Mapping[str, Answers],
    places: Mapping[str, int],
    vectors: NDArray[np.float32],
) -> dict[str, Result]:
    users = numbered([case.person for case in plan.cases])
    cold_items, cold_users = _cold_items(plan), _cold_users(plan)
    counts = _log_counts(plan, places)
    results = {}
    for name, answer in answers.items():
        right = accuracy(answer.ranks)
        values = right | variety(answer.lists, vectors.astype(np.float64), counts)
        results[name] = Result(
            figures=bootstrap(values, users),
            coverage=coverage(answer.lists, len(places)),
            cold_items=_part(right, users, cold_items),
            cold_users=_part(right, users, cold_users),
            n_cold_items=int(cold_items.sum()),
            n_cold_users=int(cold_users.sum()),
        )
    return results


def _part(
    values: Mapping[str, Floats], users: NDArray[np.int64], wanted: NDArray[np.bool_]
) -> dict[str, Figure]:
    return bootstrap({name: value[wanted] for name, value in values.items()}, users[wanted])


def _cold_items(plan: Plan) -> NDArray[np.bool_]:
    """Return which targets have no event before their case (n,)."""
    known = Counter(event.item_id for event in plan.log)
    cold, done = [], 0
    for case in plan.cases:
        known.update(event.item_id for event in plan.stream[done : case.position])
        done = case.position
        cold.append(case.target not in known)
    return np.array(cold, dtype=np.bool_)


def _cold_users(plan: Plan) -> NDArray[np.bool_]:
    return np.array([len(case.history) <= COLD_HISTORY for case in plan.cases], dtype=np.bool_)


def _log_counts(plan: Plan, places: Mapping[str, int]) -> Floats:
    named = [places[event.item_id] for event in plan.log if event.item_id is not None]
    return np.bincount(np.array(named, dtype=np.int64), minlength=len(places)).astype(np.float64)
