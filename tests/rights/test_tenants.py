"""Tenants behind row-level policies: each is served as if the database were its own."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

Connection = psycopg.Connection[tuple[Any, ...]]

DIMS: Final = 384
SIZES: Final = {"large": 2360, "middle": 600, "hundredth": 30, "ten": 10}
USERS: Final = 6
BEGAN: Final = datetime.now(UTC)  # one moment for all databases, whichever day each is filled on
LATER: Final = f"'{(BEGAN + timedelta(days=1000)).isoformat()}'"
RECIPE: Final = Path(__file__).resolve().parents[2] / "docs" / "tenants.md"


def recipe() -> str:
    """The first block of SQL of the page on tenants."""
    found = re.search(r"```sql\n(.*?)```", RECIPE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def vectors(tenant: str) -> Any:  # noqa: ANN401  # an array
    """Unit vectors around twenty centres that all tenants share."""
    centres = np.random.default_rng(0).normal(size=(20, DIMS))
    random = np.random.default_rng(len(tenant))
    noise = random.normal(size=(SIZES[tenant], DIMS))
    found = centres[random.integers(0, 20, SIZES[tenant])] + noise
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fill(db: Connection, tenant: str) -> None:
    with db.cursor() as cursor:
        with cursor.copy("copy rec.items (item_id, title, attributes) from stdin") as copy:
            for number in range(SIZES[tenant]):
                row = (f"{tenant}:{number}", f"{tenant} {number}", json.dumps({"tenant": tenant}))
                copy.write_row(row)
        with cursor.copy("copy rec.item_vectors from stdin with (format binary)") as copy:
            copy.set_types(["text", "halfvec"])
            for number, vector in enumerate(vectors(tenant)):
                copy.write_row((f"{tenant}:{number}", HalfVector(vector)))
    random = np.random.default_rng(7)
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec.events (user_id, item_id, kind, text, occurred_at, received_at)"
            " values (%s, %s, %s, %s, %s, now())",
            [
                (
                    f"{tenant}:user {n % USERS}",
                    f"{tenant}:{random.integers(min(SIZES[tenant], 20))}",
                    "dislike" if n % 17 == 16 else "click",
                    "a text" if n % 15 == 0 else None,
                    BEGAN - timedelta(hours=n),
                )
                for n in range(USERS * 7)
            ],
        )

    db.execute("insert into rec_internal.paused_users (user_id) values (%s)", [f"{tenant}:quiet"])
    db.execute(
        "insert into rec_internal.interest_bases (user_id, horizon, interest, mass, as_of)"
        " select %s, horizon, array_fill(1, array[384])::vector, 1, '2024-01-01' from rec.horizons",
        [f"{tenant}:gone"],
    )


def settle(db: Connection) -> None:
    """Encode and fold as the worker does, but for two events that stay in the queue."""
    db.execute("update rec.items set encoded_hash = content_hash")
    db.execute("set role rec_worker")
    db.execute("select rec_internal.register_encoder(repeat('a', 64), 'made up', '{}', %s)", [DIMS])
    db.execute(
        "select rec_internal.store_texts(repeat('a', 64), array_agg(distinct text_hash),"
        " array[(array_fill(1, array[384]))::halfvec]) from rec.events where text_hash is not null"
    )
    while db.execute("select rec.apply_pending()").fetchone() != (0,):
        pass
    db.execute("select rec.merge_deltas()")
    db.execute("reset role")
    db.execute(
        "insert into rec.events (user_id, item_id, occurred_at)"
        " select distinct on (split_part(user_id, ':', 1)) user_id, item_id,"
        " %s::timestamptz"
        " from rec.events order by split_part(user_id, ':', 1), occurred_at desc",
        [BEGAN],
    )
    db.execute("analyze")


@pytest.fixture(scope="module")
def shared(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Connection]:
    """All tenants in one database behind the recipe's policies."""
    with new_database() as url, psycopg.connect(url, autocommit=True) as db:
        register_vector(db)
        db.execute(recipe().encode())
        for tenant in SIZES:
            fill(db, tenant)
        settle(db)
        # so that the larger tenants are served by the index
        db.execute("update rec.rankers set exact_limit = 40, together_weight = 0.5")
        yield db


