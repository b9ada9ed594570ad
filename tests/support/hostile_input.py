"""What nobody should send, by type, as Postgres reads it; and what counts as an answer to it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.databases import migrated_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]
Literal = str | list[str | None] | None

MEGABYTE: Final = 1 << 20
USERS: Final = ("u0", "u1", "u2", "u3", "u4")
ITEMS: Final = tuple(f"i{number}" for number in range(12))
ODD_TEXTS: Final = (
    "",
    " ",
    "nobody",
    "x" * MEGABYTE,
    "é" * 999,
    "שלום \u202e عليكم \u202d",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "Z̸̡̛͎a̶l̴g̵o̷",
    "'; drop table rec.events; --",
    '"$$\\ %s :name {} \n\r\t',
    "rec.recommend('ada')",
    "\x01\x1b[2J\x7f",
    "NULL",
    "�￿",
)
ODD_TIMES: Final = (
    "-infinity",
    "infinity",
    "4713-01-01 00:00:00+00 BC",
    "0001-01-01 00:00:00+00 BC",
    "1969-12-31 23:59:59.999999+00",
    "1970-01-01 00:00:00+00",
    "9999-12-31 23:59:59.999999+00",
    "294276-12-31 23:59:59.999999+00",
    "now",
    "tomorrow",
)
ODD_NUMBERS: Final = (
    *("NaN", "Infinity", "-Infinity", "0", "-0", "1", "-1", "0.5", "-2.5", "200.1", "1000"),
    *("5e-324", "1e-320", "1e-100", "1e100", "1e308", "-1e308"),
)
ODD_INTEGERS: Final = ("0", "1", "-1", "2", "10", "1000000", "2147483647", "-2147483648")
ODD_JSON: Final = (
    "[]",
    "null",
    '"text"',
    "1e400",
    "[1, 2]",
    '{"brand": null}',
    '{"a": "\\u0000"}',
    '{"a": "\\ud800"}',
    '{"content_weight": "NaN"}',
    '{"content_weight": null}',
    '{"popularity_half_life": "0"}',
    '{"singleton": false, "sql_digest": "x"}',
    "[" * 500 + "]" * 500,
    '{"a":' * 500 + "1" + "}" * 500,
    '{"a": "' + "x" * MEGABYTE + '"}',
)
ODD_VECTORS: Final = (
    "[1,0,0,0]",
    "[0,0,0,0]",
    "[-1,-1,1,1]",
    "[1e-7,0,0,0]",
    "[6e4,6e4,6e4,6e4]",
    "[1,0]",
    "[1]",
)
ODD_INTERVALS: Final = (
    *("0", "1 second", "-1 day", "1 month -30 days", "100000 years", "-100000 years"),
    *("infinity", "-infinity", "1 microsecond", "1 day 00:00:00.5"),
)
HASHES: Final = ("\\x", "\\x00", "\\x" + "ab" * 32, "\\x" + "00" * MEGABYTE)
ROLES: Final = ("0", "10", "4294967295")

free_text: Final = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=0, max_size=40
)
texts: Final = st.one_of(st.sampled_from(USERS + ITEMS), st.sampled_from(ODD_TEXTS), free_text)
"""Text that a server can be sent: neither NUL nor half of a surrogate pair."""

beyond_text: Final = st.one_of(
    texts,
    st.text(max_size=20),
    st.sampled_from(["\0", "a\0b", "\ud800", "a\udfffb", "\udc80" * 9]),
)
"""All that is a str in Python."""

times: Final = st.one_of(
    st.sampled_from(ODD_TIMES),
    st.datetimes().map(lambda moment: f"{moment.isoformat(' ')}+00"),
    st.integers(1, 4700).map(lambda year: f"{year:04}-06-15 12:00:00+00 BC"),
)
numbers: Final = st.one_of(st.sampled_from(ODD_NUMBERS), st.floats().map(str))
integers: Final = st.one_of(
    st.sampled_from(ODD_INTEGERS), st.integers(-(2**31), 2**31 - 1).map(str)
)
vectors: Final = st.one_of(
    st.sampled_from(ODD_VECTORS),
    st.lists(st.floats(-10, 10, width=16), min_size=4, max_size=4).map(str),
)
json_texts: Final = st.one_of(
    st.sampled_from(["{}", '{"brand": "Nord"}', '{"brand": ["Nord", null]}']),
    st.sampled_from(ODD_JSON),
)


def listed(elements: SearchStrategy[Any]) -> SearchStrategy[Literal]:
    """Lists of up to a few elements, some of them NULL, and what is no list."""
    return st.one_of(
        st.lists(st.none() | elements, max_size=4),
        st.sampled_from(["{}", "{NULL}", "{{NULL,NULL},{NULL,NULL}}"]),
    )


LITERALS: Final[dict[str, SearchStrategy[Literal]]] = {
    "text": texts,
    "integer": integers,
    "bigint": st.one_of(integers, st.sampled_from([str(2**63 - 1), str(-(2**63))])),
    "double precision": numbers,
    "boolean": st.sampled_from(["true", "false"]),
    "jsonb": json_texts,
    "timestamp with time zone": times,
    "interval": st.sampled_from(ODD_INTERVALS),
    "bytea": st.sampled_from(HASHES),
    "oid": st.sampled_from(ROLES),
    "halfvec": vectors,
    "regclass": st.sampled_from(["rec.items", "rec_internal.texts", "pg_class", "0"]),
    "vector": vectors,
    "text[]": listed(texts),
    "bytea[]": listed(st.sampled_from(HASHES)),
    "integer[]": listed(integers),
    "bigint[]": listed(integers),
    "double precision[]": listed(numbers),
    "timestamp with time zone[]": listed(times),
    "vector[]": listed(vectors),
    "halfvec[]": listed(vectors),
}
"""For each type of an argument what is sent for it, as text."""

UNNAMED: Final = re.compile(
    "XX|54|58|22003|22008|22012|2201E|2201F|2202E|22004|21|42(?!501)|P000|0A|57|40|25|2BP|F0"
)
"""
States of errors that say nothing of what was wrong with the input.

