"""
Fits the ranker of a deployment to its own log.

The replay is leak-free: each example is ranked among up to 10,000 items of the catalogue, using
only what was known strictly before it. Weights, decay and half-life are fitted on the examples of
most users and judged on those of the others, which the fit never sees. New settings are written
only if they rank the others better by more than chance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rec_pkg.errors import BadInput
from rec_pkg.progress import silent
from rec_pkg.ranking_metrics import accuracy, bootstrap
from rec_pkg.terms import NAMES
from rec_pkg.tuning.examples import able_events, examples, split
from rec_pkg.tuning.log import NONE
from rec_pkg.tuning.search import CONTENT, Choice, Search, Task, lifts
from rec_pkg.tuning.terms import Shape, Terms

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from rec_pkg.progress import OnProgress
    from rec_pkg.tuning.log import Floats, Integers, Log
    from rec_pkg.tuning.store import Settings, Store

EVENTS: Final = 1_000_000
EXAMPLES: Final = 5000
COMPETING: Final = 10_000
JUDGING: Final = 0.3
FEWEST_USERS: Final = 30
MOST: Final = 100.0
"""The greatest weight that the settings allow."""
DECAYS: Final = (0.3, 0.5, 0.7, 0.9)
DAY_S: Final = 86_400.0
HALF_LIVES_S: Final = tuple(days * DAY_S for days in (0.25, 1, 7, 30, 180, 1000))
SESSION_HALF_LIVES_S: Final = (DAY_S / 8, DAY_S)


@dataclass(frozen=True, slots=True)
class Options:
    """
    The options of tuning.

    With `keep_seen`, lists may contain items that a user has seen, and the weight of having seen
    one is fitted. Examples are events after `since`, by default the middle of the log. `fresh`
    treats each user as if they were not in the log, and uses all other users' events, whatever
    their time. `seed` seeds every draw. `ranker` is the row of `rec.rankers` to tune.
    """

    keep_seen: bool = False
    since: datetime | None = None
    fresh: bool = False
    seed: int = 0
    ranker: str = "default"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The settings before and after, and the accuracy of both on the held-out users."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    figures: Mapping[str, Any]
    better: bool


@dataclass(frozen=True, slots=True)
class Replay:
    """The examples to learn from, and those to judge by."""

    settings: Settings
    learning: Task
    judging: Task


def prepare(store: Store, options: Options) -> Replay:
    """
    Read the log and the required vectors.

    Raises:
        BadInput: if too few users have earlier events and a later choice.
    """
    settings = store.settings(options.ranker)
    log, available = store.log(EVENTS)
    since = options.since.timestamp() if options.since else _half_way(log)
    able = able_events(log, available, since=since, keep_seen=options.keep_seen)
    events = examples(log, able, EXAMPLES, options.seed)
    users = len(np.unique(log.users[events]))
    if users < FEWEST_USERS:
        raise BadInput(
            f"tuning needs {FEWEST_USERS} users who went on to another available item; the log has "
            f"{users}"
        )
    competing = np.random.default_rng(options.seed).permutation(available)[:COMPETING]
    _fill_vectors(store, log, events, competing)
    terms = Terms(log, _shape(settings, fresh=options.fresh))
    learning, judging = (
        Task(terms, part, competing, options.keep_seen)
        for part in split(log, events, JUDGING, options.seed)
    )
    return Replay(settings, learning, judging)


def fit(replay: Replay, options: Options, on_progress: OnProgress = silent) -> Judgement:
    """Return the settings fitted to the log and the current ones, with the accuracy of both."""
    now, shape = replay.settings, replay.learning.terms.shape
    search = Search(replay.learning, options.seed, on_progress)
    present = Choice(
        NAMES,
        float(now.tunable["latest_decay"]),
        now.half_life_s,
        now.tunable["session_weight"],
        now.session_half_life_s,
    )
    choice, weights = search.best(replace(present, terms=search.telling))
    changed = _as_settings(choice, weights, shape)
    if changed["trend_weight"] > 0 and choice.half_life_s != now.half_life_s:
        changed["popularity_half_life"] = f"{choice.half_life_s:.0f} seconds"
    if choice.session > 0 and choice.session_half_life_s != now.session_half_life_s:
        changed["session_half_life"] = f"{choice.session_half_life_s:.0f} seconds"
    changed |= _in_proportion(now.tunable, changed, set(NAMES) - set(search.telling))
    after = dict(now.tunable) | changed
    old = _weights(now.tunable, present, shape)
    new = _weights(after, replace(choice, terms=NAMES), shape)
    weights = np.stack([old, new], axis=1)
    figures, better = _judged(replay.judging, weights, (present, choice), on_progress)
    return Judgement(now.tunable, after, figures, better)


def _half_way(log: Log) -> float:
    """Return the moment in the middle of the log; before it most items are new."""
    return float(np.quantile(log.at, 0.5)) if len(log.at) else 0.0


def _fill_vectors(store: Store, log: Log, events: Integers, competing: Integers) -> None:
    """Read the vectors of the competing items and of all events of the examples' users."""
    theirs = np.isin(log.users, log.users[events])
    items = np.unique(np.concatenate([competing, log.items[theirs]]))
    texts = np.unique(log.texts[theirs])
    store.fill_vectors(log, items[items != NONE], texts[texts != NONE])


