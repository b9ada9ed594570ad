"""`pgrec doctor`: each thing that can be wrong is broken, found, mended, and found to be well."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, make_url
from typer.testing import CliRunner

from rec_pkg import schema
from rec_pkg.cli import app
from rec_pkg.operations.doctor import examine

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[tuple[Any, ...]]

BROKEN = [
    ("pgvector", "update pg_extension set extversion = '0.8.3' where extname = 'vector'"),
    ("pgvector", "update pg_extension set extversion = '0.7.10' where extname = 'vector'"),
    ("autovacuum", "set local track_counts = off"),
    ("dead rows of pending", "alter table rec_internal.pending set (autovacuum_enabled = false)"),
    ("worker", "insert into rec.items (item_id) values ('new')"),
    ("worker", "select rec.track('ann', 'a')"),
    (
        "lag",
        (
            "insert into rec_internal.pending"
            " select 'ann', 1, now(), false, now() - interval '11 minutes'"
        ),
    ),
    (
        "partitions",
        (
            "do $$ begin execute format("
            "'alter table rec.events detach partition rec_internal.events_%s',"
            " to_char(now() at time zone 'UTC', 'YYYY_MM')); end $$"
        ),
    ),
    (
        "encoder",
        "insert into rec_internal.encoders select repeat('a', 64), 'other', '{}', 768, true",
    ),
    (
        "encoder",
        (
            "insert into rec_internal.encoders select repeat('a', 64), 'ours', '{}', 384, true;"
            " update pg_attribute set atttypmod = 2"
            " where attrelid = 'rec_internal.texts'::regclass and attname = 'embedding'"
        ),
    ),
    ("vector index", "drop index rec.item_vectors_hnsw"),
    (
        "vector index",
        (
            "update pg_index set indisvalid = false"
            " where indexrelid = 'rec.item_vectors_hnsw'::regclass"
        ),
    ),
    ("horizons and kinds", "update rec.horizons set weight = 0"),
    ("horizons and kinds", "delete from rec.event_kinds where weight > 0"),
    (
        "weights of ranker default",
        (
            "update rec.rankers set content_weight = 0, latest_weight = 0, closest_weight = 0,"
            " transition_weight = 0, trend_weight = 0"
        ),
    ),
    ("schema of pgvector", "grant create on schema public to public"),
    ("policies", "alter table rec.events enable row level security, force row level security"),
    ("schema", "update rec_internal.state set sql_digest = 'of another version'"),
    ("schema", "drop schema rec cascade"),
]
DOUBTFUL = [
    (
        "parked",
        "insert into rec_internal.pending select 'ann', 1, now(), false, now(), 1, 'infinity', 'x'",
    ),
    ("failed items", "insert into rec.items (item_id, encode_error) values ('bad', 'no')"),
    ("policies", "alter table rec.items enable row level security"),
    ("owner", "alter table rec.events owner to current_user"),
]


def levels(db: Connection) -> dict[str, str]:
    return {finding.what: finding.level for finding in examine(db)}


@pytest.fixture
def well(db: Connection, database_url: str) -> Iterator[Connection]:
    """A database with an encoder and a worker, so that there is nothing to complain of."""
    with psycopg.connect(database_url, application_name="pgrec worker"):
        db.execute(
            "insert into rec_internal.encoders select repeat('e', 64), 'made up', '{}', 384, true"
        )
        yield db


@pytest.mark.clock
def test_a_fresh_database_with_a_worker_is_well(well: Connection) -> None:
    found = examine(well)
    assert {finding.level for finding in found} == {"green"}
    assert all(finding.advice is None for finding in found)


@pytest.mark.clock
@pytest.mark.parametrize(("level", "cases"), [("red", BROKEN), ("yellow", DOUBTFUL)])
def test_what_is_broken_is_found_and_what_is_mended_is_well_again(
    db: Connection, level: str, cases: list[tuple[str, str]]
) -> None:
    """The worker's absence alone is yellow; what waits for one makes it red."""
    before = levels(db)
    for what, statement in cases:
        with db.transaction(force_rollback=True):
            db.execute(statement.encode())
            found = {finding.what: finding for finding in inside(db)}
            assert found[what].level == level, (what, statement, found[what])
            assert found[what].advice
    assert levels(db) == before
    assert "red" not in before.values()