Internal errors, limits of the program or of the system, arithmetic out of range, NULL or strange
elements in an array that plpgsql walks, a wrong number of rows, broken statements, cancellations.
"""
NOT_A_NUMBER: Final = re.compile(r"[(,{]NaN[,)}]")
"""A number in the text of a row or an array that is none."""

QUOTED: Final = re.compile(
    r'^(value )?".*" is out of range for type|out of range: ".*"$', re.DOTALL
)


def hold(
    config: pytest.Config,
    promise: Callable[[T], None],
    cases: SearchStrategy[T],
    *,
    quick: int,
    full: int,
) -> None:
    """Try a promise on so many cases: always the same few, or with --full many new ones."""
    thorough = config.getoption("--full")
    chosen = settings(
        max_examples=full if thorough else quick,
        derandomize=not thorough,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    chosen(given(cases)(promise))()


def is_named(error: psycopg.Error) -> bool:
    """
    Return whether the error tells a caller what he did.

    What a function of ours raises does, and what quotes a literal that its type cannot hold.
    """
    said = error.diag.message_primary or ""
    if error.diag.source_function == "exec_stmt_raise" or QUOTED.search(said):
        return True
    return bool(said) and not UNNAMED.match(error.sqlstate or "XX")


def answer(
    db: Connection, call: str, arguments: Sequence[object] | Mapping[str, object] = ()
) -> list[str] | None:
    """
    Return the rows of a call as texts, None if it was refused by name; nothing of it stays.

    Every other error is a failure.
    """
    try:
        with db.transaction(force_rollback=True):
            return [str(row) for (row,) in db.execute(call, arguments)]
    except psycopg.Error as error:
        if not is_named(error):
            pytest.fail(f"{error.sqlstate} {error} at {call} with {arguments!r:.500}")
        return None


def contents(db: Connection) -> str:
    """Return a digest of every table of schema rec, whatever the order of rows."""
    tables = db.execute(
        "select c.oid::regclass::text from pg_class c where c.relkind in ('r', 'p')"
        " and c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and not c.relispartition order by 1"
    ).fetchall()
    parts = []
    for (table,) in tables:
        digest = f"select md5(string_agg(t::text, '|' order by t::text)) from {table} t"
        parts.append(f"{table} {db.execute(digest).fetchone()}")
    return "\n".join(parts)


@contextmanager
def world(server: str) -> Iterator[Connection]:
    """
    Give a small database in which every table has rows; its vectors have four dimensions.

    Users u0 to u3 have folded events of all sorts, u0, u3 and u4 waiting ones, u1 a parked one;
    item i11 waits for its vector.
    """
    with migrated_database(server, dims=4) as db:
        db.execute(WORLD)
        yield db


WORLD: Final = """
set statement_timeout = '60s';
select rec_internal.register_encoder(repeat('a', 64), 'test', '{}', 4);
insert into rec.items (item_id, domain, title, attributes)
select 'i' || n, 'd' || n % 2, 'title ' || n, jsonb_build_object('brand', 'Nord', 'n', n)
from generate_series(0, 11) n;
insert into rec.item_vectors select 'i' || n, array[1, n % 3 - 1, n % 5 - 2, 0.1]::halfvec(4)
from generate_series(0, 10) n;
update rec.items set encoded_hash = content_hash where item_id <> 'i11';
insert into rec.events (user_id, item_id, kind, occurred_at)
select 'u' || n % 4, 'i' || n % 11, (array['click', 'view', 'dislike', 'like'])[1 + n % 4],
    now() - n * interval '3 hours'
from generate_series(1, 40) n;
select rec.track('u0', p_kind => 'search', p_text => 'a wish');
select rec_internal.store_texts(
    repeat('a', 64), array[rec_internal.content_hash('a wish')], array['[0,1,0,0]'::halfvec]);
select rec.track('u1', 'nowhere'), rec.track('u2', 'i3', 'rating', p_value => 1);
select rec.apply_pending();
select rec.merge_deltas();
select rec.track('u0', 'i5', p_dedupe_key => 'k'), rec.track('u3', p_text => 'not yet'),
    rec.track('u4', 'i11');
select rec_internal.record_tuning('default', '{}', '{}', true);
"""
