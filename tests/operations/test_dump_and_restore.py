"""A dump and its restoration by the server's own programs: the same lists, the same schema."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from rec_pkg import schema
from rec_pkg.errors import SchemaMissing, SchemaTorn
from rec_pkg.operations.doctor import examine
from tests.support.databases import engine_of, new_database
from tests.support.programs import dump, run_program

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import Engine

    from rec_pkg.encoder import Encoder

Connection = psycopg.Connection[tuple[Any, ...]]

NOW: Final = "2026-06-01 12:00:00+00"
LISTS: Final = (
    f"select rank, item_id, score, path from rec.recommend(%s, 8, p_as_of => '{NOW}')",
    f"select * from rec.explain(%s, 'i3', '{NOW}') order by 2 desc, 3",
    f"select horizon, interest::real[], mass, weight from rec.interest(%s, '{NOW}') order by 1",
)


@pytest.fixture
def shop(db: Connection) -> Connection:
    """Items, folded, queued and parked events, counts, a ranker, a setting and an erasure."""
    db.execute(
        "insert into rec.items (item_id, title) select 'i' || n, n from generate_series(0, 9) n"
    )
    db.execute(
        "insert into rec.item_vectors select item_id, array_prepend("
        " title::integer, array_fill(1, array[383]))::vector::halfvec from rec.items"
    )
    db.execute(
        "insert into rec.events (user_id, item_id, occurred_at)"
        " select 'u' || n % 3, 'i' || n % 7, timestamptz '2026-05-01' + n * interval '7 hours'"
        " from generate_series(1, 30) n"
    )
    db.execute("select rec.track('u0', 'nowhere')")
    db.execute("select rec.apply_pending()")
    db.execute("select rec.merge_deltas()")
    db.execute("select rec.track('u1', 'i8')")
    db.execute("insert into rec.rankers (ranker, trend_weight) values ('other', 0.75)")
    db.execute("update rec.settings set events_kept = '900 days'")
    db.execute("select rec.forget_user('u2')")
    return db


def run_worker(url: str) -> subprocess.CompletedProcess[str]:
    """A worker that ends when nothing waits, or says why it does not begin."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "rec_pkg", "worker", "--once"],
        env=os.environ | {"PGREC_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def without_parentheses(text: str) -> str:
    """Return a dump without those that the server adds to or drops from a chain of OR."""
    return re.sub("[()]", "", text)


def answers(db: Connection) -> list[Any]:
    """What users get, and what an operator set."""
    lists = [db.execute(call, [user]).fetchall() for call in LISTS for user in ("u0", "u1", "new")]
    others = ("table rec.rankers", "table rec.settings", "select error from rec.parked")
    return flat([*lists, *(db.execute(query).fetchall() for query in others)])


def flat(value: object) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in flat(part)]
    return [value]


@pytest.mark.parametrize("form", ["custom", "plain"])
@pytest.mark.parametrize("part", ["all", "rec*"])
def test_a_restored_database_is_that_which_was_dumped(
    shop: Connection, database_url: str, server: str, tmp_path: Path, part: str, form: str
) -> None:
    file = str(tmp_path / "dump")
    chosen = [] if part == "all" else ["-n", part]
    run_program("pg_dump", "--format", form, *chosen, "--file", file, database_url)
    with new_database(server) as url:
        if part != "all":
            with psycopg.connect(url) as restored:
                restored.execute("create extension vector")
        if form == "custom":
            run_program("pg_restore", "--exit-on-error", "--dbname", url, file)
        else:
            run_program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, url)
        with engine_of(url) as engine, engine.connect() as connection:
            schema.check(connection)
        with psycopg.connect(url, autocommit=True) as restored:
            for found, expected in zip(answers(restored), answers(shop), strict=True):
                is_number = isinstance(expected, float)
                assert found == (pytest.approx(expected, abs=1e-5) if is_number else expected)
            assert without_parentheses(dump(url)) == without_parentheses(dump(database_url))
            event = restored.execute("select rec.track('u0', 'i9')").fetchone()
            taken = shop.execute("select max(event_id) from rec.events").fetchone()
            assert event
            assert taken
            assert event[0] > taken[0], "ids go on where they were"
            assert restored.execute("select rec.apply_pending()").fetchone() == (2,)
        with engine_of(url) as engine:
            schema.migrate(engine)


def test_an_owner_who_is_no_superuser_restores_it(
    shop: Connection, database_url: str, server: str, tmp_path: Path
) -> None:
    """Before the library of pgvector is loaded, only a superuser may name its settings."""
    file = str(tmp_path / "dump.sql")
    run_program(
        *("pg_dump", "--no-owner", "--no-acl", "-n", "rec*", "--file", file, database_url),
    )
    owner = f"owner_{uuid4().hex[:8]}"
    name = sql.Identifier(owner)
    shop.execute(sql.SQL("create role {} login password 'x'").format(name))
    try:
        with new_database(server) as url:
            with psycopg.connect(url) as admin:
                admin.execute("create extension vector")
                database = sql.Identifier(make_url(url).database or "")
                admin.execute(sql.SQL("grant create on database {} to {}").format(database, name))
            own = make_url(url).set(username=owner, password="x")  # noqa: S106
            address = own.render_as_string(hide_password=False)
            run_program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, address)
            with psycopg.connect(address, autocommit=True) as restored:
                for found, expected in zip(answers(restored), answers(shop), strict=True):
                    is_number = isinstance(expected, float)
                    assert found == (pytest.approx(expected, abs=1e-5) if is_number else expected)
                vector = "array_fill(1, array[384])::vector"
                near = restored.execute(f"select count(*) from rec.nearest({vector})").fetchone()
                assert near == (10,)
    finally:
        shop.execute(sql.SQL("drop role {}").format(name))


@pytest.mark.parametrize(("lost", "told"), [("rec", "rec is"), ("rec_internal", "rec_internal is")])
def test_one_schema_without_the_other_is_noticed_and_what_to_do_is_said(
    db: Connection, engine: Engine, database_url: str, encoder: Encoder, lost: str, told: str
) -> None:
    del encoder  # its files are there
    db.execute(f"drop schema {lost} cascade")
    with pytest.raises(SchemaTorn, match=f"restore .*or drop the other.*{told} missing"):
        schema.migrate(engine)
    with engine.connect() as connection, pytest.raises(SchemaTorn):
        schema.check(connection)
    (found,) = [finding for finding in examine(db) if finding.what == "schema"]
    assert found.level == "red"
    assert f"{told} missing" in found.found
    done = run_worker(database_url)
    assert done.returncode == 1
    assert f"{told} missing" in done.stderr
    other = {"rec": "rec_internal", "rec_internal": "rec"}[lost]
    db.execute(f"drop schema {other} cascade")
    with engine.connect() as connection, pytest.raises(SchemaMissing):
        schema.check(connection)
    assert "run `pgrec migrate`" in run_worker(database_url).stderr
    db.execute("drop extension vector")
    assert "run `pgrec migrate`" in run_worker(database_url).stderr
    schema.migrate(engine)
    with engine.connect() as connection:
        schema.check(connection)