def inside(db: Connection) -> list[Any]:
    """What is found in a transaction that will be rolled back, where LISTEN hears nothing."""
    from rec_pkg.operations import doctor  # noqa: PLC0415  # its inner half

    return list(doctor._inside(db))  # noqa: SLF001


def test_a_search_that_the_index_does_not_serve_is_red(well: Connection) -> None:
    well.execute("insert into rec.items (item_id) select 'i' || n from generate_series(1, 2500) n")
    well.execute(
        "insert into rec.item_vectors"
        " select i.item_id, array_fill(1, array[384])::halfvec from rec.items i"
    )
    well.execute("analyze rec.item_vectors")
    assert levels(well)["search plan"] == "green"
    well.execute("set enable_indexscan = off")
    assert levels(well)["search plan"] == "red"
    well.execute("delete from rec.items where item_id > 'i2'")
    well.execute("vacuum analyze rec.item_vectors")
    assert levels(well)["search plan"] == "yellow"


def test_without_a_schema_it_says_what_to_run(database_url: str) -> None:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    schema.downgrade(engine)
    engine.dispose()
    ran = CliRunner().invoke(app, ["doctor"], env={"PGREC_DATABASE_URL": database_url})
    assert ran.exit_code == 1
    assert "pgrec migrate" in ran.stdout


def test_the_exit_status_is_1_if_anything_is_red(db: Connection, database_url: str) -> None:
    environment = {"PGREC_DATABASE_URL": database_url, "COLUMNS": "200"}
    ran = CliRunner().invoke(app, ["doctor"], env=environment)
    assert ran.exit_code == 0, ran.output
    assert "PostgreSQL 18" in ran.stdout
    db.execute("update rec.horizons set weight = 0")
    ran = CliRunner().invoke(app, ["doctor", "--json"], env=environment)
    assert ran.exit_code == 1
    red = [finding for finding in json.loads(ran.stdout) if finding["level"] == "red"]
    assert [finding["what"] for finding in red] == ["horizons and kinds"]
    assert "rec.horizons" in red[0]["advice"]


@pytest.mark.parametrize("role", ["rec_app", "rec_worker", "rec_analyst"])
def test_a_role_with_few_rights_sees_what_it_may_and_breaks_nothing(
    well: Connection, role: str
) -> None:
    well.execute(f"set role {role}".encode())
    found = examine(well)
    assert {"server", "pgvector", "roles", "partitions"} <= {finding.what for finding in found}
    assert {finding.level for finding in found} <= {"green", "yellow"}


def test_a_role_without_any_right_is_told_so(well: Connection) -> None:
    name = f"nobody_{uuid4().hex[:8]}"
    well.execute(f"create role {name}".encode())
    try:
        well.execute(f"set role {name}".encode())
        assert levels(well) == {"connection": "green", "schema": "yellow"}
    finally:
        well.execute("reset role")
        well.execute(f"drop role {name}".encode())


def answers(path: Path) -> bool:
    """Whether somebody listens on a socket; it has a file a moment before."""
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(path)) == 0


@pytest.fixture
def pooled(database_url: str) -> Iterator[str]:
    """Folder of the socket of a pgbouncer before the database, which takes sessions apart."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("there is no pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="pgrec-"))
    folder.chmod(0o777)
    server = " ".join(
        f"{name}={value}"
        for name, value in conninfo_to_dict(database_url).items()
        if name in {"host", "port", "user", "password", "dbname"}
    )
    (folder / "ini").write_text(
        f"[databases]\npooled = {server}\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {folder}\n"
        "listen_port = 6543\nauth_type = any\npool_mode = transaction\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    account = ["-u", "postgres"] if os.geteuid() == 0 else []
    with subprocess.Popen(
        [program, "-q", *account, str(folder / "ini")], stderr=subprocess.DEVNULL
    ) as bouncer:
        try:
            while not answers(folder / ".s.PGSQL.6543"):
                assert bouncer.poll() is None
                time.sleep(0.01)
            yield f"host={folder} port=6543 dbname=pooled user=anybody"
        finally:
            bouncer.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_pooler_that_takes_sessions_apart_is_red(pooled: str) -> None:
    with psycopg.connect(pooled, autocommit=True) as db:
        (line,) = [finding for finding in examine(db) if finding.what == "connection"]
    assert line.level == "red"
    assert "pooler" in line.found
