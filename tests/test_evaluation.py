from __future__ import annotations

import csv
import json
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import ir_measures
import numpy as np
import psycopg
import pytest
from ir_measures import RR, R, Success, nDCG
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from typer.testing import CliRunner

from rec_pkg import ranking_metrics as metrics
from rec_pkg.cli import app
from rec_pkg.errors import BadInput, DatabaseRefused
from rec_pkg.evaluation import baselines, protocols
from rec_pkg.evaluation.baselines import Material, RecentPopularity
from rec_pkg.evaluation.contest import NAMES, best, rank
from rec_pkg.evaluation.data import Event, HistoryRow, read_dataset
from rec_pkg.evaluation.protocols import Case
from rec_pkg.evaluation.replay import Leak, guard
from rec_pkg.evaluation.run import Options, evaluate
from rec_pkg.evaluation.store import Store
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from rec_pkg.evaluation.protocols import Plan, Protocol

START = datetime(2024, 1, 1, tzinfo=UTC)
ACCURACY = {"hr@10", "ndcg@10", "mrr", "recall@20"}
OTHERS = {"coverage@10", "intra_list_distance@10", "novelty@10", "share_filled"}
THINGS = {
    "cook": ("frying pan", "soup pot", "chef's knife", "wok", "whisk", "cutting board", "apron"),
    "wear": ("blue jeans", "red dress", "rain coat", "wool scarf", "T-shirt", "boots", "hat"),
    "read": ("crime novel", "history of Rome", "atlas", "poems", "cookbook", "comic", "diary"),
}
WHOLE_CATALOGUE = [f"{topic}-{place}" for topic in THINGS for place in range(7)]


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def event(user: str, item: str | None, hours: float, kind: str = "click") -> Event:
    return Event(user, item, kind, None if item else "a wish", None, at(hours))


def integers(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


# Metrics


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


# Protocols


def log_of_many(seed: int = 3) -> list[Event]:
    chance = random.Random(seed)
    return [
        event(f"u{chance.randrange(8)}", f"i{chance.randrange(60)}", chance.randrange(60))
        for _ in range(300)
    ]


def assert_causal(plan: Plan) -> None:
    assert plan.cases
    known = [*plan.log]
    done = 0
    for case in plan.cases:
        known += plan.stream[done : case.position]
        done = case.position
        assert all(e.at < case.moment for e in known)
        assert list(case.history) == [e for e in known if e.user_id == case.user_id]
        assert case.history
        assert all(e.at >= case.moment for e in plan.stream[done:])


@pytest.mark.parametrize("keep_seen", [True, False])
def test_no_case_sees_an_event_at_or_after_its_moment(keep_seen: bool) -> None:  # noqa: FBT001
    events = sorted(log_of_many(), key=lambda e: e.at)

    for make in (protocols.time_plan, protocols.loo_plan):
        plan = make(events, keep_seen=keep_seen)
        assert_causal(plan)
        assert [*plan.log, *plan.stream] == events
        seen = [case.target in {e.item_id for e in case.history} for case in plan.cases]
        assert not any(seen) or keep_seen


def test_time_asks_for_every_later_event_of_a_known_user() -> None:
    events = [event("a", f"i{hour}", hour) for hour in range(18)]
    events += [event("new", "x", 18), event("new", "y", 19), event("a", "z", 20, "dislike")]

    plan = protocols.time_plan(events, keep_seen=False, disliking={"dislike"})

    assert len(plan.log) == 18
    assert [(case.user_id, case.target) for case in plan.cases] == [("new", "y")]
    assert [e.item_id for e in plan.cases[0].history] == ["x"]


def test_loo_asks_each_user_once_for_the_last_event() -> None:
    events = [
        event(user, f"i{hour}", hour + shift)
        for shift, user in ((0, "a"), (0.5, "b"))
        for hour in range(3)
    ]

    plan = protocols.loo_plan(sorted(events, key=lambda e: e.at), keep_seen=False)

    assert [(case.user_id, case.target) for case in plan.cases] == [("a", "i2"), ("b", "i2")]
    assert [len(case.history) for case in plan.cases] == [2, 2]


def test_rows_of_a_user_that_continue_each_other_are_one_sequence() -> None:
    valid = [
        HistoryRow("u", ("a",), "b"),
        HistoryRow("v", ("x",), "y"),
        HistoryRow("u", ("a", "b"), "c"),
        HistoryRow("u", ("b", "c"), "d"),  # a window that has moved on
        HistoryRow("u", ("q",), "r"),
    ]

    plan = protocols.rows_plan(valid, [HistoryRow("u", ("a", "b"), "c")], keep_seen=True)

    sequences: dict[str, list[str | None]] = {}
    for e in plan.log:
        sequences.setdefault(e.user_id, []).append(e.item_id)
    assert sorted(map(tuple, sequences.values())) == [("a", "b", "c", "d"), ("q", "r"), ("x", "y")]


def test_a_test_row_is_a_fresh_user_after_the_log() -> None:
    rows = [HistoryRow("u", ("a", "b"), "c"), HistoryRow("u", ("a", "b", "c"), "d")]

    plan = protocols.rows_plan(rows, rows, keep_seen=True)

    assert plan.fresh
    users = [case.user_id for case in plan.cases]
    assert len(set(users)) == 2
    assert not {*users} & {e.user_id for e in plan.log}
    assert [case.person for case in plan.cases] == ["u", "u"]
    for case in plan.cases:
        times = [e.at for e in case.history]
        assert times == sorted(times)
        assert max(times) < case.moment
        assert max(e.at for e in plan.log) < case.moment


def test_core_leaves_users_and_items_that_hold_each_other() -> None:
    dense = [event(f"u{user}", f"i{item}", user) for user in range(3) for item in range(3)]
    loose = [event("u0", "rare", 9), event("once", "i0", 9), event("u1", None, 9)]

    assert protocols.core_events([*dense, *loose], 3) == [*dense, loose[2]]
    assert protocols.core_events([*dense, *loose], 0) == [*dense, *loose]


def test_a_sample_is_seeded_and_keeps_the_order() -> None:
    plan = protocols.time_plan(sorted(log_of_many(), key=lambda e: e.at), keep_seen=True)

    some = plan.sample(5, seed=1)

    assert some.cases == plan.sample(5, seed=1).cases != plan.sample(5, seed=2).cases
    assert [case.moment for case in some.cases] == sorted(case.moment for case in some.cases)
    assert plan.sample(None) is plan


# The guard


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url) as store:
        yield store


