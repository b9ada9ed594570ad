"""An operator's preparation for going live: calibrate the vectors and tune the ranker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from pgvector.psycopg import register_vector

from rec_pkg import tuning
from rec_pkg.errors import BadInput, CalibrationRefused
from rec_pkg.evaluation.protocols import FIRST_TARGET_AT
from rec_pkg.operations import calibrating
from rec_pkg.tuning.search import Choice, Search

if TYPE_CHECKING:
    from rec_pkg.evaluation.protocols import Plan
    from rec_pkg.progress import OnProgress

OF_CONTENT = ("latest", "closest", "repeat")


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result on the log; `content` holds decay and weights of the content terms alone."""

    facts: dict[str, Any]
    content: dict[str, float] | None


def calibrate(conninfo: str, on_progress: OnProgress) -> bool:
    """Calibrate the vectors on the catalogue; return False if it is too small."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        try:
            calibrating.calibrate(connection, on_progress=on_progress)
        except (CalibrationRefused, BadInput):
            return False
    return True


def tune(
    conninfo: str, plan: Plan, *, keep_seen: bool, seed: int, on_progress: OnProgress
) -> Tuned:
    """Tune the ranker on a plan's log, which is loaded and folded, as `pgrec tune` does."""
    options = tuning.Options(
        keep_seen=keep_seen,
        since=FIRST_TARGET_AT if plan.fresh else None,
        fresh=plan.fresh,
        seed=seed,
    )
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_vector(connection)
        store = tuning.Store(connection)
        try:
            replay = tuning.prepare(store, options)
        except BadInput as error:
            return Tuned({"adopted": False, "why": str(error)}, None)
        found = tuning.fit(replay, options, on_progress)
        store.record(options.ranker, found.after, found.figures, adopt=found.better)
    facts = {"adopted": found.better, "settings": found.after, "figures": found.figures}
    return Tuned(facts, _content(replay, options, on_progress))


def _content(
    replay: tuning.Replay, options: tuning.Options, on_progress: OnProgress
) -> dict[str, float]:
    """Fit the content terms alone on the same examples."""
    search = Search(replay.learning, options.seed, on_progress)
    terms = tuple(term for term in OF_CONTENT if term in search.telling)
    choice, weights = search.best(Choice(terms, 0.7, 0.0))
    columns = replay.learning.terms.shape.places(choice.terms, choice.decay, choice.half_life_s)
    fitted = dict(zip(choice.terms, weights[columns].tolist(), strict=True))
    return {term: fitted.get(term, 0.0) for term in OF_CONTENT} | {"decay": choice.decay}
