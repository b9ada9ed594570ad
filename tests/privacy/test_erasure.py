"""Erasing and undoing: nothing is left, and everybody else is served as if it had never been."""

from __future__ import annotations

import hashlib
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from sqlalchemy import create_engine, make_url

from rec_pkg.client import Client
from rec_pkg.errors import BadInput
from rec_pkg.operations.vacuuming import Erasures, vacuum
from tests.support.shops import add_items, unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

Connection = psycopg.Connection[tuple[Any, ...]]

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ITEMS = [f"item {number:02}" for number in range(30)]
OTHERS = [f"user {number}" for number in range(6)]
VICTIM = "canary-user"
KINDS = ("view", "click", "click", "like", "rating", "dislike", "purchase")
SHARED = ("warm jacket", "rain boots")
"""Words that others search for, too."""
LONG = "canary-essay " + "".join(map(chr, np.random.default_rng(8).integers(48, 122, 9000)))
OWN = ("canary-words of his own", "canary-words, other ones", LONG)


@dataclass(frozen=True)
class Entry:
    user: str
    at: datetime
    item: str | None = None
    kind: str = "click"
    text: str | None = None
    value: float | None = None
    dedupe_key: str | None = None


def history(user: str, count: int, texts: Sequence[str]) -> list[Entry]:
    """Random events of a user in the ninety days before NOW, oldest first."""
    random = np.random.default_rng(zlib.crc32(user.encode()))
    ages = sorted(random.uniform(3600, 90 * 86400, count), reverse=True)
    entries = []
    for place, age in enumerate(ages):
        at = NOW - timedelta(seconds=float(age))
        if place % 6 == 5:
            text = texts[place // 6 % len(texts)]
            item = ITEMS[place] if place % 12 == 5 else None
            entries.append(Entry(user, at, item, "search", text))
        else:
            item, kind = ITEMS[random.zipf(1.6) % len(ITEMS)], KINDS[random.integers(len(KINDS))]
            entries.append(Entry(user, at, item, kind, value=float(random.integers(1, 6))))
    return entries


CROWD = [entry for user in OTHERS for entry in history(user, 25, SHARED)]
HIS = [
    *history(VICTIM, 30, (*SHARED, *OWN)),
    Entry(VICTIM, NOW - timedelta(hours=1), ITEMS[3], dedupe_key="canary-key"),
]


@pytest.fixture
def open_town(
    new_database: Callable[[], AbstractContextManager[str]],
) -> Iterator[Callable[[], Connection]]:
    """A function that gives a fresh database with the catalogue, where every term has a weight."""
    with ExitStack() as stack:

        def town() -> Connection:
            url = stack.enter_context(new_database())
            db = stack.enter_context(psycopg.connect(url, autocommit=True))
            register_vector(db)
            db.execute(
                "update rec.rankers set together_weight = 0.7, newness_weight = 0.3,"
                " repeat_weight = 0.1"
            )
            names = [item.upper() for item in ITEMS]
            vectors = {item: unit(item) for item in ITEMS}
            add_items(db, vectors, title=names, created_at=[NOW] * len(ITEMS))
            return db

        yield town


def log(db: Connection, entries: Sequence[Entry], *, fold: bool = True) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec_internal.texts values (rec_internal.content_hash(%s), %s)"
            " on conflict do nothing",
            [(entry.text, unit(entry.text)) for entry in entries if entry.text],
        )
        cursor.executemany(
            "insert into rec.events (user_id, occurred_at, item_id, kind, text, value, dedupe_key)"
            " values (%s, %s, %s, %s, %s, %s, %s)",
            [
                (e.user, e.at, e.item, e.kind, e.text, e.value, e.dedupe_key)
                for e in sorted(entries, key=lambda entry: entry.at)
            ],
        )
    if fold:
        while db.execute("select rec.apply_pending(100)").fetchone() != (0,):
            db.execute("select rec.merge_deltas()")


