"""How the roles come to be: by whom they are made, twice at once, and by an administrator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url
from typer.testing import CliRunner

from rec_pkg import schema
from rec_pkg.cli import app
from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

Connection = psycopg.Connection[tuple[Any, ...]]

DATABASES = ("one", "two", "three")
ROLES = ["rec_analyst", "rec_app", "rec_owner", "rec_worker"]
MEMBERS = ("plain", "maker")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """URL of a server of our own, for roles belong to the whole of it."""
    folder = Path(tempfile.mkdtemp(prefix="pgrec-"))
    folder.chmod(0o755)
    server = EmbeddedServer(folder, Settings().pg_bin, {"fsync": "off"})
    try:
        yield server.start()
    finally:
        server.stop("immediate")
        shutil.rmtree(server.home)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def admin(cluster: str) -> Iterator[Connection]:
    """A superuser of a server with three empty databases and without any role of pgrec."""
    with psycopg.connect(cluster, autocommit=True) as admin:
        for name in DATABASES:
            admin.execute(f"create database {name}")
            with psycopg.connect(url(cluster, name), autocommit=True) as database:
                database.execute("create extension vector")
        admin.execute("create role plain login; create role maker login createrole")
        yield admin
        for name in DATABASES:
            admin.execute(f"drop database {name} with (force)")
        for role in (*ROLES, *MEMBERS):
            admin.execute(f"drop role if exists {role}")


def url(cluster: str, database: str, user: str = "pgrec") -> str:
    address = make_url(cluster).set(database=database, username=user)
    return address.render_as_string(hide_password=False)


def engine(address: str) -> Engine:
    return create_engine(make_url(address).set(drivername="postgresql+psycopg"))


def migrate(address: str) -> str | None:
    """Migrate and return what an administrator has to do."""
    opened = engine(address)
    try:
        schema.migrate(opened)
        return schema.role_advice(opened)
    finally:
        opened.dispose()


def roles(admin: Connection) -> list[str]:
    query = "select rolname from pg_roles where rolname like 'rec\\_%' order by 1"
    return [name for (name,) in admin.execute(query)]


def owners(address: str) -> list[str]:
    with psycopg.connect(address) as db:
        rows = db.execute(
            "select distinct pg_get_userbyid(o.owner) from ("
            " select c.relowner from pg_class c"
            " where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
            " union select p.proowner from pg_proc p"
            " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
            ") o (owner)"
        )
        return [name for (name,) in rows]


def test_databases_that_are_migrated_at_once_share_the_roles(
    cluster: str, admin: Connection
) -> None:
    command = [sys.executable, "-m", "rec_pkg", "migrate"]
    running = [
        subprocess.Popen(
            command,
            env=os.environ | {"PGREC_DATABASE_URL": url(cluster, name)},
            stderr=subprocess.PIPE,
        )
        for name in DATABASES
    ]
    assert [(process.communicate()[1], process.returncode) for process in running] == [(b"", 0)] * 3
    assert roles(admin) == ROLES
    for name in DATABASES:
        assert owners(url(cluster, name)) == ["rec_owner"]


def test_a_role_that_another_migration_is_just_making_is_waited_for(
    cluster: str, admin: Connection
) -> None:
    with ThreadPoolExecutor() as pool:
        with psycopg.connect(cluster) as other:
            other.execute("create role rec_app nologin")
            second = pool.submit(migrate, url(cluster, "one"))
            waiting = "select count(*) from pg_stat_activity where wait_event = 'transactionid'"
            while admin.execute(waiting).fetchone() == (0,):
                assert not second.done()
        assert second.result() is None
    assert roles(admin) == ROLES
    with psycopg.connect(url(cluster, "one")) as db:
        db.execute("set role rec_app")
        db.execute("select * from rec.recommend('ann')")


def test_a_role_that_may_make_roles_makes_them_and_becomes_the_owner(
    cluster: str, admin: Connection
) -> None:
    admin.execute("alter database one owner to maker")
    assert migrate(url(cluster, "one", "maker")) is None
    assert roles(admin) == ROLES
    assert owners(url(cluster, "one")) == ["rec_owner"]
    assert migrate(url(cluster, "one", "maker")) is None
    with psycopg.connect(url(cluster, "one", "maker")) as db:
        db.execute("insert into rec.items (item_id) values ('a')")
        db.execute("select rec.make_partitions(7), rec.rebuild_collaborative()")


def test_a_role_that_may_not_is_told_what_an_administrator_has_to_run(
    cluster: str, admin: Connection
) -> None:
    admin.execute("alter database one owner to plain")
    address = url(cluster, "one", "plain")
    ran = CliRunner().invoke(app, ["migrate"], env={"PGREC_DATABASE_URL": address})
    assert ran.exit_code == 0
    assert roles(admin) == []
    assert owners(address) == ["plain"]
    advice = [line for line in ran.stderr.splitlines() if line.endswith(";")]
    assert advice == [
        *(f"create role {name} nologin;" for name in ("rec_owner", "rec_worker", "rec_app")),
        "create role rec_analyst nologin;",
        "grant rec_owner to plain;",
    ]
    with psycopg.connect(address) as db:
        db.execute("select rec.track('ann', 'a')")
        db.execute("select * from rec.recommend('ann'), rec.forget_user('ann')")

    for statement in advice:
        admin.execute(statement.encode())
    ran = CliRunner().invoke(app, ["migrate"], env={"PGREC_DATABASE_URL": address})
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert owners(address) == ["rec_owner"]
    admin.execute("grant rec_app to maker")
    with psycopg.connect(url(cluster, "one", "maker")) as db:
        db.execute("select rec.track('ann', 'a')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("delete from rec_internal.pending")


def test_a_database_of_its_own_owner_beside_one_of_rec_owner_is_no_harm(
    cluster: str, admin: Connection
) -> None:
    assert migrate(url(cluster, "one")) is None
    admin.execute("alter database two owner to plain")
    assert migrate(url(cluster, "two", "plain")) == "grant rec_owner to plain;"
    assert owners(url(cluster, "two")) == ["plain"]
    with psycopg.connect(url(cluster, "two")) as db:
        db.execute("set role rec_app")
        db.execute("select rec.track('ann', 'a'), rec.forget_user('ann')")


def test_pgvector_in_a_schema_of_its_own_is_within_reach_of_the_roles(
    cluster: str, admin: Connection
) -> None:
    with psycopg.connect(url(cluster, "one"), autocommit=True) as db:
        db.execute(
            "drop extension vector; create schema apart; create extension vector schema apart"
        )
        migrate(url(cluster, "one"))
        db.execute("insert into rec.items (item_id) values ('a'), ('b')")
        db.execute(
            "insert into rec.item_vectors"
            " select i.item_id, array_fill(1, array[384])::apart.halfvec from rec.items i"
        )
        db.execute("set role rec_app")
        found = db.execute("select item_id from rec.similar_items('a')").fetchall()
    assert found == [("b",)]
    assert roles(admin) == ROLES