HISTORY = (event("ann", "a", 1), event("ann", "b", 2))
CASE = Case("ann", "ann", HISTORY, "target", at(5), 0)


def test_the_guard_passes_what_may_be_known(store: Store) -> None:
    store.track([*HISTORY, event("bob", "target", 4.9)])

    guard(store, CASE, fresh=False)


@pytest.mark.parametrize(
    "leak",
    [
        event("ann", "target", 5),
        event("ann", "target", 1.5),
        event("ann", "target", 6),
        event("bob", "target", 5),
        event("bob", "else", 7),
    ],
)
def test_the_guard_catches_a_planted_leak(store: Store, leak: Event) -> None:
    store.track([*HISTORY, leak])

    with pytest.raises(Leak):
        guard(store, CASE, fresh=False)


def test_the_guard_catches_a_missing_history(store: Store) -> None:
    store.track(HISTORY[:1])

    with pytest.raises(Leak):
        guard(store, CASE, fresh=False)


def test_the_guard_catches_what_another_case_left_behind(store: Store) -> None:
    mine = Case("ann", "test:1:ann", (event("test:1:ann", "a", 1),), "target", at(5), 0)
    store.track(mine.history)
    guard(store, mine, fresh=True)

    store.track([event("test:0:ann", "target", 1)])

    with pytest.raises(Leak):
        guard(store, mine, fresh=True)


def test_the_guard_catches_a_sum_from_the_future(store: Store) -> None:
    store.track(HISTORY)
    store._connection.execute(  # noqa: SLF001  # as if a fold had seen more
        "insert into rec.user_interests (user_id, horizon, interest, mass, as_of)"
        " select 'ann', 'long', array_fill(0.1::real, array[a.atttypmod])::vector, 1, %s"
        " from pg_attribute a where attrelid = 'rec.user_interests'::regclass"
        " and attname = 'interest'",
        (at(5),),
    )

    with pytest.raises(Leak):
        guard(store, CASE, fresh=False)


# Baselines, by hand


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
    history, weights = baselines.latest_first(integers(5, 6, 7), 0.5)

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


# Data sets and the whole


def write_items(folder: Path) -> None:
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "domain", "title", "body", "tags"])
        for topic, titles in THINGS.items():
            for place, title in enumerate(titles):
                writer.writerow([f"{topic}-{place}", "shop", title, "", topic])