def served(db: Connection) -> dict[str, Any]:
    """What everybody but the victim gets and what they share, as of NOW: numbers by name."""
    db.execute("select rec.merge_deltas()")
    rows: dict[str, Any] = {}
    for user in (*OTHERS, "a stranger"):
        for row in db.execute(
            "select rank, item_id, score, transition, together, trend, newness"
            " from rec.recommend(%s, 30, p_as_of => %s)",
            [user, NOW],
        ):
            rows[f"list of {user}, {row[1]}"] = np.array([row[0], *row[2:]], float)
    for item, *masses in db.execute("select * from rec_internal.popularity"):
        rows[f"popularity of {item}"] = np.array(masses, float)
    for first, second, mass in db.execute("select * from rec_internal.item_transitions"):
        rows[f"{first} -> {second}"] = mass
    for user, horizon, interest, mass, as_of in db.execute(
        "select * from rec.user_interests where user_id <> %s", [VICTIM]
    ):
        rows[f"{horizon} of {user}"] = np.append(interest.to_numpy(), [mass, as_of.timestamp()])
    for (text,) in db.execute("select encode(text_hash, 'hex') from rec_internal.texts"):
        rows[f"text {text}"] = 1.0
    return rows


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def traces(db: Connection) -> set[str]:
    """Tables, and columns in the planner's statistics, in which a row speaks of the victim."""
    signs = ["canary", *(hashlib.sha256(text.encode()).hexdigest() for text in OWN)]
    tables = [
        row[0]
        for row in db.execute(
            "select c.oid::regclass::text from pg_class c"
            " where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
            " and c.relkind in ('r', 'p', 'm')"
        )
    ]
    found = set()
    for table in tables:
        look = f"select true from {table} t where t::text ~ %s limit 1"
        if db.execute(look, ["|".join(signs)]).fetchone():
            found.add(table)
    return found | {
        f"statistics of {table}.{column}"
        for table, column in db.execute(
            "select tablename, attname from pg_stats where schemaname in ('rec', 'rec_internal')"
            " and concat(most_common_vals, histogram_bounds, most_common_elems) ~ %s",
            ["|".join(signs)],
        )
    }


def signs_in_bytes() -> list[bytes]:
    """The victim's words, the hashes of his texts and the vectors of these, as they lie on disk."""
    hashes = [hashlib.sha256(text.encode()).digest() for text in OWN]
    return [b"canary", *hashes, *(unit(text).to_numpy().astype("<f2").tobytes() for text in OWN)]


def in_pages(db: Connection) -> set[str]:
    """Heaps and indexes, TOAST and catalogues too, with a line pointer to bytes of the victim."""
    db.execute("create extension if not exists pageinspect")
    tuples = {
        "r": "select t_data from heap_page_items(%(page)s) where t_data is not null",
        "i": "select decode(replace(data, ' ', ''), 'hex') from bt_page_items(%(page)s)",
    }
    found = set()
    for name, kind, blocks in db.execute(
        "select c.oid::regclass::text, case c.relkind when 'i' then 'i' else 'r' end,"
        " pg_relation_size(c.oid) / current_setting('block_size')::integer from pg_class c"
        " left join pg_am m on m.oid = c.relam where c.relkind in ('r', 't') or m.amname = 'btree'"
    ).fetchall():
        for block in range(1 if kind == "i" else 0, blocks):
            try:
                row = db.execute("select get_raw_page(%s, %s)", [name, block]).fetchone()
            except psycopg.errors.InvalidParameterValue:  # a vacuum has made it shorter
                break
            page = row[0] if row else b""
            if not any(sign in page for sign in signs_in_bytes()):
                continue
            kept = b"\0".join(
                bytes(item[0] or b"") for item in db.execute(tuples[kind], {"page": page})
            )
            if any(sign in kept for sign in signs_in_bytes()):
                found.add(name)
    return found


def in_files(db: Connection) -> set[str]:
    """Relations of the database whose files hold bytes of the victim, deleted or not."""
    db.execute("checkpoint")
    found = set()
    for name, path in db.execute(
        "select c.oid::regclass::text, pg_relation_filepath(c.oid) from pg_class c"
        " where pg_relation_filepath(c.oid) is not null and not c.relisshared"
    ).fetchall():
        row = db.execute("select pg_read_binary_file(%s)", [path]).fetchone()
        if row and any(sign in row[0] for sign in signs_in_bytes()):
            found.add(name)
    return found


