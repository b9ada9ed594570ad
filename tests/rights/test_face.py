"""Schema `rec` is the face: what people touch, described and documented, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

TABLES: Final = {
    "items",
    "item_vectors",
    "events",
    "event_kinds",
    "horizons",
    "user_interests",
    "rankers",
    "settings",
    "tunings",
    "releases",
}
VIEWS: Final = {"status", "parked", "erasure_status", "daily_counts", "item_counts"}
FUNCTIONS: Final = {
    "track",
    "recommend",
    "score",
    "explain",
    "explain_list",
    "similar_items",
    "nearest",
    "popular",
    "next_items",
    "companion_items",
    "interest",
    "topics",
    "seen_items",
    "latest_items",
    "export_user",
    "forget_user",
    "undo_event",
    "pause_user",
    "resume_user",
    "rebuild_user",
    "wake",
    "apply_pending",
    "apply_users",
    "merge_deltas",
    "retry",
    "retry_items",
    "rebuild_collaborative",
    "make_partitions",
    "apply_retention",
    "health",
    "undo_tuning",
}
# What the documents do not tell of yet: to be emptied, never to grow.
ROOT: Final = Path(__file__).parents[2]


def test_schema_rec_has_the_functions_that_people_call_and_no_other(db: Connection) -> None:
    rows = db.execute("select proname from pg_proc where pronamespace = 'rec'::regnamespace")
    found = [name for (name,) in rows]
    assert set(found) == FUNCTIONS
    assert len(found) <= 45, "as `\\df rec.*` lists them"


def test_schema_rec_has_the_tables_and_views_that_people_touch_and_no_other(db: Connection) -> None:
    rows = db.execute(
        "select c.relkind::text, c.relname from pg_class c"
        " where c.relnamespace = 'rec'::regnamespace and c.relkind not in ('i', 'I')"
        " and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'i'"
        " and d.refobjsubid > 0)"
    )  # the sequence of an identity column is a part of that column
    found: dict[str, set[str]] = {}
    for kind, name in rows:
        found.setdefault(kind, set()).add(name)
    assert found == {"r": TABLES - {"events"}, "p": {"events"}, "v": VIEWS}


def test_schema_rec_has_no_type_but_those_of_its_tables_and_views(db: Connection) -> None:
    rows = db.execute(
        "select t.typname from pg_type t left join pg_class c on c.oid = t.typrelid"
        " where t.typnamespace = 'rec'::regnamespace and t.typcategory <> 'A'"
        " and c.oid is null or c.relkind = 'c' and c.relnamespace = 'rec'::regnamespace"
    )
    assert rows.fetchall() == []


def test_all_that_a_migration_makes_is_in_the_two_schemas(db: Connection) -> None:
    rows = db.execute(
        "select o.name from ("
        " select c.relnamespace, c.oid, c.oid::regclass::text from pg_class c"
        " union all select p.pronamespace, p.oid, p.oid::regprocedure::text from pg_proc p"
        " union all select t.typnamespace, t.oid, t.oid::regtype::text from pg_type t"
        ") o (home, oid, name) join pg_namespace n on n.oid = o.home"
        " where n.nspname not in ('rec', 'rec_internal') and o.oid >= 16384"
        " and n.nspname !~ '^pg_(toast|temp)'"
        " and not exists (select from pg_depend d where d.objid = o.oid and d.deptype = 'e')"
        " and not exists (select from pg_type e join pg_depend d on d.objid = e.oid"
        "  where e.typarray = o.oid and d.deptype = 'e')"
    )
    assert rows.fetchall() == []


def test_every_object_of_schema_rec_is_described(db: Connection) -> None:
    rows = db.execute(
        "select o.name from ("
        " select c.oid::regclass::text, obj_description(c.oid, 'pg_class') from pg_class c"
        " where c.relnamespace = 'rec'::regnamespace and c.relkind in ('r', 'p', 'v')"
        " union all select p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc')"
        " from pg_proc p where p.pronamespace = 'rec'::regnamespace"
        ") o (name, description) where o.description is null"
    )
    assert rows.fetchall() == []


def test_every_object_of_schema_rec_is_told_of_in_the_documents() -> None:
    told = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))
    )
    names = TABLES | VIEWS | FUNCTIONS
    untold = {name for name in names if not re.search(rf"\brec\.{name}\b", told)}
    assert untold == set()
