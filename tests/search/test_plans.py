"""
The plans of the hot queries: the index is used where the speed depends on it.

Statements inside functions are found by the comment that they carry, such as `/* search */`, or by
what their plan reads and calls, never by phrases of their text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from tests.support.shops import add_items

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
        fill(db, ITEMS)
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


def fill(db: Connection, items: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(items, 384))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    add_items(
        db,
        {f"i{number}": vector for number, vector in enumerate(units)},
        attributes=[json.dumps({"rare": number % 100 == 0}) for number in range(items)],
    )


@dataclass(frozen=True)
class Plan:
    """A statement and its plan, as auto_explain tells it in JSON."""

    text: str
    root: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.text}\n{json.dumps(self.root, indent=1)}"

    @cached_property
    def nodes(self) -> list[dict[str, Any]]:
        """All nodes; each knows the one above it as `Parent`."""
        found, left = [], [self.root]
        while left:
            node = left.pop()
            found.append(node)
            left += [child | {"Parent": node} for child in node.get("Plans", [])]
        return found

    def having(self, **fields: str) -> list[dict[str, Any]]:
        """Return the nodes whose fields match these patterns; `_` stands for a space."""
        patterns = {name.replace("_", " "): pattern for name, pattern in fields.items()}
        return [
            node
            for node in self.nodes
            if all(re.fullmatch(p, str(node.get(name))) for name, p in patterns.items())
        ]

    def reads(self, table: str) -> bool:
        """Return whether any node scans a table of this name."""
        return bool(self.having(Node_Type=".*Scan", Relation_Name=table))

    def uses(self, index: str) -> bool:
        """Return whether any node searches an index of this name."""
        return bool(self.having(Index_Name=index))


EVENTS = r"events_(\d{4}_\d\d|default)"


def indexes(db: Connection, query: str) -> set[str]:
    """Names of the indexes in the plan of `query`."""
    row = db.execute(f"explain (format json) {query}").fetchone()
    assert row
    plan = Plan(query, row[0][0]["Plan"])
    return {node["Index Name"] for node in plan.having(Index_Name=r"\w+") if "Index Name" in node}


def nested_plans(db: Connection, query: str, *, analyze: bool = False) -> list[Plan]:
    """The plans of all statements that run inside the functions of `query`."""
    plans: list[Plan] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        told = json.loads("{" + (notice.message_primary or "").partition("{")[2])
        plans.append(Plan(told["Query Text"], told["Plan"]))

    db.execute("load 'auto_explain'")
    db.execute("set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on")
    db.execute("set auto_explain.log_format = 'json'; set auto_explain.log_verbose = on")
    db.execute(f"set auto_explain.log_analyze = {analyze}")
    db.add_notice_handler(keep)
    db.execute("set client_min_messages = log")
    db.execute(query)
    db.execute("reset client_min_messages")
    db.remove_notice_handler(keep)
    return plans


def tagged(plans: list[Plan], tag: str) -> list[Plan]:
    return [plan for plan in plans if f"/* {tag} */" in plan.text]


def only(plans: list[Plan]) -> Plan:
    assert len(plans) == 1, "\n\n".join(map(str, plans)) or "no such statement"
    return plans[0]


@pytest.mark.parametrize(
    "near",
    [f"{INTEREST}::halfvec", "(select embedding from rec.item_vectors where item_id = 'i7')"],
)
def test_the_plain_query_of_an_analyst_uses_the_index(full: Connection, near: str) -> None:
    query = f"select item_id from rec.item_vectors order by embedding <=> {near} limit 10"
    assert HNSW in indexes(full, query)


def test_the_searches_inside_recommend_are_one_statement_on_the_index(full: Connection) -> None:
    search = only(tagged(nested_plans(full, LIST), "search"))
    assert search.having(Node_Type="Index Scan", Index_Name=HNSW), search
    assert search.having(Filter=".*hashed SubPlan.*"), search


def test_a_single_search_uses_the_index(full: Connection) -> None:
    search = only(
        tagged(nested_plans(full, f"select * from rec.nearest({INTEREST}, 10)"), "search")
    )
    assert search.having(Node_Type="Index Scan", Index_Name=HNSW), search


def test_a_list_looks_its_items_up_and_reads_the_transitions_once(full: Connection) -> None:
    plans = nested_plans(full, LIST)
    for plan in plans:
        assert not plan.having(Node_Type="Seq Scan", Relation_Name="item_(vectors|transitions)")
        assert not plan.having(Node_Type="Gather.*")
    only([plan for plan in plans if plan.reads("item_transitions")])


def test_a_list_reads_no_large_table_from_end_to_end(full: Connection) -> None:
    """A count of whether a thousand items match stops there."""
    large = f"items|item_vectors|item_transitions|{EVENTS}"
    scans = [
        node
        for plan in nested_plans(full, LIST, analyze=True)
        for node in plan.having(Node_Type="Seq Scan", Relation_Name=large)
        if node["Plan Rows"] >= 10
    ]
    assert [node["Relation Name"] for node in scans] == ["items"]
    assert scans[0]["Parent"]["Node Type"] == "Limit"
    assert scans[0]["Actual Rows"] == 1001


def test_a_list_reads_a_small_catalogue_once(db: Connection) -> None:
    """One plan serves all filters; of them the planner thinks that they leave next to nothing."""
    fill(db, 1500)
    db.execute("insert into rec_internal.popularity select item_id, random() from rec.items")
    db.execute("select rec.track('ann', 'i' || n) from generate_series(1, 5) n")
    db.execute("vacuum analyze")
    plans = nested_plans(db, LIST)
    assert any(plan.uses(HNSW) for plan in plans)
    scans = [
        node for plan in plans for node in plan.having(Node_Type="Seq Scan", Relation_Name="items")
    ]
    assert [node["Parent"]["Node Type"] for node in scans] == ["Limit"], "to count if few match"


def test_the_stored_and_the_pending_interest_are_found_by_their_keys(full: Connection) -> None:
    with full.transaction(force_rollback=True):
        full.execute("set local enable_seqscan = off")  # of a few rows
        full.execute("discard plans")
        plans = nested_plans(full, LIST)
    sums = only([plan for plan in plans if plan.reads("user_interests")])
    for key in ("user_interests_pkey", "pending_pkey"):
        assert sums.having(Index_Name=key, Index_Cond=r"\(+(\w+\.)?user_id = .*"), sums


@pytest.mark.parametrize("query", ["select rec.retry()", "select rec_internal.claim_texts(10)"])
def test_what_is_parked_and_texts_are_found_among_all_that_waits(
    full: Connection, query: str
) -> None:
    """By one index, for each costs every INSERT into rec.events."""
    queue = [plan for plan in nested_plans(full, query) if plan.reads("pending")]
    assert queue[0].uses("pending_texts_and_parked"), queue[0]


@pytest.mark.parametrize("function", ["latest_shares", "dislikes", "topics"])
def test_the_latest_events_come_from_the_index_of_the_user(full: Connection, function: str) -> None:
    """In their order, so that reading stops as soon as there are enough."""
    call = f"rec_internal.{function}('user 1', rec_internal.ranker('default'))"
    backward = {"Index_Name": rf"{EVENTS}_pkey", "Scan_Direction": "Backward"}
    plans = nested_plans(full, f"select * from {call}")
    only([plan for plan in plans if plan.having(Node_Type="Index Scan", **backward)])


def test_what_people_went_on_to_comes_from_the_index_in_its_order(full: Connection) -> None:
    steps = only([plan for plan in nested_plans(full, LIST) if plan.reads("item_transitions")])
    assert steps.uses("item_transitions_strongest"), steps


def test_a_list_without_a_filter_is_not_planned_anew(full: Connection) -> None:
    """A plan for any arguments names them by number; one of its own has their values."""
    plans = nested_plans(full, LIST)
    scored = [plan for plan in plans if plan.having(Function_Name="explore")]
    for statement in (tagged(plans, "search"), tagged(plans, "trending"), scored):
        plan = only(statement)
        fields = [json.dumps({**node, "Parent": None, "Plans": None}) for node in plan.nodes]
        assert any(re.search(r"\$\d", field) for field in fields), plan


def test_directions_that_are_all_but_equal_are_searched_once(full: Connection) -> None:
    """One who only ever clicked on one item has one topic and two horizons in one direction."""
    searches = {}
    for user in ("ann", "bob"):
        plans = nested_plans(full, f"select * from rec.recommend('{user}')", analyze=True)
        scans = only(tagged(plans, "search")).having(Index_Name=HNSW)
        searches[user] = [node["Actual Loops"] for node in scans]
    assert searches["bob"] == [1]
    assert searches["ann"][0] > 1


def test_more_rows_are_compared_for_more_interests(full: Connection) -> None:
    call = "select * from rec.recommend('{}', p_filter => '{{\"rare\": true}}')"
    with full.transaction(force_rollback=True):
        full.execute("update rec.rankers set exact_limit = 20, candidates = 10")  # of 30
        compared = {
            user: bool(tagged(nested_plans(full, call.format(user)), "exact search"))
            for user in ("ann", "bob")
        }
    assert compared == {"ann": True, "bob": False}


def test_a_list_among_few_rows_compares_them_once_for_all_interests(full: Connection) -> None:
    call = "select * from rec.recommend('ann', p_filter => '{\"rare\": true}')"
    plans = nested_plans(full, call)
    assert not any(plan.uses(HNSW) for plan in plans)
    assert only(tagged(plans, "exact search")).uses("items_attributes")


def test_a_search_among_few_rows_does_not_scan_the_index(full: Connection) -> None:
    query = f"select * from rec.nearest({INTEREST}, 10, p_filter => '{{\"rare\": true}}')"
    plans = nested_plans(full, query)
    assert not any(plan.uses(HNSW) for plan in plans)
    assert only(tagged(plans, "exact search")).uses("items_attributes")


def test_new_items_are_found_by_the_partial_index(full: Connection) -> None:
    assert indexes(full, "select item_id from rec.items where stale") == {"items_to_encode"}


def test_the_trending_items_come_from_the_index(full: Connection) -> None:
    trending = only(tagged(nested_plans(full, "select * from rec.popular(10)"), "trending"))
    assert trending.uses("popularity_trending"), trending


def test_companions_are_found_by_both_indexes_of_transitions(full: Connection) -> None:
    plans = nested_plans(full, "select * from rec.companion_items('{i1,i2,i3}')")
    companions = [plan for plan in plans if plan.reads("item_transitions")]
    assert companions
    for plan in companions:
        assert plan.having(Node_Type="Index Scan", Index_Name="item_transitions_strongest"), plan
        assert plan.having(Node_Type="Index Scan", Index_Name="item_transitions_arriving"), plan


def test_a_term_without_weight_is_not_computed(full: Connection) -> None:
    plans = nested_plans(full, LIST)
    assert any(plan.uses("item_transitions_strongest") for plan in plans)
    assert not any(plan.uses("item_transitions_arriving") for plan in plans)


def test_the_newest_items_to_explore_come_from_the_index(full: Connection) -> None:
    with full.transaction(force_rollback=True):
        full.execute("update rec.rankers set exploration = 0.2")
        plans = nested_plans(full, LIST)
    assert any(plan.uses("items_latest") for plan in plans)
    by_age = [plan for plan in plans if plan.having(Node_Type="Sort", Sort_Key=".*created_at.*")]
    assert by_age == []


def test_what_a_user_has_seen_is_found_by_an_index(full: Connection) -> None:
    plans = nested_plans(full, "select rec.seen_items('ann')")
    seen = [plan for plan in plans if plan.reads("event_kinds") and plan.reads(EVENTS)]
    assert seen
    assert all(plan.having(Index_Cond=r"\(+(\w+\.)?user_id = 'ann'.*") for plan in seen)


def test_the_events_of_the_claimed_rows_are_found_by_the_key(full: Connection) -> None:
    with full.transaction(force_rollback=True):
        full.execute("select rec.track('ann', 'i' || n) from generate_series(6, 9) n")
        plans = nested_plans(full, "select rec.apply_users('{ann}')")
    folded = only(
        [plan for plan in plans if plan.having(Operation="Insert", Relation_Name="user_interests")]
    )
    by_key = {"Node_Type": "Index Scan", "Index_Name": rf"{EVENTS}_pkey"}
    assert folded.having(**by_key, Filter=r".*ANY \(\S*event_id = \(hashed SubPlan.*"), folded


def test_of_a_long_queue_a_part_is_read(full: Connection) -> None:
    """Or what a call takes would grow with all that is left of an import."""
    with full.transaction(force_rollback=True):
        full.execute(
            "insert into rec.events (user_id, item_id)"
            " select 'crowd ' || n % 40, 'i' || n % 700 from generate_series(1, 16000) n"
        )
        plans = nested_plans(full, "select rec.apply_pending(1)", analyze=True)
    parts = [
        node
        for plan in plans
        if plan.reads("pending")
        for node in plan.having(Node_Type="Limit", Actual_Rows="10000(\\.0+)?")
    ]
    assert len(parts) == 1


def test_pairs_of_items_are_merged_by_their_keys(full: Connection) -> None:
    """What a merge takes must not grow with all the pairs there are."""
    with full.transaction(force_rollback=True):
        full.execute("select rec.track('ann', 'i' || n) from generate_series(6, 600) n")
        full.execute("select rec.apply_users('{ann}')")
        plans = nested_plans(full, "select rec.merge_deltas()")
    written = {"Operation": "Insert", "Relation_Name": "item_transitions"}
    assert len([plan for plan in plans if plan.having(**written)]) == 2
    for plan in plans:
        assert not plan.having(Node_Type="Seq Scan", Relation_Name="item_transitions"), plan


def test_the_events_that_wait_are_told_apart_by_a_hash(full: Connection) -> None:
    """One after the other, the time would grow with the square of the backlog of a user."""
    with full.transaction(force_rollback=True):
        full.execute("select rec.track('ann', 'i' || n) from generate_series(6, 9) n")
        plans = nested_plans(full, "select rec.apply_users('{ann}')")
    written = {"Operation": "Insert", "Relation_Name": "item_deltas"}
    deltas = only([plan for plan in plans if plan.having(**written)])
    filters = [node["Filter"] for node in deltas.having(Filter=".*event_id.*")]
    assert filters
    hashed = r"NOT \(ANY \(\S*event_id = \(hashed SubPlan"
    assert all(re.search(hashed, condition) for condition in filters), filters
