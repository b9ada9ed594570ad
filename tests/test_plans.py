"""The plans of the hot queries: the index is used where the speed depends on it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

Connection = psycopg.Connection[tuple[Any, ...]]

ITEMS = 3000
HNSW = "item_vectors_hnsw"
LIST = "select * from rec.recommend('ann')"
INTEREST = "(select interest from rec.user_interests where user_id = 'ann' and horizon = 'long')"


@pytest.fixture(scope="module")
def full(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Connection]:
    """Three thousand random items, one in a hundred of them rare, and many events."""
    with new_database() as url, psycopg.connect(url, autocommit=True) as db:
        register_vector(db)
        add_items(db, ITEMS)
        db.execute(
            "insert into rec.events (user_id, item_id)"
            " select 'user ' || n % 20, 'i' || n % 700 from generate_series(1, 5000) n"
        )
        db.execute("select rec.track('ann', 'i' || n) from generate_series(1, 5) n")
        db.execute("select rec.track('bob', 'i9')")
        db.execute("select rec.apply_users('{ann,bob}')")
        db.execute("select rec.track('bob', 'i9')")
        db.execute(
            "insert into rec_internal.item_transitions select 'i' || n % 50, 'i' || n, random()"
            " from generate_series(0, 2999) n"
        )
        db.execute("insert into rec_internal.popularity select item_id, random() from rec.items")
        db.execute("vacuum analyze")
        yield db


def add_items(db: Connection, items: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(items, 384))
    with db.cursor() as cursor:
        with cursor.copy("copy rec.items (item_id, attributes) from stdin") as copy:
            for number in range(items):
                copy.write_row((f"i{number}", json.dumps({"rare": number % 100 == 0})))
        with cursor.copy("copy rec.item_vectors from stdin with (format binary)") as copy:
            copy.set_types(["text", "halfvec"])
            for number, vector in enumerate(vectors):
                copy.write_row((f"i{number}", HalfVector(vector / np.linalg.norm(vector))))
    db.execute("update rec.items set encoded_hash = content_hash")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def indexes(db: Connection, query: str) -> set[str]:
    """Names of the indexes in the plan of `query`."""
    row = db.execute(f"explain (format json) {query}").fetchone()
    assert row
    return {node["Index Name"] for node in nodes(row[0][0]["Plan"]) if "Index Name" in node}


def nested_plans(db: Connection, query: str, *, analyze: bool = False) -> list[str]:
    """The plans of all statements that run inside the functions of `query`."""
    plans: list[str] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        plans.append(notice.message_primary or "")

    db.add_notice_handler(keep)
    db.execute("load 'auto_explain'")
    db.execute("set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on")
    db.execute(f"set auto_explain.log_analyze = {analyze}")
    db.execute("set client_min_messages = log")
    db.execute(query)
    db.execute("reset client_min_messages")
    db.remove_notice_handler(keep)
    return plans


@pytest.mark.parametrize(
    "near",
    [f"{INTEREST}::halfvec", "(select embedding from rec.item_vectors where item_id = 'i7')"],
)
def test_the_plain_query_of_an_analyst_uses_the_index(full: Connection, near: str) -> None:
    query = f"select item_id from rec.item_vectors order by embedding <=> {near} limit 10"
    assert HNSW in indexes(full, query)


def test_the_searches_inside_recommend_are_one_statement_on_the_index(full: Connection) -> None:
    plans = nested_plans(full, LIST)
    searches = [plan for plan in plans if "v.embedding <=> q.query" in plan]
    assert len(searches) == 1
    assert f"Index Scan using {HNSW}" in searches[0]
    assert "hashed SubPlan" in searches[0]


def test_a_single_search_uses_the_index(full: Connection) -> None:
    plans = nested_plans(full, f"select * from rec.nearest({INTEREST}, 10)")
    searches = [plan for plan in plans if "v.embedding <=> v_query" in plan]
    assert len(searches) == 1
    assert f"Index Scan using {HNSW}" in searches[0]


def test_a_list_looks_its_items_up_and_reads_the_transitions_once(full: Connection) -> None:
    plans = nested_plans(full, LIST)
    for table in ("item_vectors", "item_transitions"):
        assert not any(f"Seq Scan on {table}" in plan for plan in plans), table
    assert sum("from rec_internal.item_transitions x" in plan for plan in plans) == 1
    assert not any("Gather" in plan for plan in plans)


def test_a_list_reads_no_large_table_from_end_to_end(full: Connection) -> None:
    """A count of whether a thousand items match stops there."""
    plans = nested_plans(full, LIST)
    large = r"Seq Scan on (items|item_vectors|item_transitions|events_\d+_\d+) .*rows=\d{2}"
    scans = [plan for plan in plans if re.search(large, plan)]
    assert len(scans) == 1
    assert "offset least(p_limit, 1000)" in scans[0]


def test_nor_a_small_one_again_and_again(db: Connection) -> None:
    """One plan serves all filters; of them the planner thinks that they leave next to nothing."""
    add_items(db, 1500)
    db.execute("insert into rec_internal.popularity select item_id, random() from rec.items")
    db.execute("select rec.track('ann', 'i' || n) from generate_series(1, 5) n")
    db.execute("vacuum analyze")
    plans = nested_plans(db, LIST)
    assert any(f"Index Scan using {HNSW}" in plan for plan in plans)
    assert sum("Seq Scan on items" in plan for plan in plans) == 1, "to count whether few match"


def test_the_stored_and_the_pending_interest_are_found_by_their_keys(full: Connection) -> None:
    with full.transaction(force_rollback=True):
        full.execute("set local enable_seqscan = off")  # of a few rows
        full.execute("discard plans")
        plans = nested_plans(full, LIST)
    sums = [plan for plan in plans if "from rec.user_interests u" in plan]
    assert len(sums) == 1
    for key in ("user_interests_pkey", "pending_pkey"):
        assert re.search(rf"(using|on) {key} .*\n +Index Cond: \(+user_id = ", sums[0]), sums[0]


@pytest.mark.parametrize("query", ["select rec.retry()", "select rec_internal.claim_texts(10)"])
def test_what_is_parked_and_texts_are_found_among_all_that_waits(
    full: Connection, query: str
) -> None:
    """By one index, for each costs every INSERT into rec.events."""
    queue = [plan for plan in nested_plans(full, query) if "from rec_internal.pending p" in plan]
    assert "using pending_texts_and_parked" in queue[0]


@pytest.mark.parametrize("function", ["latest_shares", "dislikes", "topics"])
def test_the_latest_events_come_from_the_index_of_the_user(full: Connection, function: str) -> None:
    """In their order, so that reading stops as soon as there are enough."""
    plans = nested_plans(full, f"select * from rec.{function}('user 1')")
    latest = [plan for plan in plans if "from rec_internal.event_vectors v" in plan]
    assert len(latest) == 1
    assert re.search(r"Index Scan Backward using events_\d+_\d+_pkey", latest[0]), latest[0]


def test_what_people_went_on_to_comes_from_the_index_in_its_order(full: Connection) -> None:
    plans = nested_plans(full, LIST)
    steps = [plan for plan in plans if "from rec_internal.item_transitions x" in plan]
    assert len(steps) == 1
    assert "using item_transitions_strongest" in steps[0]


def test_a_list_without_a_filter_is_not_planned_anew(full: Connection) -> None:
    """A plan for any arguments names them by number; one of its own has their values."""
    plans = nested_plans(full, LIST)
    for statement in (
        "v.embedding <=> q.query",
        "order by p.log_mass desc",
        "scored as materialized",
    ):
        found = [plan for plan in plans if statement in plan]
        assert len(found) == 1, statement
        assert "$" in found[0].split("cost=", 1)[1], statement


def test_directions_that_are_all_but_equal_are_searched_once(full: Connection) -> None:
    """One who only ever clicked on one item has one topic and two horizons in one direction."""
    searches = {}
    for user in ("ann", "bob"):
        plans = nested_plans(full, f"select * from rec.recommend('{user}')", analyze=True)
        found = [re.search(rf"using {HNSW} .*loops=(\d+)", plan) for plan in plans]
        searches[user] = [int(match[1]) for match in found if match]
    assert searches["bob"] == [1]
    assert searches["ann"][0] > 1


def test_more_rows_are_compared_for_more_interests(full: Connection) -> None:
    call = "select * from rec.recommend('{}', p_filter => '{{\"rare\": true}}')"
    with full.transaction(force_rollback=True):
        full.execute("update rec.rankers set exact_limit = 20, candidates = 10")  # of 30
        compared = {
            user: any("with matching" in plan for plan in nested_plans(full, call.format(user)))
            for user in ("ann", "bob")
        }
    assert compared == {"ann": True, "bob": False}


def test_a_list_among_few_rows_compares_them_once_for_all_interests(full: Connection) -> None:
    call = "select * from rec.recommend('ann', p_filter => '{\"rare\": true}')"
    plans = nested_plans(full, call)
    assert not any(f"using {HNSW}" in plan for plan in plans)
    matching = [plan for plan in plans if "with matching" in plan]
    assert len(matching) == 1
    assert "items_attributes" in matching[0]


def test_a_search_among_few_rows_does_not_scan_the_index(full: Connection) -> None:
    query = f"select * from rec.nearest({INTEREST}, 10, p_filter => '{{\"rare\": true}}')"
    plans = nested_plans(full, query)
    assert not any(f"using {HNSW}" in plan for plan in plans)
    assert any("items_attributes" in plan for plan in plans)


def test_new_items_are_found_by_the_partial_index(full: Connection) -> None:
    assert indexes(full, "select item_id from rec.items where stale") == {"items_to_encode"}


def test_the_trending_items_come_from_the_index(full: Connection) -> None:
    plans = nested_plans(full, "select * from rec.popular(10)")
    assert any("popularity_trending" in plan for plan in plans)


def test_companions_are_found_by_both_indexes_of_transitions(full: Connection) -> None:
    plans = nested_plans(full, "select * from rec.companion_items('{i1,i2,i3}')")
    companions = [plan for plan in plans if "Index Scan using item_transitions_strongest" in plan]
    assert companions
    assert all("Index Scan using item_transitions_arriving" in plan for plan in companions)


def test_a_term_without_weight_is_not_computed(full: Connection) -> None:
    plans = nested_plans(full, LIST)
    assert not any("item_transitions_arriving" in plan for plan in plans)


def test_the_newest_items_to_explore_come_from_the_index(full: Connection) -> None:
    with full.transaction(force_rollback=True):
        full.execute("update rec.rankers set exploration = 0.2")
        plans = nested_plans(full, LIST)
    newest = [plan for plan in plans if "order by i.created_at desc" in plan]
    assert newest
    assert all("using items_latest" in plan for plan in newest)


def test_what_a_user_has_seen_is_found_by_an_index(full: Connection) -> None:
    plans = nested_plans(full, "select rec.seen_items('ann')")
    seen = [plan for plan in plans if "marks_seen" in plan]
    assert any(re.search(r"Index Cond: \(+user_id = 'ann'", plan) for plan in seen)


def test_the_events_of_the_claimed_rows_are_found_by_the_key(full: Connection) -> None:
    with full.transaction(force_rollback=True):
        full.execute("select rec.track('ann', 'i' || n) from generate_series(6, 9) n")
        plans = nested_plans(full, "select rec.apply_users('{ann}')")
    looks = [plan for plan in plans if "rec_internal.event_weight(k.weight" in plan]
    assert len(looks) == 1
    assert re.search(r"Index Scan using events_\d+_\d+_pkey", looks[0])
    assert re.search(r"ANY \(event_id = \(hashed SubPlan", looks[0])


def test_of_a_long_queue_a_part_is_read(full: Connection) -> None:
    """Or what a call takes would grow with all that is left of an import."""
    with full.transaction(force_rollback=True):
        full.execute(
            "insert into rec.events (user_id, item_id)"
            " select 'crowd ' || n % 40, 'i' || n % 700 from generate_series(1, 16000) n"
        )
        plans = nested_plans(full, "select rec.apply_pending(1)", analyze=True)
    chosen = [plan for plan in plans if "order by min(o.event_id)" in plan]
    assert len(chosen) == 1
    assert re.search(r"Limit .*actual .*rows=10000", chosen[0])


def test_pairs_of_items_are_merged_by_their_keys(full: Connection) -> None:
    """What a merge takes must not grow with all the pairs there are."""
    with full.transaction(force_rollback=True):
        full.execute("select rec.track('ann', 'i' || n) from generate_series(6, 600) n")
        full.execute("select rec.apply_users('{ann}')")
        plans = nested_plans(full, "select rec.merge_deltas()")
    merges = [plan for plan in plans if "Insert on item_transitions" in plan]
    assert len(merges) == 2
    assert not any("Seq Scan on item_transitions" in plan for plan in plans)


def test_the_events_that_wait_are_told_apart_by_a_hash(full: Connection) -> None:
    """One after the other, the time would grow with the square of the backlog of a user."""
    with full.transaction(force_rollback=True):
        full.execute("select rec.track('ann', 'i' || n) from generate_series(6, 9) n")
        plans = nested_plans(full, "select rec.apply_users('{ann}')")
    deltas = [plan for plan in plans if "insert into rec_internal.item_deltas" in plan]
    assert len(deltas) == 1
    filters = re.findall(r"Filter: .*event_id.*", deltas[0])
    assert filters
    assert all("NOT (ANY (event_id = (hashed SubPlan" in line for line in filters), filters
