from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rec_pkg import loading
from rec_pkg.errors import BadInput, LoadStopped
from rec_pkg.loading import Report, load_events, load_items
from rec_pkg.loading.store import EVENT_COLUMNS, ITEM_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rec_pkg.loading.files import Rejection

    Db = psycopg.Connection[tuple[Any, ...]]
    Write = Callable[[str, str | bytes], Path]

ITEMS = """sku,name,brand,price,tags
a,Blue jeans,Nord,59.90,jeans|blue
b,"Red dress, long",,,
"""
EVENTS = """user_id,item_id,kind,value,text,occurred_at
ada,a,rating,4.5,,2024-03-01T10:00:00+00:00
ada,a,click,,,2024-03-01T11:00:00+00:00
ada,a,click,,,2024-03-01T11:00:00+00:00
bob,,search,,warm jacket,2024-03-02T00:00:00Z
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CHUNK", 2)


def counts(report: Report) -> tuple[int, int, int, int, int]:
    return (
        report.inserted,
        report.updated,
        report.unchanged,
        report.repeated,
        report.rejected,
    )


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def one(db: Db, question: LiteralString) -> Any:  # noqa: ANN401  # whatever was asked for
    row = db.execute(question).fetchone()
    return row and (row[0] if len(row) == 1 else row)


def rows_scanned(db: Db) -> int:
    db.execute("select pg_stat_force_next_flush()")
    question: LiteralString = (
        "select sum(seq_tup_read) from pg_stat_user_tables where relname like 'events%'"
    )
    return int(one(db, question))


def test_columns_that_are_not_ours_become_attributes(db: Db, write: Write) -> None:
    report = load_items(db, write("i.csv", ITEMS), {"item_id": "sku", "title": "name"})
    assert counts(report) == (2, 0, 0, 0, 0)
    assert db.execute(
        "select item_id, domain, title, attributes, tags from rec.items order by 1"
    ).fetchall() == [
        ("a", "default", "Blue jeans", {"brand": "Nord", "price": "59.90"}, ["jeans", "blue"]),
        ("b", "default", "Red dress, long", {}, []),
    ]


def test_numbers_and_the_domain_can_be_said_on_the_way(db: Db, write: Write) -> None:
    path = write("i.csv", "item_id,price,year\na,59.90,1999\nb,cheap,\n")
    report = load_items(db, path, domain="shop", numbers=["price", "year"])
    assert (report.inserted, report.rejected) == (1, 1)
    assert one(db, "select domain, attributes from rec.items") == (
        "shop",
        {"price": 59.9, "year": 1999.0},
    )


def test_json_keeps_its_types(db: Db, write: Write) -> None:
    row = {
        "item_id": 7,
        "domain": "film",
        "title": "Alien",
        "tags": ["space", "cat"],
        "attributes": {"year": 1979, "cast": ["Weaver"]},
        "price": 9.5,
        "available": False,
        "created_at": "1979-05-25",
    }
    load_items(db, write("i.jsonl", lines(row)))
    assert one(
        db, "select item_id, domain, tags, attributes, available, created_at from rec.items"
    ) == (
        "7",
        "film",
        ["space", "cat"],
        {"year": 1979, "cast": ["Weaver"], "price": 9.5},
        False,
        datetime(1979, 5, 25, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.csv", b"\xef\xbb\xbfitem_id,title\r\na,\xe7\x89\x9b\xe4\xbb\x94\xe8\xa3\xa4\r\n"),
        ("tabs.tsv", "item_id\ttitle\na\t牛仔裤\n"),
        ("packed.csv.gz", gzip.compress("item_id,title\n\na,牛仔裤\n".encode(), mtime=0)),
        (
            "packed.jsonl.gz",
            gzip.compress('\n{"item_id": "a", "title": "牛仔裤"}'.encode(), mtime=0),
        ),
        ("escaped.ndjson", '{"item_id": "a", "title": "\\u725b\\u4ed4\\u88e4"}\n'),
    ],
)
def test_files_come_in_several_dresses(
    db: Db, write: Write, name: str, content: str | bytes
) -> None:
    assert counts(load_items(db, write(name, content))) == (1, 0, 0, 0, 0)
    assert one(db, "select title from rec.items") == "牛仔裤"


def test_any_delimiter_will_do(db: Db, write: Write) -> None:
    load_items(db, write("i.csv", 'item_id;title\na;"Jeans; blue"\n'), delimiter=";")
    assert one(db, "select title from rec.items") == "Jeans; blue"


def test_one_column_may_serve_twice_and_a_mapped_name_wins(db: Db, write: Write) -> None:
    path = write("i.csv", "item_id,name\n1,Jeans\n")
    load_items(db, path, {"item_id": "name", "title": "name"})
    assert one(db, "select item_id, title, attributes from rec.items") == ("Jeans", "Jeans", {})


def test_loading_items_twice_touches_no_row(db: Db, write: Write) -> None:
    path = write("i.csv", ITEMS.replace("sku,name", "item_id,title"))
    load_items(db, path)
    before = db.execute("select xmin, ctid, i.* from rec.items i order by item_id").fetchall()
    assert counts(load_items(db, path)) == (0, 0, 2, 0, 0)
    assert db.execute("select xmin, ctid, i.* from rec.items i order by item_id").fetchall() == (
        before
    )


def test_only_changed_items_are_encoded_again(db: Db, write: Write) -> None:
    load_items(db, write("i.csv", "item_id,title,available\na,Jeans,1\nb,Dress,1\nc,Cap,1\n"))
    db.execute("update rec.items set encoded_hash = content_hash")
    path = write("i.csv", "item_id,title,available\na,Jeans,1\nb,Gown,1\nc,Cap,no\n")
    assert counts(load_items(db, path)) == (0, 2, 1, 0, 0)
    assert one(db, "select items_to_encode from rec.status") == 1
    assert one(db, "select available from rec.items where item_id = 'c'") is False


def test_what_a_file_does_not_speak_of_stays(db: Db, write: Write) -> None:
    load_items(db, write("i.csv", "item_id,title,brand,tags\na,Jeans,Nord,x\n"), domain="shop")
    load_items(db, write("i.csv", "item_id,available\na,false\n"))
    assert one(db, "select domain, title, attributes, tags, available from rec.items") == (
        "shop",
        "Jeans",
        {"brand": "Nord"},
        ["x"],
        False,
    )


@pytest.mark.usefixtures("small_chunks")
def test_the_last_row_of_an_item_counts_every_time(db: Db, write: Write) -> None:
    path = write("i.csv", "item_id,title\na,1\nb,1\nc,1\na,2\nd,1\na,3\nb,2\n")
    assert counts(load_items(db, path)) == (4, 0, 0, 3, 0)
    assert counts(load_items(db, path)) == (0, 0, 4, 3, 0)
    assert db.execute("select item_id, title from rec.items order by 1").fetchall() == [
        ("a", "3"),
        ("b", "2"),
        ("c", "1"),
        ("d", "1"),
    ]


def test_loading_items_wakes_the_worker(db: Db, database_url: str, write: Write) -> None:
    with psycopg.connect(database_url, autocommit=True) as listening:
        listening.execute("listen rec_events")
        load_items(db, write("i.csv", "item_id\na\n"))
        assert list(listening.notifies(timeout=5, stop_after=1))


BAD_ITEMS = [
    ("i.csv", b"item_id,title\n,Jeans\na,ok\n", 2, "no item_id"),
    ("i.csv", b"item_id,title\na,ok\nb,Je\xffans\n", 3, "the row is not UTF-8"),
    ("i.csv", b"item_id,title\na,ok\nb,Je\0ans\n", 3, "the row holds a NUL byte"),
    ("i.csv", b"item_id,title\na,ok\nb\n", 3, "1 fields, but the header has 2"),
    ("i.csv", b"item_id,title\na,ok\nb,c,d\n", 3, "3 fields, but the header has 2"),
    ("i.csv", b'item_id,title\na,"o\nk"\nb,"x"y\n', 4, "',' expected after '\"'"),
    ("i.csv", b'item_id,title\na,ok\nb,"x\ny\n', 3, "unexpected end of data"),
    ("i.csv", b"item_id,title\na,ok\n" + b"b" * 1001 + b",x\n", 3, "item_id is longer than 1,000"),
    ("i.csv", b"item_id,title\na,ok\nb," + b"x" * (2 << 20) + b"\n", 3, "field larger than"),
    ("i.csv", b"item_id,available\na,1\nb,perhaps\n", 3, "available is neither true nor false"),
    ("i.csv", b"item_id,created_at\na,\nb,soon\n", 3, "created_at is neither ISO 8601"),
    ("i.csv", b"item_id,attributes\na,{}\nb,[]\n", 3, "attributes must be a JSON object"),
    ("i.csv", b"item_id,attributes\na,\nb,{oops}\n", 3, "not JSON: Expecting property name"),
    ("i.jsonl", b'{"item_id": "a"}\n[1]\n', 2, "not a JSON object"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "b"\n', 2, "not JSON"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "\\u0000"}\n', 2, "a NUL character"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "b", "\\ud800": 1}\n', 2, "half of a surrogate"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "b", "price": NaN}\n', 2, "NaN is not a number"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "b", "price": 1e999}\n', 2, "too large a number"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "b", "x": ' + b"[" * 99999 + b"\n", 2, "too deep"),
    (
        "i.jsonl",
        b'{"item_id": "a"}\n{"item_id": "b", "x": ' + b"[" * 70 + b"]" * 70 + b"}\n",
        2,
        "too deep",
    ),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "b", "x": ' + b"1" * 9999 + b"}\n", 2, "not JSON"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": true}\n', 2, "item_id must be text"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": 1.5}\n', 2, "item_id must be text"),
    ("i.jsonl", b'{"item_id": "a"}\n{"title": "x"}\n', 2, "no item_id"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "b", "title": ["x"]}\n', 2, "title must be text"),
    ("i.jsonl", b'{"item_id": "a"}\n{"item_id": "b", "tags": [1]}\n', 2, "tags must be a list"),
    ("i.jsonl", b'{"item_id": "a"}\n\n\xff\n', 3, "the line is not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "line", "reason"), BAD_ITEMS)
def test_a_bad_row_is_named_and_the_others_are_loaded(
    db: Db, write: Write, name: str, content: bytes, line: int, reason: str
) -> None:
    rejected: list[Rejection] = []
    path = write(name, content)
    report = load_items(db, path, on_reject=rejected.append)
    assert counts(report) == (1, 0, 0, 0, 1)
    assert str(rejected[0]).startswith(f"{path}:{line}: ")
    assert reason in rejected[0].reason
    assert one(db, "select array_agg(item_id) from rec.items") == ["a"]


def test_a_line_without_end_costs_no_more_than_itself(
    db: Db, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rec_pkg.loading.files.LINE_BYTES", 1 << 10)
    long = '{"item_id": "a", "title": "' + "x" * 5000 + '"}\n'
    report = load_items(db, write("i.jsonl", long + '{"item_id": "b"}\n'))
    assert counts(report) == (1, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("i.csv", b"", "is empty"),
        ("i.jsonl", b"\n\n", "is empty"),
        ("i.csv", b"\n", "is empty"),
        ("i.csv", b"a,Jeans\nb,Dress\n", "no column item_id among a, Jeans"),
        ("i.csv", b"item_id,title,title\n", "two columns are called title"),
        ("i.csv", b"item_id,,title\n", "a column has no name"),
        ("i.csv", "item_id,title\n".encode("utf-16"), "the header"),
        ("i.parquet", b"PAR1", "ends in none of"),
        ("i.csv.gz", gzip.compress(b"item_id\na\n" * 99, mtime=0)[:-12], "Compressed file ended"),
        ("i.csv.gz", b"item_id\na\n", "Not a gzipped file"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_refused(
    db: Db, write: Write, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(BadInput, match=reason):
        load_items(db, write(name, content))


def test_a_mapped_column_must_be_there(db: Db, write: Write) -> None:
    with pytest.raises(BadInput, match="no column nombre"):
        load_items(db, write("i.csv", "item_id,name\n"), {"title": "nombre"})


def test_a_table_of_no_rows_is_fine(db: Db, write: Write) -> None:
    assert counts(load_items(db, write("i.csv", "item_id,title\n"))) == (0, 0, 0, 0, 0)


@pytest.mark.clock
def test_events_are_loaded_once_and_equal_rows_count_each(db: Db, write: Write) -> None:
    path = write("e.csv", EVENTS)
    assert counts(load_events(db, path)) == (4, 0, 0, 0, 0)
    assert counts(load_events(db, path)) == (0, 0, 4, 0, 0)
    assert db.execute(
        "select user_id, item_id, kind, value, text, occurred_at from rec.events order by event_id"
    ).fetchall() == [
        ("ada", "a", "rating", 4.5, None, datetime(2024, 3, 1, 10, tzinfo=UTC)),
        ("ada", "a", "click", None, None, datetime(2024, 3, 1, 11, tzinfo=UTC)),
        ("ada", "a", "click", None, None, datetime(2024, 3, 1, 11, tzinfo=UTC)),
        ("bob", None, "search", None, "warm jacket", datetime(2024, 3, 2, tzinfo=UTC)),
    ]


def test_loaded_events_are_queued_like_any_other(db: Db, write: Write) -> None:
    load_events(db, write("e.csv", EVENTS))
    assert one(
        db, "select count(*), count(*) filter (where has_text) from rec_internal.pending"
    ) == (4, 1)


def test_a_longer_file_adds_what_is_new(db: Db, write: Write) -> None:
    load_events(db, write("e.csv", EVENTS))
    more = EVENTS + "ada,a,click,,,2024-03-01T11:00:00Z\nada,b,,,,2024-03-01T12:00:00Z\n"
    assert counts(load_events(db, write("e.csv", more))) == (2, 0, 4, 0, 0)


@pytest.mark.clock
def test_the_same_events_from_another_format_are_known(db: Db, write: Write) -> None:
    load_events(db, write("e.csv", EVENTS))
    rows: list[dict[str, object]] = [
        {"user_id": "ada", "item_id": "a", "kind": "rating", "value": 4.5, "at": 1709287200},
        {"user_id": "ada", "item_id": "a", "at": "2024-03-01T12:00:00+01:00"},
        {"user_id": "bob", "kind": "search", "text": "warm jacket", "at": "2024-03-02"},
    ]
    report = load_events(db, write("e.jsonl", lines(*rows)), {"occurred_at": "at"})
    assert counts(report) == (0, 0, 3, 0, 0)


@pytest.mark.clock
def test_without_a_time_an_event_happened_now(db: Db, write: Write) -> None:
    load_events(db, write("e.csv", "user_id,item_id\nada,a\n"))
    assert one(
        db, "select occurred_at = received_at and now() - occurred_at < '1 min' from rec.events"
    )
    assert counts(load_events(db, write("e.csv", "user_id,item_id\nada,a\n"))) == (0, 0, 1, 0, 0)


def test_a_dedupe_key_of_the_application_holds(db: Db, write: Write) -> None:
    db.execute("select rec.track('ada', 'a', p_dedupe_key => 'k1')")
    path = write("e.csv", "user_id,item_id,dedupe_key\nada,x,k1\nada,y,k2\nada,z,k2\nbob,w,k1\n")
    assert counts(load_events(db, path)) == (2, 0, 2, 0, 0)
    assert one(db, "select array_agg(item_id order by event_id) from rec.events") == ["a", "y", "w"]


@pytest.mark.clock
@pytest.mark.parametrize(
    "time",
    [
        "2024-03-01T10:00:00Z",
        "2024-03-01 10:00",
        "2024-03-01T12:00:00+02:00",
        "20240301T100000",
        "1709287200",
        "1709287200.0",
    ],
)
def test_times_are_iso_or_epoch_seconds_and_utc_by_default(db: Db, write: Write, time: str) -> None:
    db.execute("set timezone = 'Asia/Shanghai'")
    load_events(db, write("e.csv", f"user_id,item_id,occurred_at\nada,a,{time}\n"))
    assert one(db, "select occurred_at from rec.events") == datetime(2024, 3, 1, 10, tzinfo=UTC)


BAD_EVENTS: list[tuple[dict[str, object], str]] = [
    ({"item_id": "a"}, "no user_id"),
    ({"user_id": "  ", "item_id": "a"}, "no user_id"),
    ({"user_id": "u" * 1001, "item_id": "a"}, "user_id is longer"),
    ({"user_id": "ada"}, "neither item_id nor text"),
    ({"user_id": "ada", "text": " \n"}, "neither item_id nor text"),
    ({"user_id": "ada", "item_id": "a", "kind": "stare"}, "unknown kind 'stare'; the kinds are"),
    ({"user_id": "ada", "item_id": "a", "value": "much"}, "value is not a finite number"),
    ({"user_id": "ada", "item_id": "a", "value": "nan"}, "value is not a finite number"),
    ({"user_id": "ada", "item_id": "a", "value": "-inf"}, "value is not a finite number"),
    ({"user_id": "ada", "item_id": "a", "value": True}, "value is not a finite number"),
    ({"user_id": "ada", "item_id": "a", "occurred_at": "yesterday"}, "occurred_at is neither"),
    ({"user_id": "ada", "item_id": "a", "occurred_at": 1709287200000}, "occurred_at is neither"),
    ({"user_id": "ada", "item_id": "a", "occurred_at": [1]}, "occurred_at is neither"),
    ({"user_id": "ada", "item_id": "a", "dedupe_key": "k" * 1001}, "dedupe_key is longer"),
    ({"user_id": "ada", "item_id": "a", "text": {"a": 1}}, "text must be text"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_EVENTS)
def test_a_bad_event_is_named_and_the_others_are_loaded(
    db: Db, write: Write, row: dict[str, object], reason: str
) -> None:
    rejected: list[Rejection] = []
    path = write("e.jsonl", lines(row, {"user_id": "ada", "item_id": "a"}))
    report = load_events(db, path, on_reject=rejected.append)
    assert (report.inserted, report.rejected) == (1, 1)
    assert rejected[0].line == 1
    assert reason in rejected[0].reason


def test_columns_that_mean_nothing_are_told(db: Db, write: Write) -> None:
    path = write("e.csv", "user_id,item_id,ip,agent\nada,a,::1,curl\n")
    assert load_events(db, path).ignored == ("agent", "ip")


@pytest.mark.usefixtures("small_chunks")
def test_an_interruption_leaves_whole_chunks_to_go_on_from(db: Db, write: Write) -> None:
    rows = "".join(f"ada,{n},2024-03-01\n" for n in range(7))
    path = write("e.csv", "user_id,item_id,occurred_at\n" + rows)
    seen: list[tuple[int, int]] = []

    def interrupt(_: str, done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_events(db, path, on_progress=interrupt)
    assert one(db, "select count(*) from rec.events") == 4
    assert seen[0][1] == path.stat().st_size
    assert counts(load_events(db, path)) == (3, 0, 4, 0, 0)


def test_a_transaction_of_the_caller_stays_his(database_url: str, write: Write) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("select 1")
        load_items(connection, write("i.csv", "item_id\na\n"))
        load_events(connection, write("e.csv", EVENTS))
        connection.rollback()
        assert one(connection, "select items + events from rec.status") == 0


def test_what_is_loaded_without_a_transaction_is_committed(
    database_url: str, db: Db, write: Write
) -> None:
    with psycopg.connect(database_url) as connection:
        load_events(connection, write("e.csv", EVENTS))
        load_items(connection, write("i.csv", "item_id\na\n"))
        connection.rollback()
    assert one(db, "select items + events from rec.status") == 5


@pytest.mark.usefixtures("small_chunks")
def test_a_refusal_of_the_database_keeps_what_came_before(db: Db, write: Write) -> None:
    db.execute("alter table rec.items add constraint polite check (title <> 'damn')")
    path = write("i.csv", "item_id,title\na,x\nb,x\nc,damn\nd,x\n")
    with pytest.raises(LoadStopped, match="polite"):
        load_items(db, path)
    assert one(db, "select array_agg(item_id order by item_id) from rec.items") == ["a", "b"]


@pytest.mark.parametrize("load", [load_items, load_events])
def test_loading_a_file_many_times_at_once_inserts_it_once(
    database_url: str, write: Write, load: Callable[..., Report]
) -> None:
    rows = "".join(f"u{n % 50},{n},2024-03-01\n" for n in range(2000))
    path = write("rows.csv", "user_id,item_id,occurred_at\n" + rows)

    def inserted(_: int) -> int:
        with psycopg.connect(database_url, autocommit=True) as connection:
            return load(connection, path).inserted

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(inserted, range(3))) == 2000


def test_a_look_for_a_known_event_goes_by_the_index(db: Db, write: Write) -> None:
    load_events(db, write("e.csv", EVENTS))
    db.execute(
        "insert into rec.events (user_id, item_id) select n, n from generate_series(1, 50000) n"
    )
    db.execute("analyze rec.events")
    before = rows_scanned(db)
    load_events(db, write("e.csv", EVENTS))
    assert rows_scanned(db) - before < 100


def test_movielens_loads_whole(db: Db, shared_data: Path) -> None:
    folder = shared_data / "movielens_small"
    rejected: list[Rejection] = []
    items = load_items(db, folder / "items.csv", on_reject=rejected.append)
    events = load_events(db, folder / "events.csv", on_reject=rejected.append)
    assert rejected == []
    assert (items.inserted, events.inserted) == (9742, 104519)


TEXTS = st.text(st.characters(), max_size=20)  # lone surrogates and NUL among them
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*ITEM_COLUMNS, *EVENT_COLUMNS, "price"])
ROWS = st.lists(
    st.dictionaries(KEYS, VALUES).map(lambda row: {"user_id": "u", "item_id": "i"} | row),
    max_size=9,
)
SLOW_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_FIXTURES)
@given(rows=ROWS)
def test_whatever_passes_the_checks_the_database_takes(
    db: Db, write: Write, rows: list[dict[str, object]]
) -> None:
    path = write("any.jsonl", lines(*rows) or "{}\n")
    for load in (load_items, load_events):
        report = load(db, path)
        assert report.rows + report.rejected == max(len(rows), 1)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_FIXTURES)
@given(content=st.lists(st.binary(max_size=12) | st.sampled_from([b'"', b",", b"\r\n"])))
def test_no_bytes_whatsoever_break_a_load(db: Db, write: Write, content: list[bytes]) -> None:
    load_items(db, write("any.csv", b"item_id,title\n" + b"\n".join(content)))