def live_fully(db: Connection) -> None:
    """Leave traces of the victim wherever there can be any."""
    db.execute("select rec.pause_user(%s), rec.resume_user(%s)", [VICTIM, VICTIM])
    db.execute("select rec.track(%s, 'canary-item')", [VICTIM])
    db.execute("select rec.apply_pending()")
    late = [Entry(VICTIM, NOW - timedelta(days=2), ITEMS[5]), Entry(VICTIM, NOW, ITEMS[6])]
    log(db, late[:1], fold=False)
    db.execute("select rec.apply_pending()")  # counts that wait to be merged
    log(db, late[1:], fold=False)
    db.execute(
        "insert into rec_internal.interest_bases"
        " select * from rec.user_interests where user_id = %s",
        [VICTIM],
    )
    db.execute("select rec.pause_user(%s)", [VICTIM])
    db.execute("analyze")


def vacuumed(db: Connection, *, full: bool = False) -> Erasures:
    url = make_url("postgresql+psycopg://").set(
        username=db.info.user,
        password=db.info.password or None,
        host=db.info.host,
        port=db.info.port,
        database=db.info.dbname,
    )
    engine = create_engine(url)
    try:
        return vacuum(engine, full=full)
    finally:
        engine.dispose()


def states(db: Connection) -> list[str]:
    rows = db.execute("select state from rec.erasure_status order by erasure_id")
    return [row[0] for row in rows]


def test_others_are_served_as_if_a_forgotten_user_had_never_been(
    open_town: Callable[[], Connection],
) -> None:
    never, town = open_town(), open_town()
    log(never, CROWD)
    log(town, [*CROWD, *HIS])
    live_fully(town)
    before = served(town)
    town.execute("select rec.forget_user(%s)", [VICTIM])
    assert_same(served(town), served(never))
    assert before.keys() != served(never).keys()


def test_a_forgotten_user_leaves_no_trace_in_any_table_index_or_statistics(
    open_town: Callable[[], Connection],
) -> None:
    town = open_town()
    log(town, [*CROWD, *HIS])
    live_fully(town)
    tables = ("pending", "texts", "item_deltas", "interest_bases", "paused_users")
    held_in = {"rec.events", "rec.user_interests", *(f"rec_internal.{name}" for name in tables)}
    assert held_in <= traces(town)
    assert "statistics of events.user_id" in traces(town)
    town.execute("select rec.forget_user(%s)", [VICTIM])
    assert {trace for trace in traces(town) if not trace.startswith("statistics")} == set()
    held = in_pages(town)
    assert {"rec_internal.texts_pkey", "rec_internal.events_default_pkey"} & held
    assert vacuumed(town) == Erasures(0, 0)
    assert traces(town) == set()
    assert in_pages(town) == set()


def test_the_index_entries_of_one_event_in_a_large_log_are_cleared_too(
    open_town: Callable[[], Connection],
) -> None:
    """A vacuum would pass them over by itself, so few are they."""
    town = open_town()
    town.execute(
        "insert into rec.events (user_id, item_id, occurred_at)"
        " select 'user ' || n, 'item 01', %s from generate_series(1, 12000) n",
        [NOW],
    )
    town.execute("truncate rec_internal.pending")
    log(town, [Entry(VICTIM, NOW, ITEMS[0])], fold=False)
    town.execute("select rec.forget_user(%s)", [VICTIM])
    assert "rec_internal.events_default_pkey" in in_pages(town)
    assert vacuumed(town) == Erasures(0, 0)
    assert in_pages(town) == set()


def test_a_full_vacuum_leaves_no_byte_of_a_forgotten_user_in_any_file(
    open_town: Callable[[], Connection],
) -> None:
    town = open_town()
    log(town, [*CROWD, *HIS])
    live_fully(town)
    assert len(in_files(town)) > 10
    town.execute("select rec.forget_user(%s)", [VICTIM])
    assert vacuumed(town, full=True) == Erasures(0, 0)
    assert in_files(town) == set()


def test_an_erasure_is_cleared_only_when_nobody_can_read_the_rows_any_more(
    open_town: Callable[[], Connection],
) -> None:
    town = open_town()
    log(town, HIS)
    with psycopg.connect(town.info.dsn, password=town.info.password) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select from rec.settings")
        town.execute("select rec.forget_user(%s)", [VICTIM])
        assert states(town) == ["held"]
        assert vacuumed(town) == Erasures(waiting=1, held=1)
        row = reader.execute("select count(*) from rec.events").fetchone()
        assert row == (len(HIS),)
    assert states(town) == ["to vacuum"]
    assert vacuumed(town) == Erasures(waiting=0, held=0)
    assert states(town) == ["cleared"]


