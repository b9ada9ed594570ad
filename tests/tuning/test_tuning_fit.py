"""What tuning makes of a log: the weights of greatest likelihood, and the form that ranks best."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rec_pkg.terms import NAMES as TERMS
from rec_pkg.tuning.examples import able_events, examples, split
from rec_pkg.tuning.log import NONE, Horizon, Log, unit
from rec_pkg.tuning.logit import Sample, fit
from rec_pkg.tuning.search import CONTENT, Choice, Search, Task, ndcg, weights_of, with_fewer_terms
from rec_pkg.tuning.terms import Shape, Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
N_ITEMS = 60
SHAPE = Shape(decays=(0.7,), half_lives_s=(DAY_S, 30 * DAY_S))
FIRST = Choice(TERMS, 0.7, DAY_S)


# Weights


def choices(weights: Sequence[float], n: int = 4000, seed: int = 0) -> Sample:
    """Choices among 20 items whose worth is weights @ terms plus Gumbel noise, the chosen first."""
    generator = np.random.default_rng(seed)
    terms = generator.normal(size=(n, 20, len(weights))) * [
        1 + place for place in range(len(weights))
    ]
    worth = terms @ np.array(weights) + generator.gumbel(size=(n, 20))
    best = worth.argmax(axis=1)
    rows = np.arange(n)
    terms[rows, 0], terms[rows, best] = terms[rows, best], terms[rows, 0].copy()
    return Sample(
        terms.astype(np.float32), np.ones((n, 20), dtype=np.bool_), np.ones(n), np.zeros(n)
    )


def test_the_weights_by_which_people_chose_are_found() -> None:
    sample = choices([1.5, 0.5, 0, -0.4])

    assert fit(sample, range(4), free={3}) == pytest.approx([1.5, 0.5, 0, -0.4], abs=0.08)
    assert fit(sample, [1, 0, 3], free={3}) == pytest.approx([0.5, 1.5, -0.4], abs=0.08)


def test_only_a_free_weight_is_negative() -> None:
    sample = choices([1, -0.5, -0.3])

    weights = fit(sample, range(3))

    assert weights[0] > 0.5
    assert weights[1:].tolist() == [0, 0]
    assert fit(sample, range(3), free={2})[2] == pytest.approx(-0.3, abs=0.1)


def test_what_would_turn_positive_without_a_negative_one_stays() -> None:
    """Two columns say nearly the same; one alone is worth something."""
    sample = choices([1.0])
    noise = np.random.default_rng(1).normal(size=sample.terms.shape[:2])
    good = sample.terms[:, :, 0]
    sample = replace(sample, terms=np.stack([good, good + 0.1 * noise], axis=2).astype(np.float32))

    weights = fit(sample, range(2))

    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=0.1)


def test_data_that_a_term_separates_give_finite_weights() -> None:
    terms = np.zeros((500, 20, 2), dtype=np.float32)
    terms[:, 0, 0] = 1
    able = np.ones((500, 20), dtype=np.bool_)
    sample = Sample(terms, able, np.ones(500), np.zeros(500))

    weights = fit(sample, range(2))

    assert np.isfinite(weights).all()
    assert 1 < weights[0] < 100
    assert weights[1] == 0


def test_what_cannot_be_chosen_teaches_nothing() -> None:
    sample = choices([1, 0.5])
    with_more = np.concatenate([sample.terms, np.full((4000, 5, 2), 5, dtype=np.float32)], axis=1)
    possible = np.concatenate([sample.possible, np.zeros((4000, 5), dtype=np.bool_)], axis=1)
    shown = replace(sample, terms=with_more, possible=possible)

    assert fit(shown, range(2)) == pytest.approx(fit(sample, range(2)), rel=0.02)


def test_a_choice_counts_by_its_weight() -> None:
    usual, reverse = choices([1], 2000), choices([-1], 2000, seed=1)
    sample = Sample(
        np.concatenate([usual.terms, reverse.terms]),
        np.concatenate([usual.possible, reverse.possible]),
        np.repeat([1.0, 0.0], 2000),
        np.zeros((4000, 1)),
    )

    assert fit(sample, [0]) == pytest.approx(fit(usual, [0]), rel=0.01)
    assert abs(fit(replace(sample, weights=np.ones(4000)), [0], free={0})[0]) < 0.1


def test_what_a_visit_lifts_is_weighed_as_lifted() -> None:
    """The first term counts double for half of the choices, and the second not at all."""
    sample = choices([1, 1])
    lift = np.ones((4000, 2))
    lift[::2] = [2, 0]
    lifted = choices([1, 0]).terms
    mixed = np.where(np.arange(4000)[:, None, None] % 2, sample.terms, lifted)
    mixed[::2, :, 0] /= 2

    assert fit(replace(sample, terms=mixed), range(2), lift=lift) == pytest.approx([1, 1], abs=0.08)
    assert fit(replace(sample, terms=mixed), range(2)) != pytest.approx([1, 1], abs=0.2)


# Examples


def as_log(
    users: Sequence[int], items: Sequence[int], vectors: NDArray[np.float32] | None = None
) -> Log:
    """Clicks an hour apart, the items unrelated in content unless vectors are given."""
    n = len(users)
    if vectors is None:
        vectors = np.eye(N_ITEMS, dtype=np.float32)
    return Log(
        users=np.array(users, dtype=np.int64),
        items=np.array(items, dtype=np.int64),
        texts=np.full(n, NONE),
        weights=np.ones(n),
        kind_weights=np.ones(n),
        seen=np.ones(n, dtype=np.bool_),
        at=np.arange(n, dtype=np.float64) * HOUR_S,
        item_vectors=vectors,
        text_vectors=np.zeros((0, vectors.shape[1]), dtype=np.float32),
        horizons=(Horizon(2 * HOUR_S, 0.5), Horizon(30 * DAY_S, 0.5)),
    )


def test_an_example_is_a_later_choice_of_something_new_that_is_there() -> None:
    log = as_log([0, 0, 1, 0, 0, 0], [1, 2, 2, 1, 9, 3])
    log.kind_weights[5] = -1

    def places(**options: float) -> list[int]:
        return np.flatnonzero(able_events(log, np.arange(5), **options)).tolist()  # type: ignore[arg-type]

    assert places() == [1]
    assert places(keep_seen=True) == [1, 3]
    assert places(keep_seen=True, since=3 * HOUR_S) == [3]


def test_the_latest_of_many_users_are_the_examples() -> None:
    log = as_log([0] * 30 + [1] * 3 + [2] * 2, [0] * 35)
    able = np.ones(35, dtype=np.bool_)

    assert examples(log, able, 3, seed=0).tolist() == [29, 32, 34]
    assert examples(log, able, 8, seed=0).tolist() == [27, 28, 29, *range(30, 35)]
    assert len(examples(log, able, 100, seed=0)) == 35


def test_no_user_is_both_learnt_from_and_judged_by() -> None:
    log = as_log([user % 40 for user in range(200)], [0] * 200)
    events = np.arange(200)

    learning, judging = split(log, events, 0.3, seed=2)

    assert not set(log.users[learning]) & set(log.users[judging])
    assert len(set(log.users[judging])) == 12
    assert sorted([*learning, *judging]) == events.tolist()
    assert split(log, events, 0.3, seed=2)[1].tolist() == judging.tolist()
    assert split(log, events, 0.3, seed=3)[1].tolist() != judging.tolist()


# Ranks


def test_ndcg_is_that_of_one_right_answer_in_the_first_ten() -> None:
    found = ndcg(np.array([1, 2, 2.5, 10, 10.5, 11]))

    assert found == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(3.5), 1 / np.log2(11), 0, 0])


def ranks(task: Task, term: str) -> list[float]:
    weights = np.zeros((len(SHAPE.columns), 1))
    weights[SHAPE.places([term], 0.7, DAY_S)] = 1
    return [float(rank) for rank in task.ranks(lambda _, __: weights)[:, 0]]


def test_ranks_are_among_what_the_user_has_not_seen_and_ties_are_halved() -> None:
    log = as_log([1, 1, 2, 0, 0], [5, 6, 6, 5, 7])
    task = Task(Terms(log, SHAPE), np.array([4]), np.arange(5, 11), keep_seen=False)

    assert ranks(task, "repeat") == [1 + 4 / 2]
    assert ranks(task, "trend") == [2 + 3 / 2]
    assert ranks(replace(task, keep_seen=True), "trend") == [3 + 3 / 2]
    assert ranks(task, "newness") == [1 + 3 / 2]


# The search


def searched(
    log: Log, first: Choice = FIRST, shape: Shape = SHAPE
) -> tuple[Choice, dict[str, float]]:
    events = examples(log, able_events(log, np.arange(N_ITEMS)), 400, seed=0)
    task = Task(Terms(log, shape), events, np.arange(N_ITEMS), keep_seen=False)
    search = Search(task, seed=0)
    choice, weights = search.best(replace(first, terms=search.telling))
    columns = shape.places(choice.terms, choice.decay, choice.half_life_s)
    return choice, dict(zip(choice.terms, weights[columns].tolist(), strict=True))


def cluster_vectors(generator: np.random.Generator, n_clusters: int) -> NDArray[np.float32]:
    centres = generator.normal(size=(n_clusters, 16))
    noise = generator.normal(size=(N_ITEMS, 16))
    return unit((centres[np.arange(N_ITEMS) % n_clusters] + 0.5 * noise).astype(np.float32))


def rounds(n_users: int, n_rounds: int) -> list[int]:
    """The users of a log in which all of them come once in each round."""
    return [user for _ in range(n_rounds) for user in range(n_users)]


def test_a_term_that_matters_is_kept_and_one_that_misleads_is_not() -> None:
    """People stay in a cluster, and leave what all have just had."""
    generator = np.random.default_rng(0)
    users = rounds(120, 5)
    items: list[int] = []
    seen: dict[int, set[int]] = {user: set() for user in users}
    for place, user in enumerate(users):
        crowded = {*items[-60:]}
        able = [i for i in range(user % 6, N_ITEMS, 6) if i not in seen[user]]
        calm = [i for i in able if i not in crowded] or able
        items.append(int(generator.choice(calm)))
        seen[user].add(items[place])
    log = as_log(users, items, cluster_vectors(generator, 6))

    choice, weights = searched(log, replace(FIRST, half_life_s=30 * DAY_S))

    assert sum(weights.get(term, 0) for term in CONTENT) > 1
    assert weights.get("trend", 0) == 0
    assert choice.half_life_s == 30 * DAY_S, "what makes no difference stays"


def test_content_is_never_left_out_whole() -> None:
    """People go on from each item to the next; what it is about says nothing."""
    generator = np.random.default_rng(1)
    starts = generator.integers(0, N_ITEMS, 120)
    users = rounds(120, 5)
    items = [int(starts[user] + step // 120) % N_ITEMS for step, user in enumerate(users)]
    log = as_log(users, items, unit(generator.normal(size=(N_ITEMS, 16)).astype(np.float32)))

    choice, weights = searched(log)

    assert CONTENT & set(choice.terms)
    assert weights["transition"] + weights.get("together", 0) > 5
    assert sum(weights.get(term, 0) for term in CONTENT) < 1


def test_one_or_two_terms_are_left_out_but_never_all_of_content() -> None:
    few = replace(FIRST, terms=("content", "latest", "transition", "trend"))

    left = [choice.terms for choice in with_fewer_terms(few)]

    assert len(left) == len(set(left)) == 4 + 6 - 1
    assert all(CONTENT & set(terms) for terms in left)
    assert {len(terms) for terms in left} == {2, 3}
    assert len(with_fewer_terms(FIRST)) == 8 + 28
    assert all("newness" in choice.terms for choice in with_fewer_terms(FIRST))


def news(*, share: float) -> Log:
    """People choose in part what nobody has had yet, in part one of ten, a few of them often."""
    generator = np.random.default_rng(3)
    users, fresh = rounds(60, 4), iter(range(10, N_ITEMS))
    items: list[int] = []
    for user in users:
        item = next(fresh, None) if user % 5 == 0 and generator.random() < share else None
        items.append(int(min(generator.geometric(0.3), 10)) - 1 if item is None else item)
    return as_log(users, items, unit(generator.normal(size=(N_ITEMS, 16)).astype(np.float32)))


@pytest.mark.parametrize(("share", "least", "most"), [(1, 1, 9), (0, 0, 0)])
def test_newness_weighs_as_much_as_people_choose_what_is_new(
    share: float, least: float, most: float
) -> None:
    log = news(share=share)
    task = Task(Terms(log, SHAPE), np.arange(60, 240), np.arange(N_ITEMS), keep_seen=True)
    columns = SHAPE.places(["trend", "newness"], 0.7, 30 * DAY_S)

    weight = fit(task.sample(0), columns)[1]

    assert least <= weight <= most
    bonus = searched(log)[0].bonus
    assert bonus > 0 if share else bonus == 0, "only where it brings something"


def test_a_young_log_does_not_give_all_to_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the choices are of new items, which will not stay so."""
    careful = searched(news(share=1))[0].bonus
    monkeypatch.setattr("rec_pkg.tuning.search.MOST_GIVEN_UP", 1.0)

    assert careful < searched(news(share=1))[0].bonus


