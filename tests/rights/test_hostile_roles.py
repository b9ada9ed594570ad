"""Roles that mean harm: what they put in the way, and what they write into arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[tuple[Any, ...]]

# What a definer's function may not reach: with it alone in the path nobody else's objects count.
CLOSED: Final = "search_path=rec, pg_temp"
UNQUOTED: Final = re.compile(r"%(?:\d\$)?s")
# Functions whose dynamic statements take more than identifiers: the statements come from the
# system's own catalogue, through regclass and pg_get_...def, and never from an argument.
FROM_CATALOGUE: Final = {
    "rec_internal.make_next_vectors",
    "rec_internal.index_next_vectors",
    "rec_internal.lock_vectors",
    "rec_internal.copy_privileges",
    "rec_internal.take_place",
    "rec_internal.drop_previous",
    "rec_internal.swap_vectors",
    "rec_internal.drop_partition",
    "rec_internal.forget_statistics",
    "rec_internal.start_over",
}
INJECTIONS: Final = [
    "'; drop table rec.items; --",
    "x'); drop table rec.items; --",
    '"; drop table rec.items; --',
    "$$; drop table rec.items; $$",
    "%s %I %L %1$s",
    "\\'; drop table rec.items; --",
    "' || (select fingerprint from rec_internal.encoders) || '",
]


@pytest.fixture
def shop(db: Connection) -> Connection:
    """Four items in two pairs, and a user who clicked on one of the first pair."""
    for item, near in [("a", 1), ("b", 1.2), ("y", -1), ("z", -1.2)]:
        db.execute("insert into rec.items (item_id, title) values (%s, %s)", [item, item])
        db.execute(
            "insert into rec.item_vectors"
            " values (%s, array_prepend(%s, array_fill(0.1, array[383]))::vector::halfvec)",
            [item, near],
        )
    db.execute("update rec.items set encoded_hash = content_hash")
    db.execute("select rec.track('ann', 'a')")
    return db


@pytest.fixture
def hostile(shop: Connection, database_url: str) -> Iterator[Connection]:
    """A connection of an application's role that may make objects in a schema of its own."""
    name = f"hostile_{uuid4().hex[:8]}"
    role = sql.Identifier(name)
    shop.execute(sql.SQL("create role {} in role rec_app").format(role))
    shop.execute(sql.SQL("create schema own authorization {}").format(role))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("set role {}").format(role))
        yield connection
    shop.execute(sql.SQL("drop owned by {}").format(role))
    shop.execute(sql.SQL("drop role {}").format(role))


def facts(db: Connection) -> list[Any]:
    """What the functions give, of what a stranger could want to change."""
    queries = (
        "select item_id, round(score::numeric, 6), path from rec.recommend('ann', 3)",
        "select item_id, round(similarity::numeric, 6), path from rec.similar_items('a', 3)",
        "select term, round(share::numeric, 6) from rec.explain('ann', 'b')",
        "select rec.seen_items('ann')",
        "select horizon, round(mass::numeric, 4) from rec.interest('ann')",
    )
    return [db.execute(query.encode()).fetchall() for query in queries]


def shadows(schema: str) -> list[str]:
    """Operators, functions, tables and types by the names that the functions of rec use."""
    return [
        (
            f"create function {schema}.far(vector, vector) returns float8 language sql immutable"
            " return 7"
        ),
        (
            f"create function {schema}.far(halfvec, halfvec) returns float8 language sql immutable"
            " return 7"
        ),
        *(
            f"create operator {schema}.<=> (leftarg = {kind}, rightarg = {kind},"
            f" function = {schema}.far)"
            for kind in ("vector", "halfvec")
        ),
        (
            f"create function {schema}.l2_normalize(vector) returns vector language sql immutable"
            " return $1 * $1"
        ),
        (
            f"create function {schema}.vector_norm(vector) returns float8 language sql immutable"
            " return 0"
        ),
        (
            f"create function {schema}.unnest(text[]) returns setof text language sql"
            " as 'select ''hacked'''"
        ),
        f"create function {schema}.cardinality(text[]) returns int language sql return 0",
        (
            f"create function {schema}.format(text, text) returns text language sql"
            " return 'drop table rec.items'"
        ),
        f"create function {schema}.recommend(text, integer) returns int language sql return 0",
        f"create function {schema}.content_hash(text) returns bytea language sql return ''::bytea",
        (
            f"create table {schema}.items (item_id text, available boolean, domain text,"
            " attributes jsonb)"
        ),
        f"create table {schema}.settings (exact_limit int)",
        f"create table {schema}.pending (user_id text)",
        f"create table {schema}.event_kinds (kind text)",
    ]


@pytest.mark.parametrize("schema", ["own", "pg_temp"])
def test_what_stands_in_a_schema_of_ones_own_or_in_pg_temp_changes_nothing(
    shop: Connection, hostile: Connection, schema: str
) -> None:
    before = facts(shop)
    assert facts(hostile) == before
    for statement in shadows(schema):
        hostile.execute(statement.encode())
    hostile.execute(f"set search_path = {schema}, pg_catalog, rec, public".encode())
    if schema == "own":
        assert hostile.execute("select '[1]'::vector <=> '[1]'::vector").fetchone() == (7.0,)
    assert hostile.execute("select count(*) from items").fetchone() == (0,)
    assert facts(hostile) == before
    hostile.execute("insert into rec.events (user_id, text) values ('ann', 'x')")
    assert hostile.execute("select count(*) from rec_internal.pending").fetchone() == (2,)
    row = hostile.execute("select text_hash = sha256('x') from rec.events where text = 'x'")
    assert row.fetchone() == (True,)
    assert hostile.execute("select rec.forget_user('ann')").fetchone() == (2,)