def test_an_erasure_within_a_savepoint_is_held_by_whoever_began_before_its_end(
    open_town: Callable[[], Connection],
) -> None:
    """The rows have the number of the savepoint then, which is later than the transaction's."""
    town = open_town()
    with psycopg.connect(town.info.dsn, password=town.info.password) as other:
        with town.transaction():
            town.execute("select pg_current_xact_id()")
            other.execute("select pg_current_xact_id()")
            with town.transaction():
                town.execute("select rec.forget_user('nobody')")
        assert states(town) == ["held"]
    assert states(town) == ["to vacuum"]


def test_a_role_that_may_not_vacuum_is_told_so(open_town: Callable[[], Connection]) -> None:
    town = open_town()
    town.execute("select rec.forget_user('nobody')")
    role = f"visitor_{town.info.dbname}"
    town.execute(f"create role {role}")
    try:
        both = "schema rec, rec_internal"
        town.execute(f"grant usage on {both} to {role}")
        town.execute(f"grant select on all tables in {both} to {role}")
        town.execute(f"grant execute on all functions in {both} to {role}")
        town.execute(f"grant pg_read_all_stats to {role}")
        town.execute(f"set role {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not vacuum"):
            town.execute("select * from rec_internal.begin_vacuum()")
    finally:
        town.execute("reset role")
        town.execute(f"drop owned by {role}")
        town.execute(f"drop role {role}")


def test_a_client_clears_erasures_but_not_within_a_transaction(
    open_town: Callable[[], Connection],
) -> None:
    town = open_town()
    log(town, HIS)
    info = town.info
    secret = f":{info.password}" if info.password else ""
    url = f"postgresql://{info.user}{secret}@/{info.dbname}?host={info.host}&port={info.port}"
    with Client(url) as client:
        assert client.forget(VICTIM) == len(HIS)
        assert client.vacuum() == Erasures(0, 0)
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection, pytest.raises(BadInput, match="transaction"):
        Client.on(connection).vacuum()
    engine.dispose()


def test_the_record_of_an_erasure_names_nobody(open_town: Callable[[], Connection]) -> None:
    town = open_town()
    town.execute("select rec.forget_user(%s)", [VICTIM])
    columns = town.execute("select * from rec_internal.erasures").description
    assert columns
    assert [column.name for column in columns] == ["erasure_id", "erased_at", "cleared_at"]


@pytest.mark.parametrize("place", [0, 11, 30])
def test_an_undone_event_leaves_everything_as_if_it_had_never_been(
    place: int, open_town: Callable[[], Connection]
) -> None:
    never, town = open_town(), open_town()
    mistake = HIS[place]
    log(never, [*CROWD, *(entry for entry in HIS if entry is not mistake)])
    log(town, [*CROWD, *HIS])
    row = town.execute(
        "select event_id from rec.events where user_id = %s and occurred_at = %s",
        [VICTIM, mistake.at],
    ).fetchone()
    assert row
    assert town.execute("select rec.undo_event(%s, %s)", [VICTIM, row[0]]).fetchone() == (True,)
    assert_same(served(town) | own(town), served(never) | own(never))
    assert states(town) == ["to vacuum"]


def test_an_undone_event_that_was_not_folded_leaves_nothing(
    open_town: Callable[[], Connection],
) -> None:
    never, town = open_town(), open_town()
    for db in (never, town):
        log(db, [*CROWD, *HIS[:20]])
    log(town, HIS[20:21], fold=False)
    town.execute(
        "select rec.undo_event(user_id, event_id) from rec_internal.pending where user_id = %s",
        [VICTIM],
    )
    assert_same(served(town) | own(town), served(never) | own(never))
    assert town.execute("select count(*) from rec_internal.pending").fetchone() == (0,)


def own(db: Connection) -> dict[str, Any]:
    """What the user who undoes gets himself, and is stored as his interest."""
    rows = {
        f"own list, {item}": np.array([rank, score])
        for rank, item, score in db.execute(
            "select rank, item_id, score from rec.recommend(%s, 30, p_as_of => %s)", [VICTIM, NOW]
        )
    }
    for horizon, interest, mass in db.execute(
        "select horizon, interest, mass from rec.user_interests where user_id = %s", [VICTIM]
    ):
        rows[f"own {horizon}"] = np.append(interest.to_numpy(), mass)
    return rows