def test_a_bonus_is_the_least_that_newness_weighs() -> None:
    log = news(share=1)
    sample = Task(Terms(log, SHAPE), np.arange(60, 240), np.arange(N_ITEMS), keep_seen=True).sample(
        0
    )
    (newness,) = SHAPE.places(["newness"], 0.7, DAY_S)

    fitted, small, great = (
        weights_of(replace(FIRST, bonus=bonus), sample, SHAPE) for bonus in (0, 0.1, 9)
    )

    assert fitted[newness] == small[newness] > 0.1
    assert great[newness] == 9
    assert np.delete(great, newness).tolist() == np.delete(fitted, newness).tolist()


def test_the_half_life_by_which_people_choose_is_found() -> None:
    """What is in fashion changes every other day, and all go by it."""
    generator = np.random.default_rng(4)
    users = rounds(48, 8)
    items = [
        int((step // 48 * 7 + generator.integers(0, 4)) % N_ITEMS) for step in range(len(users))
    ]
    log = as_log(users, items)

    choice, weights = searched(log, replace(FIRST, half_life_s=30 * DAY_S))

    assert choice.half_life_s == DAY_S
    assert weights["trend"] > 0


def visits(step_s: float, away_s: float) -> Log:
    """In a visit people go on to the next item; who comes back takes what many had last."""
    generator = np.random.default_rng(6)
    events = []
    for visit in range(300):
        user, start_s = visit % 60, visit * away_s / 60
        first = visit // 10 + int(generator.integers(0, 2))
        events += [
            (start_s + step * step_s, user, (first + 7 * step) % N_ITEMS) for step in range(3)
        ]
    at, users, items = zip(*sorted(events), strict=True)
    log = as_log(users, items)
    log.at[:] = at
    return log


@pytest.mark.parametrize(
    ("step_s", "away_s", "half_life_s"),
    [(600, 10 * HOUR_S, 3 * HOUR_S), (12 * HOUR_S, 10 * DAY_S, DAY_S)],
    ids=["short", "long"],
)
def test_visits_count_for_as_long_as_they_last(
    step_s: float, away_s: float, half_life_s: float
) -> None:
    shape = Shape((0.7,), (away_s / 10,), session_half_lives_s=(DAY_S, 3 * HOUR_S))

    choice, _ = searched(visits(step_s, away_s), replace(FIRST, half_life_s=away_s / 10), shape)

    assert choice.session > 0
    assert choice.session_half_life_s == half_life_s


def test_the_same_seed_finds_the_same() -> None:
    assert searched(news(share=1)) == searched(news(share=1))


def test_a_log_that_tells_nothing_of_a_term_leaves_it_aside() -> None:
    vectors = cluster_vectors(np.random.default_rng(5), 6)
    log = as_log(rounds(40, 3), [step % N_ITEMS for step in range(120)], vectors)
    events = examples(log, able_events(log, np.arange(N_ITEMS)), 400, seed=0)

    telling = Search(
        Task(Terms(log, SHAPE), events, np.arange(N_ITEMS), keep_seen=False), 0
    ).telling

    assert {"content", "transition", "trend"} <= set(telling)
    assert not {"aversion", "repeat"} & set(telling)