@pytest.fixture(scope="module")
def own(
    new_database: Callable[[], AbstractContextManager[str]],
) -> Iterator[dict[str, Connection]]:
    """A database for each tenant, without policies, that compares all rows for every list."""
    with ExitStack() as stack:
        databases = {}
        for tenant in SIZES:
            url = stack.enter_context(new_database())
            db = stack.enter_context(psycopg.connect(url, autocommit=True))
            register_vector(db)
            fill(db, tenant)
            settle(db)
            db.execute("update rec.rankers set exact_limit = 100000, together_weight = 0.5")
            databases[tenant] = db
        yield databases


@contextmanager
def acting(db: Connection, tenant: str) -> Iterator[None]:
    """The block runs as the application of a tenant, and leaves nothing behind."""
    with db.transaction(force_rollback=True):
        db.execute("select set_config('app.tenant', %s, true)", [tenant])
        db.execute("set local role rec_app")
        yield


LISTS = {
    "recommend": "select item_id from rec.recommend({user}, 20)",
    "recommend all": "select item_id from rec.recommend({user}, 20, p_exclude_seen => false)",
    "recommend past": "select item_id from rec.recommend({user}, 20,"
    f" p_as_of => '{(BEGAN - timedelta(hours=9)).isoformat()}')",
    "similar_items": "select item_id from rec.similar_items({item}, 20)",
    "similar_items few": "select item_id from rec.similar_items({item}, 5)",
    "nearest": "select n.item_id from rec.interest({user}) i"
    " cross join lateral rec.nearest(i.interest, 60) n order by i.horizon, n.similarity desc",
    "popular": "select item_id from rec.popular(20)",
    "next_items": "select item_id from rec.next_items(array[{item}], 20)",
    "companion_items": "select item_id from rec.companion_items(array[{item}], 20)",
    "candidates": "select c.item_id from rec_internal.ranker('default') r"
    " cross join rec_internal.profile_of({user}, r) u"
    " cross join rec_internal.candidates(u, r, 30, null, '{{}}', '{{}}') c order by 1",
    "seen_items": "select unnest(rec.seen_items({user})) order by 1",
    "latest_items": "select unnest(rec.latest_items({user}, 9))",
    "export": "select jsonb_path_query(rec.export_user({user}),"
    " '$.interests[*].items[*].item_id') #>> '{{}}'",
    "export events": "select jsonb_path_query(rec.export_user({user}), '$.events[*].item_id')"
    " #>> '{{}}'",
    "vectors": "select item_id from rec.item_vectors order by 1",
    "popularity": "select item_id from rec_internal.popularity order by 1",
    "transitions": "select from_item from rec_internal.item_transitions"
    " order by from_item, to_item",
}
FIGURES = {
    "explain": "select term, share, occurred_at, kind, item_id, title, text"
    " from rec.explain({user}, {item}) order by term, occurred_at, item_id",
    "score": "select score from rec.score({user}, array[{item}])",
    "interest": "select horizon, mass, as_of from rec.interest({user})",
    "topics": "select topic, share from rec.topics({user})",
    "status": "select items, items_to_encode, items_failed, events, users, texts, pending, parked,"
    " deltas from rec.status",
    "queue": "select pending, parked, items_to_encode from rec_internal.queue",
    "parked": "select count(*) from rec.parked",
    "users": "select count(*) from rec_internal.visible_users",
    "events": "select count(*) from rec_internal.visible_events",
    "views": "select (select count(*) from rec_internal.event_vectors where embedding is not null),"
    " (select count(*) from rec_internal.chosen_events),"
    " (select count(*) from rec_internal.folded_events)",
}


def answers(db: Connection, tenant: str, query: str) -> list[list[tuple[Any, ...]]]:
    """What the tenant gets for each of its users and for one of its items."""
    with acting(db, tenant):
        return [
            db.execute(
                query.format(user=f"'{tenant}:user {number}'", item=f"'{tenant}:{number}'").encode()
            ).fetchall()
            for number in range(USERS)
        ]


