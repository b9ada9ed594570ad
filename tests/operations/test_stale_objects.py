"""What an earlier version made and this one does not make goes; what the application made stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rec_pkg import schema

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.engine import Engine

    Connection = psycopg.Connection[tuple[Any, ...]]

EARLIER = """
create function rec.recommend(p_user_id text, p_old boolean) returns text language sql return '';
create function rec_internal.helper(p_row rec.items, p_n integer[], p_time timestamptz)
returns text language sql return '';
create view rec.old_view as select item_id from rec.items;
create type rec_internal.old_type as (place integer);
create function rec_internal.of_old_type(p_old rec_internal.old_type)
returns integer language sql return (p_old).place;
insert into rec_internal.made (kind, signature) values
    ('routine', 'rec.recommend(text, boolean)'),
    ('routine', 'rec_internal.helper(rec.items, integer[], timestamp with time zone)'),
    ('view', 'rec.old_view'),
    ('type', 'rec_internal.old_type'),
    ('routine', 'rec.gone_already(text)'),
    ('view', 'rec.gone_view'),
    ('type', 'rec_internal.gone_type');
"""
OF_THE_APPLICATION = """
create function rec.mine(p_user_id text) returns text language sql return p_user_id;

create view rec.my_view as select item_id from rec.items;
create view public.my_view as select item_id from rec.items;
create type rec.my_type as (place integer);
"""


def objects(db: Connection) -> set[str]:
    rows = db.execute(
        "select p.oid::regprocedure::text from pg_proc p"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " union all select c.oid::regclass::text from pg_class c"
        " where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and c.relkind in ('v', 'c')"
    )
    return {name for (name,) in rows}


def made(db: Connection) -> set[tuple[str, str]]:
    return {(kind, signature) for kind, signature in db.execute("table rec_internal.made")}


def test_what_an_earlier_version_made_is_dropped(db: Connection, engine: Engine) -> None:
    fresh, noted = objects(db), made(db)
    db.execute(EARLIER)
    assert len(objects(db) - fresh) == 5
    schema.migrate(engine)
    assert objects(db) == fresh
    assert made(db) == noted


def test_what_the_application_made_stays(db: Connection, engine: Engine) -> None:
    fresh, noted = objects(db), made(db)
    db.execute(OF_THE_APPLICATION)
    own = objects(db) - fresh
    assert len(own) == 3
    schema.migrate(engine)
    schema.migrate(engine)
    assert objects(db) - fresh == own
    assert db.execute("select rec.mine('ann')").fetchone() == ("ann",)
    assert db.execute("select count(*) from public.my_view").fetchone() == (0,)
    assert made(db) == noted, "or the next migration would drop it"


def test_a_function_or_view_of_another_shape_is_replaced(db: Connection, engine: Engine) -> None:
    """Create or replace cannot change what a function returns, nor take a column from a view."""
    fresh, noted = objects(db), made(db)
    db.execute("drop view rec.parked; drop function rec.score, rec_internal.claim_items cascade")
    db.execute(
        "create function rec.score(p_user_id text, p_items text[],"
        " p_as_of timestamptz default null, p_ranker text default 'default')"
        " returns table (item_id text, price double precision) language sql return row('', 0)"
    )
    db.execute(
        "create function rec_internal.claim_items(p_limit integer) returns table (item_id text)"
        " language sql as $$ select ''; $$"
    )
    db.execute("create view rec.parked as select 1 as one, item_id as user_id from rec.items")
    schema.migrate(engine)
    assert objects(db) == fresh
    assert made(db) == noted
    db.execute("select score from rec.score('ann', '{}')")
    db.execute("select event_id from rec.parked")
    score = "rec.score(text, text[], timestamptz, text)"
    call = "select has_function_privilege('rec_app', %s, 'execute')"
    row = db.execute(call, [score]).fetchone()
    assert row == (True,), "rights are granted again"