def write_events(folder: Path) -> None:
    chance = random.Random(1)
    rows = []
    for user in range(12):
        topic = list(THINGS)[user % 3]
        for step, place in enumerate(chance.sample(range(7), 6)):
            when = at(24 * step + user).isoformat()
            rows.append([f"u{user}", f"{topic}-{place}", "click", "", when])
        rows.append([f"u{user}", "", "search", f"things to {topic}", at(100.5).isoformat()])
    rows += [["u0", "unknown", "click", "", at(1).isoformat()], ["u0", "", "click", "", ""]]
    with (folder / "events.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "kind", "text", "occurred_at"])
        writer.writerows(rows)


def write_rows(folder: Path) -> None:
    chance = random.Random(2)
    for name in ("valid", "test"):
        with (folder / f"{name}.jsonl").open("w") as file:
            for user in range(10):
                *history, target = (
                    f"{list(THINGS)[user % 3]}-{n}" for n in chance.sample(range(7), 4)
                )
                row = {"user_id": f"u{user}", "history": history, "target": target}
                file.write(json.dumps(row) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_items(tmp_path)
    write_events(tmp_path)
    write_rows(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def scratch_server(server: str) -> Iterator[str]:
    """The server; databases that an evaluation keeps there are dropped."""
    before = databases(server)
    yield server
    with psycopg.connect(server, autocommit=True) as connection:
        for name in databases(server) - before:
            connection.execute(f"drop database {name} with (force)".encode())


def databases(server: str) -> set[str]:
    with psycopg.connect(server, autocommit=True) as connection:
        call = "select datname from pg_database where datname like 'pgrec_evaluate_%'"
        return {name for (name,) in connection.execute(call)}


def test_a_data_set_is_read_and_what_is_useless_is_counted(folder: Path) -> None:
    dataset = read_dataset(folder)

    assert list(dataset.item_ids) == WHOLE_CATALOGUE
    assert dataset.texts[0] == "frying pan\ncook"
    assert len(dataset.events) == 12 * 7
    assert dataset.dropped == 2
    assert len(dataset.valid) == len(dataset.test) == 10


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"items\.csv"):
        read_dataset(tmp_path)
    write_items(tmp_path)
    with pytest.raises(BadInput, match="events"):
        read_dataset(tmp_path)


def test_evaluate_writes_every_figure_of_every_model(
    scratch_server: str, folder: Path, tmp_path: Path
) -> None:
    result = CliRunner(env={"PGREC_DATABASE_URL": scratch_server}).invoke(
        app,
        [
            "evaluate",
            str(folder),
            "--core",
            "2",
            "--json",
            str(tmp_path / "o.json"),
            "--plot",
            str(tmp_path / "o.png"),
        ],
        catch_exceptions=False,
    )

    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["dataset"] == folder.name
    assert found["protocol"] == "time"
    assert found["n"] == 9
    assert set(found["models"]) == {"rec", *NAMES}
    for model in found["models"].values():
        assert {*ACCURACY, *OTHERS} <= set(model)
        assert set(model["intervals"]) == {*ACCURACY, *OTHERS} - {"coverage@10"}
        for name, (low, high) in model["intervals"].items():
            assert low <= model[name] + 1e-12
            assert high >= model[name] - 1e-12
        assert {"cold_items", "cold_users"} <= set(model)
    # Two things of the topic are left that the user has not had, so a good list begins with them.
    assert found["models"]["rec"]["hr@10"] == found["models"]["content"]["hr@10"] == 1
    assert found["models"]["rec"]["share_filled"] == pytest.approx(16 / 20)
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    assert "sequential_rules" in result.output


def test_a_second_run_encodes_nothing_and_gives_the_same(scratch_server: str, folder: Path) -> None:
    settings = Settings(database_url=SecretStr(scratch_server))
    worked: list[tuple[str, int]] = []
    options = Options("rows", keep_seen=True)

    first = evaluate(settings, folder, options)
    second = evaluate(
        settings, folder, options, lambda what, _, total: worked.append((what, total))
    )

    assert first.n == second.n == 10
    assert first.models == second.models
    assert {total for what, total in worked if what == "encode and fold"} == {10 * 4}
    assert len(databases(scratch_server)) >= 1
    assert not any("_run_" in name for name in databases(scratch_server))


def test_a_frozen_run_and_loo_answer_all_their_cases(scratch_server: str, folder: Path) -> None:
    settings = Settings(database_url=SecretStr(scratch_server))

    frozen = evaluate(settings, folder, Options("time", core=2, frozen=True))
    loo = evaluate(settings, folder, Options("loo", core=2, limit=5, tune=True))

    assert frozen.n == 9
    assert frozen.models["rec"].figures["hr@10"].mean == 1
    assert loo.n == 5
    assert frozen.facts["tuning"] == {}
    assert loo.facts["tuning"]["adopted"] is False
    assert "tuning needs 30 users" in loo.facts["tuning"]["why"]


@pytest.fixture
def busy_folder(tmp_path: Path) -> Path:
    """A data set in which people go through the things of a topic in turn."""
    write_items(tmp_path)
    chance = random.Random(3)
    walks = [
        [f"{chance.choice(list(THINGS))}-{(start + step) % 7}" for step in range(4)]
        for start in (chance.randrange(7) for _ in range(48))
    ]
    with (tmp_path / "events.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "kind", "text", "occurred_at"])
        for user, walk in enumerate(walks):
            times = [at(24 * step + user / 48).isoformat() for step in range(4)]
            writer.writerows(
                [f"u{user}", item, "click", "", when]
                for item, when in zip(walk, times, strict=True)
            )
    for name, part in (("valid", walks[:40]), ("test", walks[40:])):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for user, (*history, target) in enumerate(part):
                row = {"user_id": f"{name}{user}", "history": history, "target": target}
                file.write(json.dumps(row) + "\n")
    return tmp_path


@pytest.mark.parametrize("protocol", ["time", "rows"])
def test_an_evaluation_tunes_on_the_log_alone(
    scratch_server: str, busy_folder: Path, protocol: Protocol
) -> None:
    """A leak would be raised by the guard."""
    settings = Settings(database_url=SecretStr(scratch_server))

    report = evaluate(settings, busy_folder, Options(protocol, core=0, limit=5, tune=True))

    tuning = report.facts["tuning"]
    assert report.n == 5
    assert isinstance(tuning["adopted"], bool)
    assert 0 < tuning["figures"]["users"] <= 0.3 * 48
    assert "content_weight" in tuning["settings"]
    assert report.facts["calibrated"] is False, "21 things are too few"


def test_unknown_kinds_are_named(scratch_server: str, folder: Path) -> None:
    log = (folder / "events.csv").read_text().replace(",click,", ",wink,")
    (folder / "events.csv").write_text(log)

    with pytest.raises(BadInput, match="wink"):
        evaluate(Settings(database_url=SecretStr(scratch_server)), folder)


def test_a_role_that_may_not_create_databases_is_told_so(server: str, folder: Path) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("create role pgrec_test_modest")
        try:
            address = make_conninfo(server, options="-c role=pgrec_test_modest")
            with pytest.raises(DatabaseRefused, match="createdb"):
                evaluate(Settings(database_url=SecretStr(address)), folder)
        finally:
            connection.execute("drop role pgrec_test_modest")


@pytest.mark.slow
def test_real_rows_are_ranked_better_than_by_popularity(
    scratch_server: str, shared_data: Path, tmp_path: Path
) -> None:
    """The items that some rows name compete; to encode all would take minutes."""
    source = shared_data / "industrial"
    if not source.is_dir():
        pytest.skip("industrial is absent")
    named: set[str] = set()
    for name, n in (("valid", 90), ("test", 40)):
        lines = (source / f"{name}.jsonl").read_text().splitlines()[:n]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        rows = [json.loads(line) for line in lines]
        named |= {item for row in rows for item in (*row["history"], row["target"])}
    with (source / "items.csv").open() as whole, (tmp_path / "items.csv").open("w") as part:
        items = csv.DictReader(whole)
        writer = csv.DictWriter(part, items.fieldnames or ())
        writer.writeheader()
        writer.writerows(item for item in items if item["item_id"] in named)

    options = Options("rows", keep_seen=True, limit=40)
    report = evaluate(Settings(database_url=SecretStr(scratch_server)), tmp_path, options)

    assert report.n == 40
    figures = {name: result.figures["hr@10"].mean for name, result in report.models.items()}
    assert figures["rec"] > figures["popularity"]
    assert figures["content"] > figures["popularity"]


def test_content_alone_weighs_the_centroid_the_closest_and_what_was_had() -> None:
    vectors = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1]], dtype=np.float32)
    ranker = baselines.ContentRanker(vectors, 2, decay=0.5, latest=2, closest=3, repeat=-4)

    scores = ranker(np.array([2, 1, 0]), np.ones(3))

    centroid = vectors[0] + 0.5 * vectors[1]  # the last two
    cosines = vectors @ centroid / np.linalg.norm(centroid)
    assert scores == pytest.approx(2 * cosines + 3 * np.array([1, 1, 0]) - 4, abs=1e-6)
    assert not ranker(np.zeros(0, dtype=np.int64), np.zeros(0)).any()
