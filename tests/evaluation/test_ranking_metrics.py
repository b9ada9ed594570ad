from __future__ import annotations

from typing import TYPE_CHECKING

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, Success, nDCG

from rec_pkg import ranking_metrics as metrics
from rec_pkg.evaluation.contest import best, rank

if TYPE_CHECKING:
    from numpy.typing import NDArray


def integers(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def test_accuracy_is_that_of_ir_measures() -> None:
    generator = np.random.default_rng(7)
    lists = np.array([generator.permutation(60)[:20] for _ in range(200)])
    targets = generator.integers(0, 60, 200)
    hits = lists == targets[:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    run = [
        ir_measures.ScoredDoc(str(query), str(item), -float(place))
        for query, listed in enumerate(lists)
        for place, item in enumerate(listed)
    ]
    qrels = [ir_measures.Qrel(str(query), str(item), 1) for query, item in enumerate(targets)]

    oracle = ir_measures.calc_aggregate([Success @ 10, nDCG @ 10, RR @ 20, R @ 20], qrels, run)

    ours = {name: value.mean() for name, value in metrics.accuracy(ranks).items()}
    assert ours["hr@10"] == pytest.approx(oracle[Success @ 10])
    assert ours["ndcg@10"] == pytest.approx(oracle[nDCG @ 10])
    assert ours["mrr"] == pytest.approx(oracle[RR @ 20])
    assert ours["recall@20"] == pytest.approx(oracle[R @ 20])
    assert 0 < ours["ndcg@10"] < ours["hr@10"] < ours["recall@20"] < 1


def test_intra_list_distance_is_the_mean_over_pairs() -> None:
    vectors = np.array([[1.0, 0], [0, 1], [0.6, 0.8]])
    lists = np.array([[0, 1, 2], [0, 0, metrics.NOBODY], [1, metrics.NOBODY, metrics.NOBODY]])

    distances = metrics.intra_list_distance(lists, vectors)

    assert distances == pytest.approx([(1 + 0.4 + 0.2) / 3, 0, 0])


def test_novelty_is_in_bits_and_unfilled_places_do_not_count() -> None:
    counts = np.array([3.0, 1, 0, 0])  # shares 4/8, 2/8, 1/8, 1/8

    bits = metrics.novelty(np.array([[0, 1, 2], [3, metrics.NOBODY, metrics.NOBODY]]), counts)

    assert bits == pytest.approx([2, 3])


def test_coverage_counts_what_is_shown_in_the_first_ten() -> None:
    lists = np.array([[*range(20)], [*range(5, 25)], [metrics.NOBODY] * 20])

    assert metrics.coverage(lists, 100) == 0.15


def test_intervals_are_over_users_not_over_cases() -> None:
    users = np.repeat(np.arange(40), 25)
    by_user = (users % 2).astype(np.float64)
    by_case = np.tile([0.0, 1.0], 500)

    figures = metrics.bootstrap({"alike": by_user, "mixed": by_case}, users)

    assert figures["alike"].mean == figures["mixed"].mean == 0.5
    assert figures["alike"].high - figures["alike"].low > 0.25
    assert figures["mixed"].high - figures["mixed"].low < 0.02
    assert figures == metrics.bootstrap({"alike": by_user, "mixed": by_case}, users)


def test_ties_count_half_and_the_excluded_cannot_be_found() -> None:
    scores = np.array([3.0, 1, 1, 1, 0, -np.inf])

    assert [rank(scores, item) for item in range(6)] == [1, 3, 3, 3, 5, np.inf]
    assert best(scores).tolist() == [0, 1, 2, 3, 4, *[metrics.NOBODY] * 15]
