"""Who may do what in both schemas: every object, every role, every verb."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, make_url

from rec_pkg.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rec_pkg.encoder import Encoder

Connection = psycopg.Connection[tuple[Any, ...]]

ROLES: Final = ("rec_app", "rec_worker", "rec_analyst", "nobody")
NOTHING: Final = {"rec_app": "", "rec_worker": "", "rec_analyst": "", "nobody": ""}
LOGGED: Final = "insert(dedupe_key, item_id, kind, occurred_at, text, user_id, value)"

# What people touch (schema rec), then the engine (schema rec_internal).
RELATIONS: Final = {
    f"{schema}.{name}": NOTHING | {f"rec_{role}": rights for role, rights in granted.items()}
    for schema, relations in {
        "rec": {
            # the catalogue
            "items": {
                "app": "select",
                "worker": "select, update(encode_error, encoded_hash)",
                "analyst": "select",
            },
            "item_vectors": {
                "app": "select",
                "worker": "select, insert, delete, update(embedding)",
            },
            "event_kinds": {"app": "select", "worker": "select", "analyst": "select"},
            "horizons": {"app": "select", "worker": "select", "analyst": "select"},
            # what users did
            "events": {"app": f"select, {LOGGED}", "worker": "select, update(text)"},
            "user_interests": {"app": "select", "worker": "select, insert, update"},
            # what is dropped, and what is published
            "erasure_status": {"worker": "select"},
            "daily_counts": {"analyst": "select"},
            "item_counts": {"analyst": "select"},
            "releases": {"analyst": "select"},
            # how it is run
            "rankers": {"app": "select"},
            "settings": {"app": "select", "worker": "select"},
            "tunings": {},
            "status": {"app": "select"},
            "parked": {"app": "select"},
            # Sequences of identity columns need no right.
            "events_event_id_seq": {},
            "tunings_tuning_id_seq": {},
            "releases_release_id_seq": {},
        },
        "rec_internal": {
            # vectors and counts
            "encoders": {
                "app": "select(active, base, created_at, dims, fingerprint, name, record)",
                "worker": "select, insert, update(active)",
            },
            "texts": {"app": "select", "worker": "select, insert"},
            "popularity": {"app": "select", "worker": "select, insert, update, delete"},
            "item_transitions": {"app": "select", "worker": "select, insert, update, delete"},
            "item_deltas": {"app": "select", "worker": "select, insert, delete"},
            "item_deltas_delta_id_seq": {},
            # the log and its queue
            "pending": {
                "app": "select",
                "worker": "select, delete, update(attempts, error, retry_at)",
            },
            "queue": {"app": "select", "worker": "select"},
            "event_vectors": {"app": "select", "worker": "select"},
            "chosen_events": {"app": "select", "worker": "select"},
            "folded_events": {"app": "select", "worker": "select"},
            "interest_bases": {"app": "select"},
            "dedupe_keys": {},
            "admissions": {},
            "paused_users": {"app": "select, delete, insert(user_id)"},
            "visible_users": {"app": "select, delete"},
            "visible_events": {"app": "select, delete"},
            "erasures": {"worker": "select, update(cleared_at)"},
            "erasures_erasure_id_seq": {},
            # A policy on the whole log would not hold behind its partitions.
            "events_default": {},
            "events_YYYY_MM": {},
            # what the software notes about itself
            "state": {"app": "select", "worker": "select"},
            "made": {},
            "alembic_version": {},
        },
    }.items()
    for name, granted in relations.items()
} | {"rec_internal.admits_all": dict.fromkeys(ROLES, "select")}

FUNCTIONS: Final = {
    "rec": {
        "app": """
            track recommend score explain explain_list similar_items nearest popular next_items
            companion_items interest topics seen_items latest_items export_user forget_user
            undo_event pause_user resume_user
        """,
        "worker": "make_partitions apply_pending apply_users merge_deltas retry apply_retention",
        "app worker": "wake",
        "everybody": "health",
        "owner": "rebuild_user rebuild_collaborative retry_items undo_tuning",
    },
    "rec_internal": {
        "app": """
            list_length attribute_filter moment ranker diversity
            content_hash scaled decayed_sum mass_at share share_mass
            latest_events latest_shares dislikes topics current_sums replay
            flows transitions companions
            passes passing newest strongest hides_items is_partial plan_for
            set_depth restore_depth
            matches_few neighbours indexed_neighbours
            profile_of candidates terms rerank diversify explore
            owns_data forget_if_visible undo_if_visible export_events export_interests in_words
        """,
        "worker": """
            register_encoder check_encoder active_encoder claim_items claim_texts
            release_claims store_items
            store_texts fail_item
            space_lock try_share_space share_space user_lock text_lock texts_lock counts_lock
            item_lock encoder_lock sleep_lock rest_lock
            apply_event fold_claimed add_shares add_deltas merge_changes add_mass
            requeue postpone retry_waiting retry_known park oldest_pending part_of_queue
            drop_raw_texts_of vacuum_due held_age personal_tables qualified begin_vacuum
            forget_statistics end_vacuum
            has_work try_sleep stop_sleeping seconds_to_retry is_at_work end_sessions
        """,
        "app worker": """
            pow2 decay seconds negligible event_weight event_vector log_mass decayed_mass
            is_due is_waiting is_parked queue_state
        """,
        "everybody": """
            item_hash spoken_attributes finding health_server health_rights health_settings
            health_vectors health_plan health_log health_queue health_tables
        """,
        "owner": """
            enqueue start_over refuse_parking admit admit_some refuse_rewrite keep_unread unqueue
            erasing forget_visible undo_visible
            partitions_lock migrate_lock release_lock retention_lock loading_items_lock
            loading_events_lock
            steps_of recount months drop_partition drop_strays drop_bases move_to_bases
            drop_orphans drop_raw_texts released bounded_counts record_release
            lock_texts drop_texts
            stage_items settle_items merge_items stage_events merge_events stage_vectors
            merge_vectors drop_vector_index make_vector_index index_progress
            lock_space vectors_to_move sample_vectors item_vectors_after text_vectors_after
            interested_after move_interests activate_calibration check_movable
            make_next_vectors index_next_vectors dependent_views lock_vectors copy_privileges
            role_name policies take_place drop_previous swap_vectors
            tuning_log tunable_settings change_settings record_tuning
            can_own role_advice require_read_committed erasure_lock
        """,
    },
}
NAMED: Final = {"everybody": set(ROLES), "owner": set()}
CALLERS: Final = {
    f"{schema}.{name}": NAMED.get(who, {f"rec_{role}" for role in who.split()})
    for schema, callers in FUNCTIONS.items()
    for who, names in callers.items()
    for name in names.split()
}

# A role without membership anywhere stands for everybody else.
RIGHTS = """
select format('%%s.%%s', c.relnamespace::regnamespace,
        regexp_replace(c.relname, '^events_\\d{4}_\\d\\d$', 'events_YYYY_MM')),
    r.rolname, concat_ws(', ',
    (select string_agg(v.verb, ', ' order by v.place)
    from unnest('{select,insert,update,delete,truncate,references,trigger}'::text[])
        with ordinality as v (verb, place)
    where has_table_privilege(r.oid, c.oid, v.verb)),
    (select string_agg(w.verb || '(' || w.columns || ')', ', ' order by w.place) from (
        select v.verb, v.place, string_agg(a.attname, ', ' order by a.attname) as columns
        from unnest('{select,insert,update,references}'::text[]) with ordinality as v (verb, place)
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where has_column_privilege(r.oid, c.oid, a.attnum, v.verb)
            and not has_table_privilege(r.oid, c.oid, v.verb)
        group by v.verb, v.place) w),
    (select 'usage' where c.relkind = 'S'
        and has_sequence_privilege(r.oid, c.oid, 'usage, update')))