def test_operators_and_tables_in_the_schema_of_pgvector_change_nothing(
    shop: Connection, hostile: Connection
) -> None:
    """Such a role is trusted too far already: `pgrec doctor` is red if everybody is."""
    before = facts(shop)
    shop.execute("grant create on schema public to public")
    hostile.execute(
        "create function public.far(text, text) returns boolean language sql return false"
    )
    hostile.execute("create operator public.= (leftarg = text, rightarg = text, function = far)")
    hostile.execute("create table public.items (item_id text)")
    hostile.execute("create table public.pending (user_id text)")
    with pytest.raises(psycopg.errors.DuplicateFunction):
        hostile.execute(
            "create operator public.<=> (leftarg = halfvec, rightarg = halfvec,"
            " function = cosine_distance)"
        )
    assert facts(hostile) == before
    assert facts(shop) == before
    hostile.execute("select rec.track('ann', p_text => 'x')")
    assert hostile.execute("select count(*) from rec_internal.pending").fetchone() == (2,)
    shop.execute("revoke create on schema public from public")


def test_a_function_of_the_owner_reaches_nothing_but_rec(
    shop: Connection, hostile: Connection
) -> None:
    """What runs with the owner's rights holds even against who may create beside pgvector."""
    shop.execute("grant create on schema public to public")
    hostile.execute(
        "create function public.format(text, text) returns text language plpgsql"
        " as $$ begin raise 'hacked as %', current_user; end $$"
    )
    hostile.execute(
        "create function public.btrim(text, text default '') returns text language plpgsql"
        " as $$ begin raise 'hacked as %', current_user; end $$"
    )
    hostile.execute("select rec.track('ann', p_text => 'x')")
    shop.execute("set role rec_worker")
    shop.execute("select rec.make_partitions(9)")
    shop.execute("reset role")
    shop.execute("revoke create on schema public from public")


def test_every_function_pins_its_search_path_and_looks_into_pg_temp_last(db: Connection) -> None:
    loose = db.execute(
        "select p.oid::regprocedure::text, c.setting from pg_proc p"
        " left join lateral unnest(p.proconfig) c (setting) on c.setting like 'search_path=%'"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and p.prosqlbody is null"
        " and coalesce(c.setting !~ '^search_path=rec, (\\S+, )?pg_temp$', true)"
    ).fetchall()
    assert loose == []


def test_every_function_with_the_owners_rights_is_known_and_looks_nowhere_but_into_rec(
    db: Connection,
) -> None:
    rows = db.execute(
        "select p.oid::regproc::text, %s = any(p.proconfig) from pg_proc p"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and p.prosecdef order by 1",
        [CLOSED],
    ).fetchall()
    assert rows == [
        ("rec.apply_retention", True),
        ("rec.make_partitions", True),
        ("rec_internal.admit", True),
        ("rec_internal.admit_some", True),
        ("rec_internal.enqueue", True),
        ("rec_internal.forget_statistics", True),
        ("rec_internal.forget_visible", True),
        ("rec_internal.keep_unread", True),
        ("rec_internal.start_over", True),
        ("rec_internal.undo_visible", True),
        ("rec_internal.unqueue", True),
    ]


def test_every_view_is_read_with_the_rights_of_the_caller(db: Connection) -> None:
    open_ones = db.execute(
        "select c.oid::regclass::text from pg_class c"
        " where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and c.relkind in ('v', 'm')"
        " and not coalesce('security_invoker=true' = any(c.reloptions), false)"
    ).fetchall()
    assert {name for (name,) in open_ones} == {"rec.daily_counts", "rec.item_counts"}, (
        "those of the analyst, who may read nothing beneath them"
    )


def test_no_function_builds_a_statement_from_what_is_not_quoted(db: Connection) -> None:
    sources = db.execute(
        "select p.oid::regproc::text, p.prosrc from pg_proc p"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and p.prosrc ~* '\\mexecute\\M'"
    ).fetchall()
    assert {name for name, _ in sources} > FROM_CATALOGUE
    for name, source in sources:
        if name in FROM_CATALOGUE:
            continue
        built = re.findall(r"\bexecute\b(.*?);", source, re.DOTALL | re.IGNORECASE)
        for statement in built:
            assert statement.lstrip().startswith("format("), (name, statement)
            assert not UNQUOTED.search(statement), (name, statement)


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_is_written_into_arguments_is_never_run(
    shop: Connection, hostile: Connection, text: str
) -> None:
    before = shop.execute("select count(*) from rec.items").fetchone()
    for call in (
        "select rec.track(%(t)s, %(t)s, 'click', %(t)s, null, now(), %(t)s)",
        "select * from rec.recommend(%(t)s, 3, %(t)s, jsonb_build_object('k', %(t)s::text))",
        "select * from rec.similar_items(%(t)s, 3, %(t)s)",
        "select * from rec.explain(%(t)s, %(t)s)",
        "select * from rec.popular(3, %(t)s, '{}', array[%(t)s])",
        "select rec.export_user(%(t)s)",
        "select rec.forget_user(%(t)s)",
    ):
        hostile.execute(call.encode(), {"t": text})
    for call in (
        "select * from rec_internal.policies(%(t)s)",
        "select rec_internal.take_place(%(t)s)",
        "select rec_internal.drop_previous(%(t)s)",
        "select rec_internal.copy_privileges(%(t)s, %(t)s)",
    ):
        with pytest.raises(psycopg.Error):
            shop.execute(call.encode(), {"t": text})
    with pytest.raises(psycopg.Error, match="unknown event kind"):
        hostile.execute("select rec.track('u', 'a', %(t)s)", {"t": text})
    assert shop.execute("select count(*) from rec.items").fetchone() == before
