from __future__ import annotations

import csv
import json
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from typer.testing import CliRunner

from rec_pkg.cli import app
from rec_pkg.errors import BadInput, DatabaseRefused
from rec_pkg.evaluation.contest import NAMES
from rec_pkg.evaluation.data import read_dataset
from rec_pkg.evaluation.run import Options, evaluate
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rec_pkg.evaluation.protocols import Protocol

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


@pytest.mark.slow
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
            "--oracle",
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
    assert set(found["models"]) == {"rec", "oracle", *NAMES}
    for model in found["models"].values():
        assert {*ACCURACY, *OTHERS} <= set(model)
        assert set(model["intervals"]) == {*ACCURACY, *OTHERS} - {"coverage@10"}
        for name, (low, high) in model["intervals"].items():
            assert low <= model[name] + 1e-12
            assert high >= model[name] - 1e-12
        assert {"cold_items", "cold_users"} <= set(model)
    # Two things of the topic are left that the user has not had, so a good list begins with them.
    assert found["models"]["rec"]["hr@10"] == found["models"]["content"]["hr@10"] == 1
    # Whatever is left is in question, and an oracle knows what is right.
    assert found["models"]["rec"]["ndcg@10"] < found["models"]["oracle"]["ndcg@10"] == 1
    assert found["models"]["rec"]["share_filled"] == pytest.approx(16 / 20)
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    assert "sequential_rules" in result.output


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_lists_are_made_with_the_ranker_that_is_named(
    scratch_server: str, folder: Path, database_url: str
) -> None:
    del scratch_server  # it drops what the evaluation keeps there
    with psycopg.connect(database_url) as db:
        db.execute(
            "insert into rec.rankers (ranker, content_weight, latest_weight, closest_weight)"
            " values ('unlike', -100, -100, -100)"
        )
    settings = Settings(database_url=SecretStr(database_url))

    usual = evaluate(settings, folder, Options("time", core=2, frozen=True))
    unlike = evaluate(settings, folder, Options("time", core=2, frozen=True, ranker="unlike"))

    assert usual.models["rec"].figures["hr@10"].mean == 1
    assert unlike.models["rec"].figures["hr@10"].mean == 0
    assert unlike.facts["ranker"] == "unlike"
    with pytest.raises(BadInput, match="unknown ranker 'nobody'"):
        evaluate(settings, folder, Options("time", core=2, ranker="nobody"))


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


@pytest.mark.slow
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
    for name, n in (("valid", 60), ("test", 30)):
        lines = (source / f"{name}.jsonl").read_text().splitlines()[:n]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        rows = [json.loads(line) for line in lines]
        named |= {item for row in rows for item in (*row["history"], row["target"])}
    with (source / "items.csv").open() as whole, (tmp_path / "items.csv").open("w") as part:
        items = csv.DictReader(whole)
        writer = csv.DictWriter(part, items.fieldnames or ())
        writer.writeheader()
        writer.writerows(item for item in items if item["item_id"] in named)

    options = Options("rows", keep_seen=True, oracle=True)
    report = evaluate(Settings(database_url=SecretStr(scratch_server)), tmp_path, options)

    assert report.n == 30
    figures = {name: result.figures["hr@10"].mean for name, result in report.models.items()}
    assert figures["rec"] > figures["popularity"]
    assert figures["content"] > figures["popularity"]
    assert figures["rec"] < figures["oracle"] < 1
