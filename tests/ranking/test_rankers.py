"""Rankers by name: each list is made with the one that is asked for, and tuned by itself."""

from __future__ import annotations

import json
from typing import Any, Final

import psycopg
import pytest
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from rec_pkg import queries
from rec_pkg.cli import app
from rec_pkg.client import Client
from rec_pkg.errors import BadInput
from rec_pkg.tuning import Store

Connection = psycopg.Connection[tuple[Any, ...]]

VECTOR: Final = "array_prepend(1, array_fill(0.02, array[383]))::vector"
# What each call gives depends on the named setting of its ranker.
CALLS: Final = {
    "select item_id, score from rec.recommend('ann', 3, p_ranker => {})": "trend_weight = 9",
    "select item_id, score from rec.score('ann', '{{c,n}}', p_ranker => {})": "trend_weight = 9",
    "select term, share from rec.explain('ann', 'c', p_ranker => {})": "trend_weight = 9",
    "select term, share from rec.explain_list('ann', '{{c}}', p_ranker => {})": "trend_weight = 9",
    "select topic from rec.topics('ann', p_ranker => {})": "topics = 1, topic_similarity = 1",
    f"select item_id, path from rec.nearest({VECTOR}, 3, p_ranker => {{}})": "exact_limit = 0",
    "select item_id, path from rec.similar_items('a', 3, p_ranker => {})": "exact_limit = 0",
    "select * from rec.next_items('{{b}}', p_ranker => {})": "transition_prior = 99",
    "select * from rec.companion_items('{{b}}', p_ranker => {})": "transition_prior = 99",
}


@pytest.fixture
def shop(varied: Connection) -> Connection:
    """The varied shop with a second ranker, `other`, equal to the first so far."""
    varied.execute("update rec.rankers set exact_limit = 100, topic_similarity = 1, topics = 5")
    varied.execute(
        'insert into rec.rankers select (jsonb_populate_record(r, \'{"ranker": "other"}\')).*'
        " from rec.rankers r where r.ranker = 'default'"
    )
    return varied


@pytest.fixture
def run(shop: Connection, database_url: str) -> CliRunner:
    del shop
    return CliRunner(env={"PGREC_DATABASE_URL": database_url, "COLUMNS": "160"})


@pytest.mark.parametrize("call", CALLS)
def test_a_call_reads_the_ranker_that_it_names(shop: Connection, call: str) -> None:
    with shop.transaction():  # in which now() stands still
        usual = shop.execute(call.format("'default'")).fetchall()
        assert usual
        assert shop.execute(call.format("'other'")).fetchall() == usual
        shop.execute(f"update rec.rankers set {CALLS[call]} where ranker = 'other'")
        assert shop.execute(call.format("'other'")).fetchall() != usual
        assert shop.execute(call.format("'default'")).fetchall() == usual
        assert shop.execute(call.format("null")).fetchall() == usual


@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_ranker_is_an_error_that_says_where_they_are(
    shop: Connection, call: str
) -> None:
    with pytest.raises(psycopg.Error, match="unknown ranker 'nobody''s'") as refused:
        shop.execute(call.format("'nobody''s'"))
    assert refused.value.sqlstate == "22023"
    assert "rec.rankers" in (refused.value.diag.message_hint or "")


def test_every_function_that_ranks_takes_a_ranker(shop: Connection) -> None:
    rows = shop.execute(
        "select p.proname from pg_proc p where p.pronamespace = 'rec'::regnamespace"
        " and 'p_ranker' = any(p.proargnames) and p.proname <> 'undo_tuning'"
    )
    asked = {call.partition("from rec.")[2].partition("(")[0] for call in CALLS}
    assert {name for (name,) in rows} == asked


def test_the_client_and_the_queries_name_a_ranker(shop: Connection, database_url: str) -> None:
    shop.execute("update rec.rankers set trend_weight = 9 where ranker = 'other'")
    with Client(database_url) as client:
        usual, other = (client.recommend("ann", 3, ranker=name) for name in ("default", "other"))
        assert client.recommend("ann", 3)[0].score == pytest.approx(usual[0].score, abs=1e-3)
        assert other[0].score > usual[0].score + 1
        shares = [client.explain("ann", "c", ranker=name) for name in ("default", "other")]
        assert shares[0] != shares[1]
        lists = [client.explain_list("ann", ["c"], ranker=name) for name in ("default", "other")]
        assert lists[0] != lists[1]
        with pytest.raises(BadInput, match="unknown ranker"):
            client.recommend("ann", ranker="nobody")
    assert "other" in queries.recommend("ann", ranker="other").compile().params.values()


def test_the_commands_name_a_ranker(shop: Connection, run: CliRunner) -> None:
    shop.execute("update rec.rankers set trend_weight = 9 where ranker = 'other'")
    for command, field in ((["recommend", "ann"], "score"), (["explain", "ann", "c"], "share")):
        best = {}
        for name in ("default", "other", ""):
            chosen = ["--ranker", name] if name else []
            told = run.invoke(app, [*command, "--json", *chosen])
            assert told.exit_code == 0, told.output
            best[name] = json.loads(told.output)[0][field]
        assert best["other"] > best["default"] + 1
        assert best[""] == pytest.approx(best["default"], abs=1e-3)


@pytest.mark.parametrize("command", ["recommend ann", "explain ann c", "tune"])
def test_a_command_refuses_an_unknown_ranker(run: CliRunner, command: str) -> None:
    refused = run.invoke(app, [*command.split(), "--ranker", "nobody"])
    assert refused.exit_code == 1, refused.output
    assert "unknown ranker 'nobody'" in " ".join(refused.output.split())


def test_tuning_one_ranker_leaves_the_other_alone(shop: Connection) -> None:
    def rankers() -> dict[str, Any]:
        rows = shop.execute("select ranker, to_jsonb(r) - 'ranker' from rec.rankers r")
        return {name: row for name, row in rows}  # noqa: C416  # a row has two columns

    before = rankers()
    store = Store(shop)
    store.record("other", {"trend_weight": 0.75, "latest_decay": 0.5}, {}, adopt=True)
    assert rankers()["other"] == before["other"] | {"trend_weight": 0.75, "latest_decay": 0.5}
    assert rankers() | {"other": before["other"]} == before
    store.record("default", {"trend_weight": 0.25}, {}, adopt=True)
    assert store.undo("other") == 1
    assert rankers() == before | {"default": before["default"] | {"trend_weight": 0.25}}
    assert store.undo("other") is None
    assert shop.execute("select rec.undo_tuning()").fetchone() == (2,)
    assert rankers() == before


def test_a_ranker_keeps_its_weights_within_their_ranges(shop: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        shop.execute("insert into rec.rankers (ranker, trend_weight) values ('wild', 1e9)")
    with pytest.raises(psycopg.errors.CheckViolation):
        shop.execute(
            "select rec_internal.change_settings('other', %s)", [Jsonb({"trend_weight": 1e9})]
        )
    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.execute("insert into rec.rankers default values")
