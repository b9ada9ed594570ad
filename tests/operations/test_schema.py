"""Migrations: the same schema by every road, and nothing outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from rec_pkg import schema
from rec_pkg.errors import SchemaMismatch, SchemaMissing, SchemaTooNew
from tests.support.databases import engine_of, new_database
from tests.support.programs import dump

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


@pytest.mark.clock
def test_down_and_up_gives_the_schema_of_a_fresh_database(
    database_url: str, engine: Engine
) -> None:
    fresh = dump(database_url)
    schema.downgrade(engine, "base")
    assert "rec.recommend" not in dump(database_url)
    schema.migrate(engine)
    assert dump(database_url) == fresh


@pytest.mark.clock
def test_a_database_of_a_newer_version_is_left_alone(
    db: psycopg.Connection[tuple[Any, ...]], engine: Engine
) -> None:
    db.execute("update rec_internal.alembic_version set version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="install that version"):
        schema.migrate(engine)


def test_migrating_again_changes_nothing(database_url: str, engine: Engine) -> None:
    fresh = dump(database_url)
    schema.migrate(engine)
    assert dump(database_url) == fresh


def test_nothing_outside_the_schema_is_touched(server: str, database_url: str) -> None:
    """All objects of the application's schemas belong to the application or to pgvector."""
    del server
    with psycopg.connect(database_url) as db:
        strangers = db.execute(
            "select c.oid::regclass from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname not in ('rec', 'rec_internal')"
            " and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')"
            " and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')"
        ).fetchall()
    assert strangers == []


def test_the_migration_works_where_pgvector_lives_in_another_schema(server: str) -> None:
    with new_database(server) as url, psycopg.connect(url, autocommit=True) as db:
        db.execute('create schema "Some Extensions"')
        db.execute('create extension vector schema "Some Extensions"')
        with engine_of(url) as engine:
            schema.migrate(engine)
        add_item_and_event(db)
        row = db.execute("select item_id from rec.recommend('u', 1, p_exclude_seen => false)")
        assert row.fetchone() == ("a",)


def add_item_and_event(db: psycopg.Connection[tuple[Any, ...]]) -> None:
    db.execute("insert into rec.items (item_id) values ('a')")
    db.execute(
        "insert into rec.item_vectors"
        " select 'a', array_fill(1, array[384])::\"Some Extensions\".halfvec"
    )
    db.execute("select rec.track('u', 'a')")
    db.execute("select rec.apply_pending()")


def test_another_version_of_the_re_run_objects_is_noticed(
    db: psycopg.Connection[tuple[Any, ...]], engine: Engine
) -> None:
    with engine.connect() as connection:
        schema.check(connection)
        db.execute("update rec_internal.state set sql_digest = 'of another version'")
        with pytest.raises(SchemaMismatch, match="pgrec migrate"):
            schema.check(connection)


def test_a_database_without_the_schema_is_noticed(engine: Engine) -> None:
    schema.downgrade(engine)
    with engine.connect() as connection, pytest.raises(SchemaMissing, match="pgrec migrate"):
        schema.check(connection)


def test_every_function_and_view_is_described(db: psycopg.Connection[tuple[Any, ...]]) -> None:
    bare = db.execute(
        "select p.oid::regprocedure::text from pg_proc p"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and obj_description(p.oid, 'pg_proc') is null"
        " union all select c.oid::regclass::text from pg_class c"
        " where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and c.relkind = 'v'"
        " and obj_description(c.oid, 'pg_class') is null"
    ).fetchall()
    assert [row[0] for row in bare] == []


def test_every_function_has_a_search_path_or_is_bound_when_created(
    db: psycopg.Connection[tuple[Any, ...]],
) -> None:
    open_ones = db.execute(
        "select p.oid::regprocedure::text from pg_proc p"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and p.prosqlbody is null and not exists ("
        "  select from unnest(p.proconfig) c where c like 'search_path=%')"
    ).fetchall()
    assert open_ones == []


def test_every_key_and_index_of_a_user_owned_table_contains_the_user(
    db: psycopg.Connection[tuple[Any, ...]],
) -> None:
    """So that the schema can be distributed by user."""
    without = db.execute(
        "select i.indexrelid::regclass::text from pg_index i"
        " join pg_class c on c.oid = i.indrelid"
        " and c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " where exists (select from pg_attribute a where a.attrelid = c.oid"
        "  and a.attname = 'user_id' and a.attnum = 1)"
        " and not exists (select from pg_attribute a where a.attrelid = i.indexrelid"
        "  and a.attname = 'user_id')"
    ).fetchall()
    assert without == []


@pytest.mark.clock
def test_partitions_are_made_ahead_and_strays_move_in(
    db: psycopg.Connection[tuple[Any, ...]],
) -> None:
    with db.transaction():  # in which no month ends
        db.execute("select rec.make_partitions(3)")
        db.execute(
            "insert into rec.events (user_id, item_id, occurred_at)"
            " values ('u', 'x', now() + interval '5 months'), ('u', 'y', '1999-01-01')"
        )
        strays = "select item_id from only rec_internal.events_default order by 1"
        assert db.execute(strays).fetchall() == [("x",), ("y",)]
        assert db.execute("select rec.make_partitions(6)").fetchone() == (3,)
        assert db.execute(strays).fetchall() == [("y",)]
        assert db.execute("select count(*) from rec.events").fetchone() == (2,)
        assert db.execute("select rec.make_partitions(6)").fetchone() == (0,)
