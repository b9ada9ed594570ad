"""The export of a user: all that the database holds of him, in words as well as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[tuple[Any, ...]]

TAGS = {"jeans": ["denim", "blue"], "shirt": ["cotton", "blue"], "novel": ["sea", "paper"]}


@pytest.fixture
def lived(db: Connection) -> Connection:
    """A user with something in every table that can hold something of a user."""
    random = np.random.default_rng(3)
    for item, tags in TAGS.items():
        db.execute(
            "insert into rec.items (item_id, title, tags) values (%s, %s, %s)",
            [item, item.title(), tags],
        )
        db.execute(
            "insert into rec.item_vectors values (%s, %s)",
            [item, HalfVector(random.normal(size=384))],
        )
    db.execute(
        "insert into rec_internal.texts values (rec_internal.content_hash('wide jeans'), %s)",
        [HalfVector(random.normal(size=384))],
    )
    track(db, "novel", kind="rating", value=1.5)
    db.execute("select rec.apply_pending()")
    db.execute(
        "insert into rec_internal.interest_bases select user_id, horizon, interest, mass, as_of"
        " from rec.user_interests"
    )
    db.execute("delete from rec.user_interests where horizon = 'short'")
    track(db, "jeans", dedupe_key="once")
    track(db, "shirt")
    track(db, text="wide jeans", kind="search")
    db.execute("select rec.apply_pending()")
    track(db, "unknown")
    db.execute("select rec.apply_pending()")
    track(db, "jeans", kind="view")
    db.execute("select rec.pause_user('ann')")
    return db


def track(
    db: Connection,
    item: str | None = None,
    *,
    kind: str = "click",
    text: str | None = None,
    value: float | None = None,
    dedupe_key: str | None = None,
) -> None:
    db.execute(
        "select rec.track('ann', %s, %s, %s, %s, p_dedupe_key => %s)",
        [item, kind, text, value, dedupe_key],
    )


def exported(db: Connection, user: str = "ann") -> dict[str, Any]:
    row = db.execute("select rec.export_user(%s)", [user]).fetchone()
    assert row
    document: dict[str, Any] = row[0]
    return document


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def user_owned(db: Connection) -> list[str]:
    rows = db.execute(
        "select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid"
        " where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and c.relkind in ('r', 'p') and not c.relispartition and a.attname = 'user_id'"
    )
    return sorted(row[0] for row in rows)


@pytest.mark.clock
def test_every_value_that_a_table_holds_of_a_user_is_in_the_export(lived: Connection) -> None:
    told = set(leaves(exported(lived)))
    tables = user_owned(lived)
    assert tables == [
        "rec.events",
        "rec.user_interests",
        "rec_internal.dedupe_keys",
        "rec_internal.interest_bases",
        "rec_internal.item_deltas",
        "rec_internal.paused_users",
        "rec_internal.pending",
    ]
    for table in tables:
        query = f"select to_jsonb(t) from {table} t where user_id = 'ann'"
        rows = lived.execute(query).fetchall()
        assert rows, table
        for (row,) in rows:
            for column, value in row.items():
                values = value if isinstance(value, list) else [value]
                assert told.issuperset(values), f"{table}.{column}"
    texts = lived.execute(
        "select to_jsonb(t) from rec_internal.texts t"
        " where text_hash = rec_internal.content_hash('wide jeans')"
    ).fetchone()
    assert texts
    assert set(texts[0].values()) <= told


def test_interests_and_topics_are_told_in_words(lived: Connection) -> None:
    document = exported(lived)
    short, long = document["interests"]
    assert (short["horizon"], long["horizon"]) == ("short", "long")
    assert short["weight"] + long["weight"] == pytest.approx(1)
    assert long["items"][0]["title"] in {"Jeans", "Shirt"}
    assert long["items"][0]["similarity"] >= long["items"][1]["similarity"]
    assert set(long["words"]) == {"denim", "blue", "cotton", "sea", "paper"}
    assert {topic["items"][0]["item_id"] for topic in document["topics"]} >= {"jeans", "shirt"}
    assert [dislike["items"][0]["item_id"] for dislike in document["dislikes"]] == ["novel"]
    assert document["seen_items"] == ["jeans", "novel", "shirt", "unknown"]


def test_an_export_tells_what_is_queued_parked_and_waits_to_be_counted(lived: Connection) -> None:
    document = exported(lived)
    queues = {event["item_id"]: event["queue"] for event in document["events"]}
    assert queues["novel"] is None
    assert queues["unknown"]["error"] == "unknown item 'unknown'"
    assert queues["unknown"]["retry_at"] == "infinity"
    assert queues["jeans"]["error"] is None
    waiting = {count["to_item"] for count in document["waiting_counts"]}
    assert {"jeans", "shirt"} <= waiting


@pytest.mark.clock
def test_the_form_of_an_export_stays_as_it_is_described(lived: Connection) -> None:
    document, described = exported(lived), description(lived)
    assert document["format"] == "pgrec export 1"
    assert set(document) == set(exported(lived, "a stranger"))
    for name in (*document, *names_within(document)):
        assert name in described, name


def names_within(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from names_within(part)


def description(db: Connection) -> str:
    row = db.execute("select obj_description('rec.export_user(text)'::regprocedure)").fetchone()
    assert row
    return str(row[0])


def test_of_an_unknown_user_there_is_nothing(lived: Connection) -> None:
    document = exported(lived, "a stranger")
    filled = {name for name, value in document.items() if value}
    assert filled == {"format", "user_id", "exported_at"}
