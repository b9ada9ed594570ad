from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rec_pkg.evaluation import baselines
from rec_pkg.evaluation.baselines import Material, RecentPopularity
from rec_pkg.evaluation.contest import Contest
from rec_pkg.evaluation.data import Event
from rec_pkg.evaluation.protocols import Case, Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray


START = datetime(2024, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def event(user: str, item: str | None, hours: float, kind: str = "click") -> Event:
    return Event(user, item, kind, None if item else "a wish", None, at(hours))


def integers(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def material(*sequences: list[int], n_items: int = 4) -> Material:
    vectors = np.eye(n_items, dtype=np.float32)
    return Material([integers(*items) for items in sequences], ["word"] * n_items, vectors)


def test_popularity_counts_events() -> None:
    scores = baselines.popularity(material([0, 1, 1], [1, 2]))(integers(0), np.ones(1))

    assert scores.tolist() == [1, 3, 1, 0]


def test_item_knn_is_the_cosine_of_the_users() -> None:
    score = baselines.item_knn(material([0, 1], [0, 1], [0, 2], [1, 3]))

    assert score(integers(0), np.ones(1)) == pytest.approx([0, 2 / 3, 1 / np.sqrt(3), 0])
    assert score(integers(2, 0), np.array([0.5, 1])) == pytest.approx(
        [0.5 / np.sqrt(3), 2 / 3, 1 / np.sqrt(3), 0]
    )


def test_item_knn_gives_an_item_back_if_people_came_back() -> None:
    score = baselines.item_knn(material([0, 0, 1], [0]))

    assert score(integers(0), np.ones(1))[0] == pytest.approx(1 / 2)


def test_rules_are_directed_and_fall_with_the_distance() -> None:
    score = baselines.sequential_rules(material([0, 1, 2], [0, 2]))

    assert score(integers(0), np.ones(1)).tolist() == [0, 1, 1.5, 0]
    assert score(integers(2), np.ones(1)).tolist() == [0, 0, 0, 0]


def test_ease_is_its_closed_form_and_knows_nothing_of_new_items() -> None:
    users = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=np.float64)
    inverse = np.linalg.inv(users.T @ users + baselines.RIDGE * np.eye(3))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)

    score = baselines.ease(material([0, 1], [1, 0], [1, 2]))

    assert score(integers(1, 3), np.ones(2)) == pytest.approx([*weights[1], 0])


def test_tfidf_weighs_rare_words_and_reads_chinese_by_character() -> None:
    vectors = baselines.tfidf_vectors(
        ["blue jeans", "Blue shirt", "蓝色牛仔裤", "蓝色", ""]
    ).toarray()

    similar = vectors @ vectors.T
    rare, common = np.log(5) + 1, np.log(5 / 2) + 1
    assert similar[0, 1] == pytest.approx(common**2 / (common**2 + rare**2))
    assert similar[2, 3] > 0.5
    assert not similar[4].any()


def test_the_latest_event_counts_most() -> None:
    history, weights = baselines.weighed(integers(5, 6, 7), 0.5)

    assert history.tolist() == [5, 6, 7]
    assert weights.tolist() == [0.25, 0.5, 1]


def test_recent_popularity_halves_and_never_overflows() -> None:
    model = RecentPopularity(2, half_life_s=10)

    model.add(integers(0, 1), np.array([0.0, 10]))
    assert model.counts[1] == 2 * model.counts[0]
    model.add(integers(0), np.array([1e9]))
    model.add(integers(1), np.array([1e9 + 10]))
    assert model.counts[1] == 2 * model.counts[0]
    assert np.isfinite(model.counts).all()


def test_content_alone_weighs_the_centroid_the_closest_and_what_was_had() -> None:
    vectors = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1]], dtype=np.float32)
    ranker = baselines.ContentRanker(vectors, 2, decay=0.5, latest=2, closest=3, repeat=-4)

    scores = ranker(np.array([2, 1, 0]), np.ones(3))

    centroid = vectors[0] + 0.5 * vectors[1]  # the last two
    cosines = vectors @ centroid / np.linalg.norm(centroid)
    assert scores == pytest.approx(2 * cosines + 3 * np.array([1, 1, 0]) - 4, abs=1e-6)
    assert not ranker(np.zeros(0, dtype=np.int64), np.zeros(0)).any()


def test_a_dislike_teaches_nothing_and_leads_nowhere_but_is_not_shown_again() -> None:
    places = {item: place for place, item in enumerate("abcd")}
    log = [event("u1", "a", 0), event("u1", "b", 1), event("u2", "a", 2)]
    disliked = [event("u2", "c", 3, "dislike"), event("u3", "c", 4, "dislike")]
    case = Case("u3", "u3", [event("u3", "a", 5), disliked[1]], "b", at(9), 0)
    contest = Contest(places, ["a", "b", "c", "d"], np.eye(4, dtype=np.float32), False, {"dislike"})  # noqa: FBT003

    without = contest.run(Plan("time", log, (), [case]))[0]
    answers = contest.run(Plan("time", [*log, *disliked], (), [case]))[0]

    for name in ("popularity", "item_knn", "sequential_rules", "ease", "recent_popularity"):
        assert answers[name].lists.tolist() == without[name].lists.tolist(), name
        assert places["c"] not in answers[name].lists[0], name
        assert answers[name].ranks.tolist() == [1], name