from pg_class c cross join pg_roles r
where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)
    and c.relkind in ('r', 'p', 'v', 'S', 'm', 'f') and r.rolname = any(%s)
"""


@pytest.fixture
def db(db: Connection) -> Iterator[Connection]:
    """A fresh database, and for as long as it is there a role that is a member of nothing."""
    name = f"nobody_{uuid4().hex[:8]}"
    db.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
    db.execute("select set_config('test.nobody', %s, false)", [name])
    yield db
    db.execute("reset role")
    db.execute(sql.SQL("drop owned by {0}").format(sql.Identifier(name)))
    db.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def nobody(db: Connection) -> str:
    row = db.execute("select current_setting('test.nobody')").fetchone()
    assert row
    return str(row[0])


def become(db: Connection, role: str) -> None:
    name = nobody(db) if role == "nobody" else role
    db.execute(sql.SQL("set role {}").format(sql.Identifier(name)))


def test_every_relation_gives_each_role_what_was_decided_and_no_more(db: Connection) -> None:
    stranger = nobody(db)
    found: dict[str, dict[str, str]] = {}
    for relation, role, rights in db.execute(RIGHTS, [[*ROLES[:3], stranger]]):
        known = found.setdefault(relation, {})
        role_name = "nobody" if role == stranger else role
        assert known.setdefault(role_name, rights) == rights, relation
    assert found == RELATIONS


def test_every_function_may_be_called_by_whom_it_was_decided_for(db: Connection) -> None:
    stranger = nobody(db)
    rows = db.execute(
        "select p.pronamespace::regnamespace || '.' || p.proname, r.rolname,"
        " has_function_privilege(r.oid, p.oid, 'execute')"
        " from pg_proc p cross join pg_roles r"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and r.rolname = any(%s)",
        [[*ROLES[:3], stranger]],
    ).fetchall()
    found: dict[str, set[str]] = {name: set() for name, _, _ in rows}
    for name, role, may in rows:
        if may:
            found[name].add("nobody" if role == stranger else role)
    assert found == CALLERS


@pytest.mark.parametrize("schema", ["rec", "rec_internal"])
def test_no_role_but_the_owner_may_make_anything_in_the_schema(db: Connection, schema: str) -> None:
    rows = db.execute(
        "select r.rolname, has_schema_privilege(r.oid, %(schema)s, 'usage'),"
        " has_schema_privilege(r.oid, %(schema)s, 'create')"
        " from pg_roles r where r.rolname = any(%(roles)s)",
        {"schema": schema, "roles": [*ROLES[:3], nobody(db)]},
    ).fetchall()
    assert {role: (use, make) for role, use, make in rows} == {
        "rec_app": (True, False),
        "rec_worker": (True, False),
        "rec_analyst": (True, False),
        nobody(db): (False, False),
    }


def test_rec_owner_owns_all_of_it_and_is_no_superuser(db: Connection) -> None:
    owners = db.execute(
        "select distinct pg_get_userbyid(o.owner) from ("
        " select c.relowner from pg_class c"
        " where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " union all select p.proowner from pg_proc p"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " union all select n.nspowner from pg_namespace n"
        " where n.nspname in ('rec', 'rec_internal')) o (owner)"
    ).fetchall()
    assert owners == [("rec_owner",)]
    row = db.execute(
        "select rolsuper, rolcanlogin, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication"
        " from pg_roles where rolname like 'rec\\_%'"
    ).fetchall()
    assert row == [(False,) * 6] * 4


def test_the_same_rights_come_back_with_the_next_migration(
    db: Connection, database_url: str
) -> None:
    from rec_pkg import schema  # noqa: PLC0415  # slow to import

    db.execute("grant update, delete on rec_internal.pending to rec_app")
    db.execute("grant update (error) on rec_internal.pending to rec_analyst")
    db.execute("revoke select on rec.items from rec_app")
    db.execute("grant execute on all functions in schema rec, rec_internal to public")
    db.execute("alter table rec.items owner to current_user")
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    schema.migrate(engine)
    engine.dispose()
    test_every_relation_gives_each_role_what_was_decided_and_no_more(db)
    test_every_function_may_be_called_by_whom_it_was_decided_for(db)
    test_rec_owner_owns_all_of_it_and_is_no_superuser(db)


@pytest.fixture
def shop(db: Connection) -> Connection:
    """Five items with vectors, two users with folded and queued events, a text."""
    db.execute(
        "insert into rec.items (item_id, title) select 'i' || n, n from generate_series(1, 5) n"
    )
    db.execute(
        "insert into rec.item_vectors select 'i' || n,"
        " array_prepend(n, array_fill(1, array[383]))::vector::halfvec from generate_series(1, 5) n"
    )
    db.execute("update rec.items set encoded_hash = content_hash")
    db.execute("select rec_internal.register_encoder(repeat('a', 64), 'made up', '{}', 384)")
    for item in ("i1", "i2", "i3"):
        db.execute("select rec.track('ann', %s), rec.track('bob', %s)", [item, item])
    assert db.execute("select rec.apply_pending()").fetchone() == (6,)
    db.execute("select rec.merge_deltas()")
    db.execute(
        "select rec.track('ann', 'i4'), rec.track('ann', p_kind => 'search', p_text => 'sea')"
    )
    return db


ALLOWED = [
    ("rec_app", "select rec.track('cid', 'i1', 'purchase', p_dedupe_key => 'd')"),
    (
        "rec_app",
        "insert into rec.events (user_id, item_id) values ('cid', 'i1') returning event_id",
    ),
    ("rec_app", "select * from rec.recommend('ann', 3)"),
    ("rec_app", "select * from rec.recommend('new', 3)"),
    ("rec_app", "select * from rec.recommend('ann', 3, p_as_of => now() - interval '1 second')"),
    ("rec_app", "select * from rec.explain('ann', 'i5')"),
    ("rec_app", "select * from rec.similar_items('i1', 3)"),
    ("rec_app", "select * from rec.popular(3)"),
    ("rec_app", "select * from rec.next_items('{i1}')"),
    ("rec_app", "select * from rec.companion_items('{i1}')"),
    ("rec_app", "select * from rec.interest('ann')"),
    ("rec_app", "select * from rec.topics('ann')"),
    ("rec_app", "select rec.export_user('ann')"),
    ("rec_app", "select rec.forget_user('ann')"),
    (
        "rec_app",
        "select rec.undo_event('ann', min(event_id)) from rec.events where user_id = 'ann'",
    ),
    ("rec_app", "select * from rec.status, rec_internal.queue"),
    ("rec_app", "select rec.wake()"),
    ("rec_worker", "select * from rec_internal.claim_items(10)"),
    ("rec_worker", "select * from rec_internal.claim_texts(10)"),
    ("rec_worker", "select rec_internal.fail_item('i1', '', 'no')"),
    ("rec_worker", "select rec.apply_pending()"),
    ("rec_worker", "select rec.apply_users('{ann}')"),
    ("rec_worker", "select rec.merge_deltas()"),
    ("rec_worker", "select rec.make_partitions(5)"),
    ("rec_worker", "select rec_internal.park('{ann}', '{1}', 'no'), rec.retry()"),
    ("rec_worker", "select rec_internal.retry_waiting(), rec_internal.has_work()"),
    ("rec_worker", "select rec_internal.try_sleep(1), rec_internal.stop_sleeping(1)"),
    ("rec_worker", "select * from rec_internal.queue"),
    ("rec_analyst", "select domain, count(*) from rec.items group by domain"),
    ("rec_owner", "select rec.rebuild_user('ann'), rec.rebuild_collaborative()"),
    ("rec_owner", "select rec.forget_user('ann')"),
    ("rec_owner", "select rec_internal.change_settings('default', '{\"trend_weight\": 0.3}')"),
    (
        "rec_owner",
        (
            "select rec_internal.make_next_vectors(), rec_internal.index_next_vectors(),"
            " rec_internal.swap_vectors()"
        ),
    ),
]
DENIED = [
    ("rec_app", "insert into rec_internal.pending select 'x', 1, now(), false"),
    ("rec_app", "update rec_internal.pending set attempts = 0"),
    ("rec_app", "delete from rec_internal.pending"),
    ("rec_app", "update rec.events set user_id = 'ann'"),
    ("rec_app", "delete from rec.events"),
    ("rec_app", "insert into rec.events (user_id, text_hash) values ('u', 'x')"),
    ("rec_app", "insert into rec.events (user_id, item_id, received_at) values ('u', 'i1', now())"),
    ("rec_app", "select * from rec_internal.events_default"),
    ("rec_app", "update rec.user_interests set mass = 0"),
    ("rec_app", "insert into rec.items (item_id) values ('x')"),
    ("rec_app", "update rec.rankers set trend_weight = 0"),
    ("rec_app", "select rec.apply_pending()"),
    ("rec_app", "select rec.rebuild_user('ann')"),
    ("rec_app", "select rec.retry()"),
    ("rec_app", "select rec.make_partitions()"),
    ("rec_app", "create function rec.mine() returns int language sql return 1"),
    ("rec_app", "create function rec_internal.mine() returns int language sql return 1"),
    (
        "rec_app",
        "create trigger mine after insert on rec.events execute function rec_internal.enqueue()",
    ),
    ("rec_worker", "insert into rec.events (user_id, item_id) values ('u', 'i1')"),
    ("rec_worker", "delete from rec.events"),
    ("rec_worker", "update rec.items set title = 'x'"),
    ("rec_worker", "delete from rec.items"),
    ("rec_worker", "insert into rec_internal.pending select 'x', 1, now(), false"),
    ("rec_worker", "select * from rec.recommend('ann')"),
    ("rec_worker", "select rec.forget_user('ann')"),
    ("rec_worker", "select rec.export_user('ann')"),
    ("rec_worker", "update rec.rankers set trend_weight = 0"),
    ("rec_worker", "update rec_internal.encoders set fingerprint = repeat('b', 64)"),
    ("rec_analyst", "select * from rec.events"),
    ("rec_analyst", "select * from rec.user_interests"),
    ("rec_analyst", "select * from rec.item_vectors"),
    ("rec_analyst", "select * from rec_internal.item_transitions"),
    ("rec_analyst", "select * from rec.popular()"),
    ("rec_analyst", "select rec.export_user('ann')"),
    ("rec_analyst", "select rec.track('ann', 'i1')"),
    ("nobody", "select * from rec.items"),
    ("nobody", "select rec.track('ann', 'i1')"),
    ("nobody", "select rec_internal.item_hash('', '', '{}', '{}')"),
]


def test_what_a_role_is_for_works(shop: Connection) -> None:
    for role, statement in ALLOWED:
        with shop.transaction(force_rollback=True):
            become(shop, role)
            shop.execute(statement)


def test_what_a_role_is_not_for_is_refused(shop: Connection) -> None:
    for role, statement in DENIED:
        become(shop, role)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shop.execute(statement)
        shop.execute("reset role")


def test_an_application_forgets_a_user_and_nothing_is_left(shop: Connection) -> None:
    become(shop, "rec_app")
    assert shop.execute("select rec.forget_user('ann')").fetchone() == (5,)
    assert shop.execute("select rec.forget_user('nobody')").fetchone() == (0,)
    shop.execute("reset role")
    engine = ("rec_internal.pending", "rec_internal.item_deltas")
    for table in ("rec.events", "rec.user_interests", *engine):
        query = f"select count(*) from {table} where user_id = 'ann'"
        assert shop.execute(query).fetchone() == (0,)
    assert shop.execute("select count(*) from rec.events").fetchone() == (3,)


def test_an_application_undoes_an_event_once(shop: Connection) -> None:
    become(shop, "rec_app")
    row = shop.execute("select max(event_id) from rec.events where user_id = 'bob'").fetchone()
    assert row
    assert shop.execute("select rec.undo_event('bob', %s)", row).fetchone() == (True,)
    assert shop.execute("select rec.undo_event('bob', %s)", row).fetchone() == (False,)
    assert shop.execute("select count(*) from rec.events where user_id = 'bob'").fetchone() == (2,)


@pytest.mark.clock
def test_triggers_fire_for_a_role_that_may_only_insert_events(shop: Connection) -> None:
    name = sql.Identifier(nobody(shop))
    shop.execute(sql.SQL("grant usage on schema rec to {}").format(name))
    shop.execute(sql.SQL("grant insert on rec.events to {}").format(name))
    before = shop.execute("select count(*) from rec_internal.pending").fetchone()
    become(shop, "nobody")
    shop.execute("insert into rec.events (user_id, item_id) values ('eve', 'i1')")
    shop.execute(
        "insert into rec.events (user_id, text, received_at) values ('eve', 'x', now() + '1 h')"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shop.execute("select * from rec.events")
    shop.execute("reset role")
    assert before
    assert shop.execute("select count(*) from rec_internal.pending").fetchone() == (before[0] + 2,)
    query = "select count(*) from rec.events where text_hash = rec_internal.content_hash('x')"
    assert shop.execute(f"{query} and received_at <= now()").fetchone() == (1,)


def test_a_grant_on_items_is_all_that_whoever_keeps_the_catalogue_needs(shop: Connection) -> None:
    name = sql.Identifier(nobody(shop))
    shop.execute(sql.SQL("grant usage on schema rec to {}").format(name))
    shop.execute(sql.SQL("grant select, insert, update, delete on rec.items to {}").format(name))
    become(shop, "nobody")
    shop.execute("insert into rec.items (item_id, title) values ('new', 'New')")
    shop.execute("update rec.items set title = 'Newer' where item_id = 'new'")
    shop.execute("delete from rec.items where item_id = 'i1'")
    shop.execute("reset role")
    query = "select count(*) from rec.item_vectors where item_id = 'i1'"
    assert shop.execute(query).fetchone() == (0,)


@pytest.fixture
def login(database_url: str, db: Connection) -> Iterator[str]:
    """URL of a role that may log in and is a member of nothing yet."""
    name = f"login_{uuid4().hex[:8]}"
    db.execute(sql.SQL("create role {} login password 'x'").format(sql.Identifier(name)))
    yield make_url(database_url).set(username=name, password="x").render_as_string(False)  # noqa: FBT003, S106
    db.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def join(db: Connection, url: str, role: str) -> None:
    member = sql.Identifier(make_url(url).username or "")
    db.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), member))


def test_a_worker_needs_no_more_than_its_role(
    shop: Connection, login: str, encoder: Encoder
) -> None:
    shop.execute("delete from rec_internal.encoders")
    shop.execute("update rec.items set title = 'the sea'")
    shop.execute("select rec.forget_user('bob'), rec.make_partitions(6)")
    join(shop, login, "rec_worker")
    environment = os.environ | {"PGREC_DATABASE_URL": login, "PGREC_LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-m", "rec_pkg", "worker", "--once"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "refused" not in done.stderr
    assert "cannot" not in done.stderr
    row = shop.execute("select pending, items_to_encode, deltas, parked from rec.status").fetchone()
    assert row == (0, 0, 0, 0)
    active = shop.execute("select fingerprint from rec_internal.encoders where active").fetchone()
    assert active == (encoder.fingerprint,)
    states = shop.execute("select distinct state from rec.erasure_status").fetchall()
    assert states == [("cleared",)], "it may vacuum what users left behind"


def test_a_python_application_needs_no_more_than_its_role(shop: Connection, login: str) -> None:
    join(shop, login, "rec_app")
    with Client(login) as client:
        client.track("cid", "i1")
        assert [row.item_id for row in client.recommend("cid", 4)] != []
        assert client.explain("cid", "i2") != []
        assert client.similar_items("i1") != []
        assert client.popular() != []
        assert client.interest("cid") != []
        assert client.status().events == 9
        assert client.export("cid")["events"] != []
        event = client.track("cid", "i2")
        assert event is not None
        assert client.undo("cid", event) is True
        assert client.forget("cid") == 1