def alike(row: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Whether rows are the same but for what the seconds between them take from a figure."""
    return all(
        one == pytest.approx(other, abs=1e-3) if isinstance(one, float) else one == other
        for one, other in zip(row, expected, strict=True)
    )


@pytest.mark.clock
@pytest.mark.parametrize("tenant", SIZES)
def test_a_tenant_gets_the_lists_of_a_database_of_its_own(
    shared: Connection, own: dict[str, Connection], tenant: str
) -> None:
    recalls = {}
    for name, query in LISTS.items():
        found, wanted = answers(shared, tenant, query), answers(own[tenant], tenant, query)
        assert any(wanted), name
        if name != "candidates":  # of several searches together
            assert [len(rows) for rows in found] == [len(rows) for rows in wanted], name
        assert all(row[0].startswith(f"{tenant}:") for rows in found for row in rows), name
        hits = [len({*some} & {*all_}) for some, all_ in zip(found, wanted, strict=True)]
        recalls[name] = sum(hits) / sum(len({*rows}) for rows in wanted)
    small = SIZES[tenant] <= 40
    assert {name: share for name, share in recalls.items() if share < (1 if small else 0.99)} == {}


@pytest.mark.clock
@pytest.mark.parametrize("tenant", SIZES)
def test_a_tenant_gets_the_figures_of_a_database_of_its_own(
    shared: Connection, own: dict[str, Connection], tenant: str
) -> None:
    for name, query in FIGURES.items():
        found, wanted = answers(shared, tenant, query), answers(own[tenant], tenant, query)
        assert any(wanted), name
        assert [len(rows) for rows in found] == [len(rows) for rows in wanted], name
        for row, expected in zip(chain(*found), chain(*wanted), strict=True):
            assert alike(row, expected), (name, row, expected)


@pytest.mark.parametrize(("tenant", "path"), [("hundredth", "exact"), ("middle", "hnsw")])
def test_small_tenants_are_compared_and_large_ones_searched(
    shared: Connection, tenant: str, path: str
) -> None:
    with acting(shared, tenant):
        query = "select distinct path from rec.similar_items(%s, 20)"
        assert shared.execute(query, [f"{tenant}:1"]).fetchall() == [(path,)]


@pytest.mark.clock
def test_an_item_of_another_tenant_is_like_one_that_does_not_exist(shared: Connection) -> None:
    shared.execute("update rec.rankers set newness_weight = 0.5")
    for query in (
        "select term, share from rec.explain('ten:user 1', {item})",
        "select score from rec.score('ten:user 1', array[{item}])",
        "select item_id from rec.similar_items({item})",
        "select item_id from rec.next_items(array[{item}])",
        "select item_id from rec.companion_items(array[{item}])",
        (
            "select outgoing, incoming from rec_internal.flows(array[{item}],"
            f" rec_internal.ranker('default'), {LATER})"
        ),
    ):
        with acting(shared, "ten"):
            foreign = shared.execute(query.format(item="'large:1'").encode()).fetchall()
            missing = shared.execute(query.format(item="'no such'").encode()).fetchall()
        assert foreign == missing, query
    shared.execute("update rec.rankers set newness_weight = 0")


@pytest.mark.clock
def test_a_user_of_another_tenant_is_like_one_who_was_never_there(shared: Connection) -> None:
    for query in (
        f"select item_id, score from rec.recommend({{user}}, p_as_of => {LATER})",
        "select * from rec.interest({user})",
        "select * from rec.topics({user})",
        "select rec.seen_items({user}), rec.latest_items({user}, 9)",
        "select rec.export_user({user}) - 'exported_at' - 'user_id'",
        "select rec.forget_user({user})",
        f"select * from rec.explain({{user}}, 'ten:1', {LATER})",
    ):
        with acting(shared, "ten"):
            foreign = shared.execute(query.format(user="'large:user 1'").encode()).fetchall()
            missing = shared.execute(query.format(user="'no such'").encode()).fetchall()
        assert foreign == missing, query


def test_who_is_paused_and_what_was_kept_of_dropped_events_is_the_tenants_own(
    shared: Connection,
) -> None:
    with acting(shared, "ten"):
        seen = shared.execute(
            "select user_id from rec_internal.paused_users"
            " union select user_id from rec_internal.interest_bases"
        ).fetchall()
        assert sorted(seen) == [("ten:gone",), ("ten:quiet",)]
        assert shared.execute("select * from rec.interest('large:gone', now())").fetchall() == []
        assert shared.execute("select rec.resume_user('large:quiet')").fetchone() == (False,)
        assert shared.execute("select rec.forget_user('ten:quiet')").fetchone() == (0,)
        assert shared.execute("select count(*) from rec_internal.paused_users").fetchone() == (0,)
    with acting(shared, "ten"), pytest.raises(psycopg.errors.InsufficientPrivilege):
        shared.execute("select rec.pause_user('large:user 1')")


def test_a_tenant_erases_its_own_users_alone(shared: Connection) -> None:
    count = "select count(*) from rec.events where user_id = %s"
    event = "select min(event_id) from rec.events where user_id = %s"
    row = shared.execute(event, ["large:user 1"]).fetchone()
    assert row
    with acting(shared, "ten"):
        call = "select rec.undo_event('large:user 1', %s)"
        assert shared.execute(call, row).fetchone() == (False,)
        assert shared.execute("delete from rec_internal.visible_users").rowcount == USERS + 2
        shared.execute("reset role")
        assert shared.execute(count, ["large:user 1"]).fetchone() == (7,)
        assert shared.execute(count, ["ten:user 1"]).fetchone() == (0,)


@pytest.mark.parametrize(
    ("user", "item"),
    [("large:eve", "ten:1"), ("ten:eve", "large:1"), ("ten:eve", "no such"), ("eve", None)],
)
def test_a_tenant_logs_events_of_its_own_users_and_items_alone(
    shared: Connection, user: str, item: str | None
) -> None:
    call = "select rec.track(%s, %s, p_text => 'x')"
    with acting(shared, "ten"):
        shared.execute(call, ["ten:eve", "ten:1"])
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            shared.execute(call, [user, item])


@pytest.mark.parametrize("tenant", ["", "no such", "larg", "large:user", "%"])
def test_without_a_tenant_nothing_is_seen(shared: Connection, tenant: str) -> None:
    with acting(shared, tenant):
        assert shared.execute("select * from rec.recommend('large:user 1')").fetchall() == []
        assert shared.execute("select * from rec.popular()").fetchall() == []
        row = shared.execute("select items, events, users, texts, pending from rec.status")
        assert row.fetchone() == (0, 0, 0, 0, 0)


def test_policies_on_items_alone_hold_in_every_list(
    new_database: Callable[[], AbstractContextManager[str]],
) -> None:
    """Ten of 3,000 rows: without a further scan HNSW would give hardly one of them."""
    with new_database() as url, psycopg.connect(url, autocommit=True) as db:
        register_vector(db)
        for tenant in SIZES:
            fill(db, tenant)
        settle(db)
        db.execute("alter table rec.items enable row level security")
        db.execute(
            "create policy own on rec.items to rec_app"
            " using (attributes ->> 'tenant' = current_setting('app.tenant', true))"
        )
        with acting(db, "ten"):
            for query in (LISTS["similar_items"], LISTS["recommend all"], LISTS["popular"]):
                rows = db.execute(query.format(user="'ten:user 1'", item="'ten:1'").encode())
                items = [item for (item,) in rows]
                assert len(items) >= 9, query
                assert all(item.startswith("ten:") for item in items)


def test_where_there_is_no_policy_there_is_nothing_to_pay(
    shared: Connection, own: dict[str, Connection]
) -> None:
    db = own["large"]
    with db.transaction(force_rollback=True):
        db.execute("update rec.rankers set exact_limit = 40")
        db.execute("set local role rec_app")
        free = plan_of_search(db, "large:1")
    with acting(shared, "large"):
        paid = plan_of_search(shared, "large:1")
    assert "Index Scan using item_vectors_hnsw" in free
    assert "SubPlan" not in free
    assert "SubPlan" in paid


def plan_of_search(db: Connection, item: str) -> str:
    """The plan of the vector search for what is similar to an item."""
    vector = db.execute(
        "select embedding::text from rec.item_vectors where item_id = %s", [item]
    ).fetchone()
    assert vector
    db.execute("set local plan_cache_mode = force_custom_plan")
    db.execute("set local hnsw.iterative_scan = 'strict_order'")
    rows = db.execute(
        "explain select v.item_id, v.embedding <=> %s::halfvec from rec.item_vectors v"
        " join rec.items i on i.item_id = v.item_id where i.available"
        " order by v.embedding <=> %s::halfvec limit 10",
        [vector[0], vector[0]],
    )
    return "\n".join(line for (line,) in rows)
