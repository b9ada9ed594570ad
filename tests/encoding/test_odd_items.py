"""Whatever a row of rec.items holds, the worker encodes the others and says why one was refused."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from rec_pkg import schema
from rec_pkg.encoder.item_text import SPOKEN_ATTRIBUTES
from tests.support.databases import engine_of

if TYPE_CHECKING:
    from rec_pkg.encoder import Encoder

Connection = psycopg.Connection[tuple[Any, ...]]

ODD = {
    "digits": """'{"brand": 1e5000}'""",
    "digits elsewhere": """'{"price": 1e5000}'""",
    "a fraction": """'{"brand": 1e-5000}'""",
    "nested": """('{"brand": ' || repeat('[', 3000) || repeat(']', 3000) || '}')::jsonb""",
    "an escape": r"""'{"category": "\\u001f"}'""",
    "a list": """'{"category": [null, true, {"a": 1}, "kept"]}'""",
}


def work(url: str) -> None:
    """Run a worker until nothing waits."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rec_pkg", "worker", "--once"],
        env=os.environ | {"PGREC_DATABASE_URL": url, "PGREC_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_item_that_cannot_be_read_is_refused_alone_with_the_reason(
    db: Connection, database_url: str, encoder: Encoder
) -> None:
    del encoder  # its files are there
    for name, attributes in ODD.items():
        db.execute(
            "insert into rec.items (item_id, title, attributes)"
            f" values (%s, 'A thing', {attributes})",
            [name],
        )
    db.execute(
        "insert into rec.items (item_id, title, body, tags) values"
        " ('long', repeat('x', 1000000), repeat(E'\\u4e2d', 1000000), '{}'),"
        " ('blank', '', '', '{}'), ('emoji', '\U0001f600', '', array[['a', 'b'], ['c', null]])"
    )
    work(database_url)
    left = db.execute("select count(*) from rec.items where stale").fetchone()
    assert left == (0,), "nothing is tried again and again"
    errors = "select item_id, encode_error from rec.items where encode_error is not null"
    refused: dict[str, str] = dict(db.execute(errors).fetchall())
    assert set(refused) == {"digits", "nested"}
    assert "digits" in refused["digits"]
    encoded = db.execute("select count(*) from rec.item_vectors").fetchone()
    assert encoded == (len(ODD) + 3 - len(refused),)


def test_a_worker_finds_its_types_whatever_its_role_brings_along(
    db: Connection, database_url: str, encoder: Encoder
) -> None:
    del encoder  # its files are there
    name = sql.Identifier(db.info.dbname)
    db.execute("create schema extensions")
    db.execute("alter extension vector set schema extensions")
    for setting in (
        "search_path = pg_catalog",
        "default_transaction_isolation = 'serializable'",
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "timezone = 'America/New_York'",
    ):
        db.execute(sql.SQL("alter database {} set ").format(name) + sql.SQL(setting))
    with engine_of(database_url) as engine:
        schema.migrate(engine)  # functions find the extension where it is now
    db.execute("insert into rec.items (item_id, title) values ('a', 'A thing')")
    db.execute("select rec.track('ann', 'a', p_text => 'some words')")
    work(database_url)
    assert db.execute("select count(*) from rec.item_vectors").fetchone() == (1,)
    assert db.execute("select pending + parked from rec.status").fetchone() == (0,)


def test_only_what_an_encoder_reads_makes_an_item_stale(db: Connection) -> None:
    db.execute(
        "insert into rec.items (item_id, title, attributes)"
        """ values ('a', 'A thing', '{"brand": "Nord", "price": 3}')"""
    )
    db.execute("update rec.items set encoded_hash = content_hash")

    def stale_after(change: str) -> bool:
        with db.transaction(force_rollback=True):
            row = db.execute(f"update rec.items set {change} returning stale").fetchone()
            assert row
            return bool(row[0])

    assert not stale_after("""attributes = attributes || '{"price": 4, "views": 17}'""")
    assert not stale_after("available = false")
    assert not stale_after("created_at = now() - interval '1 year'")
    for name in SPOKEN_ATTRIBUTES:
        assert stale_after(f"""attributes = attributes || '{{"{name}": "other"}}'"""), name
    assert stale_after("title = 'Another thing'")
    assert stale_after("body = 'told'")
    assert stale_after("tags = '{new}'")


def test_the_attributes_that_are_handed_on_are_those_of_the_item_rule(db: Connection) -> None:
    row = db.execute(
        "select array(select jsonb_object_keys(rec_internal.spoken_attributes('{}')))"
    ).fetchone()
    assert row
    assert set(row[0]) == set(SPOKEN_ATTRIBUTES)