def _shape(settings: Settings, *, fresh: bool) -> Shape:
    return Shape(
        decays=tuple(sorted({*DECAYS, float(settings.tunable["latest_decay"])})),
        half_lives_s=tuple(sorted({*HALF_LIVES_S, settings.half_life_s})),
        latest_items=settings.latest_items,
        window=settings.window,
        prior=settings.prior,
        transition_half_life_s=settings.transition_half_life_s,
        session_half_lives_s=tuple(sorted({*SESSION_HALF_LIVES_S, settings.session_half_life_s})),
        fresh=fresh,
    )


def _weights(tunable: Mapping[str, Any], choice: Choice, shape: Shape) -> Floats:
    """Return the weights (columns,) that settings give to the terms of a choice."""
    weights = np.zeros(len(shape.columns))
    columns = shape.places(choice.terms, choice.decay, choice.half_life_s)
    weights[columns] = [float(tunable[f"{term}_weight"]) for term in choice.terms]
    return weights


def _as_settings(choice: Choice, weights: Floats, shape: Shape) -> dict[str, Any]:
    """Return a fitted ranker as settings; a term that was left out has the weight 0."""
    columns = shape.places(choice.terms, choice.decay, choice.half_life_s)
    fitted = dict(zip(choice.terms, weights[columns].tolist(), strict=True))
    settings: dict[str, Any] = {
        f"{term}_weight": round(float(np.clip(fitted.get(term, 0.0), -MOST, MOST)), 4)
        for term in NAMES
    }
    return settings | {"latest_decay": choice.decay, "session_weight": choice.session}


def _in_proportion(
    before: Mapping[str, Any], after: Mapping[str, Any], silent: Collection[str]
) -> dict[str, float]:
    """Return weights for terms the log says nothing about: the same ratio to content as now."""
    old, new = (sum(float(some[f"{term}_weight"]) for term in CONTENT) for some in (before, after))
    scale = new / old if old > 0 and new > 0 else 1.0
    return {
        f"{term}_weight": round(float(np.clip(scale * before[f"{term}_weight"], -MOST, MOST)), 4)
        for term in silent
    }


def _judged(
    task: Task, weights: Floats, choices: tuple[Choice, Choice], on_progress: OnProgress
) -> tuple[dict[str, Any], bool]:
    """
    Return the figures of the old ranker, the new one, and the gain, and whether the gain is real.

    `weights` (columns, 2) are those of both rankers.
    """
    shape = task.terms.shape
    ranks = task.ranks(lambda _, presence: weights * lifts(shape, choices, presence), on_progress)
    before, after = accuracy(ranks[:, 0]), accuracy(ranks[:, 1])
    gain = {name: after[name] - before[name] for name in before}
    figures = {
        name: bootstrap(values, task.users)
        for name, values in (("before", before), ("after", after), ("gain", gain))
    }
    facts: dict[str, Any] = {
        name: {metric: asdict(figure) for metric, figure in part.items()}
        for name, part in figures.items()
    }
    facts |= {"examples": len(task.events), "users": len(np.unique(task.users))}
    return facts, figures["gain"]["ndcg@10"].low > 0
