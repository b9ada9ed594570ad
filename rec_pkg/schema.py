"""Bring schemas `rec` and `rec_internal` to this version, and detect databases of another one."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import alembic.command
import alembic.config
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.errors import InvalidFunctionDefinition, InvalidTableDefinition

from rec_pkg.errors import (
    PgvectorMissing,
    SchemaMismatch,
    SchemaMissing,
    SchemaTooNew,
    SchemaTorn,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy.engine import Connection, Engine

LOCK_TIMEOUT = "10s"
ROLES = "rights/roles.sql"
DESCRIBED = re.compile(
    r"^((?:-- .*\n)+)create or replace (function|view) (rec(?:_internal)?\.\w+)", re.MULTILINE
)
FOUND: Final = (  # by the catalog alone, so that a role without any right gets an answer, too
    "select coalesce(bool_or(n.nspname = 'rec'), false),"
    " coalesce(bool_or(n.nspname = 'rec_internal'), false)"
    " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where (n.nspname, c.relname) in (('rec', 'items'), ('rec_internal', 'state'))"
)
PGVECTOR_MINIMUM = (0, 8, 4)


def folder(name: str) -> Path:
    """Return the folder `migrations` or `sql`: inside the wheel, or beside the package."""
    package = Path(__file__).parent
    shipped = package / "_schema" / name
    return shipped if shipped.is_dir() else package.parent / name


def sql_files() -> list[Path]:
    """Return the files of re-run objects in the order of `sql/order.txt`."""
    home = folder("sql")
    lines = (home / "order.txt").read_text(encoding="utf-8").splitlines()
    return [home / line for line in lines if line and not line.startswith("#")]


def sql_digest() -> str:
    """Return the sha256 over the names and contents of the files of `sql/`, as hex."""
    digest = hashlib.sha256()
    for path in sql_files():
        name = path.relative_to(folder("sql")).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def descriptions(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, name and comment of each function and view that a file of `sql/` describes."""
    for header, kind, name in DESCRIBED.findall(text):
        yield kind, name, " ".join(line.removeprefix("-- ") for line in header.splitlines())


def migrate(engine: Engine, *, dims: int = 384, revision: str = "head") -> None:
    """
    Upgrade both schemas to `revision`, re-run `sql/`, and leave everything else alone.

    The roles of pgrec are created if the role of `engine` may do so; `role_advice` returns what is
    left for an administrator to do.

    Args:
        engine: its role may create a schema and, if it is missing, the extension vector.
        dims: length of the encoder's vectors; used only when the tables are first created.
        revision: an Alembic revision; `head` is this version.

    Raises:
        PgvectorMissing: if the server does not offer a usable pgvector.
        SchemaTooNew: if a newer version has migrated the database.
        SchemaTorn: if only one of the two schemas is there.
    """
    # A separate transaction, because migrations of other databases of this server wait for it.
    with engine.begin() as connection:
        _execute(connection, (folder("sql") / ROLES).read_text(encoding="utf-8"))
    incompatible: set[Path] = set()
    while True:
        try:
            with engine.connect() as connection:
                config = _config(connection, dims, incompatible)
                _refuse_newer(connection, config)
                alembic.command.upgrade(config, revision)
        except _Incompatible as found:
            incompatible.add(found.path)
        else:
            return


def role_advice(engine: Engine) -> str | None:
    """Return the SQL that an administrator must run to complete the roles, or None."""
    with engine.connect() as connection:
        advice: str | None = connection.scalar(sa.text("select rec_internal.role_advice()"))
    return advice


def downgrade(engine: Engine, revision: str = "base") -> None:
    """Revert the revisions after `revision`; `base` empties both schemas, including all events."""
    with engine.connect() as connection:
        alembic.command.downgrade(_config(connection, 0), revision)


def is_whole(*, face: bool, engine: bool) -> bool:
    """
    Return whether both schemas are there, of which `FOUND` tells which are.

    Raises:
        SchemaTorn: if only one of them is there.
    """
    if face != engine:
        raise SchemaTorn("rec_internal is missing" if face else "rec is missing")
    return face


def check(connection: Connection) -> None:
    """
    Check that the database's re-run objects are those of this package.

    Raises:
        SchemaMissing: if the database was never migrated.
        SchemaTorn: if only one of the two schemas exists.
        SchemaMismatch: if another version of the package migrated it.
    """
    if not _is_there(connection):
        raise SchemaMissing
    if connection.scalar(sa.text("select sql_digest from rec_internal.state")) != sql_digest():
        raise SchemaMismatch


def prepare(connection: Connection) -> None:
    """
    Create the schemas and the extension if missing, and set the transaction's search_path.

    Raises:
        SchemaTorn: if one of the two schemas was dropped or restored without the other.
        PgvectorMissing: if the server does not offer a usable pgvector.
    """
    _execute(connection, f"set local lock_timeout = '{LOCK_TIMEOUT}'")
    _execute(connection, "select pg_advisory_xact_lock(hashtextextended('rec.migrate', 0))")
    _is_there(connection)
    _execute(connection, "create schema if not exists rec")
    _execute(connection, "create schema if not exists rec_internal")
    home = _pgvector_schema(connection)
    _execute(connection, f"set local search_path = rec, {home}, pg_temp")
    # Only a superuser may name pgvector's parameters before its library is loaded.
    _execute(connection, "select '[1]'::vector")


def apply_sql(connection: Connection, incompatible: Collection[Path] = ()) -> None:
    """
    Run every file of `sql/`, comment on what it describes, and store the digest of all files.

    What an earlier version made of the files in `incompatible` is dropped first, with all that
    depends on it: `create or replace` cannot change what a function or view returns.
    """
    for path in sql_files():
        text = path.read_text(encoding="utf-8")
        if path in incompatible:
            _drop_made(connection, text)
        try:
            _execute(connection, text)
        except (InvalidFunctionDefinition, InvalidTableDefinition) as error:
            if path in incompatible:
                raise
            raise _Incompatible(path) from error
        for kind, name, comment in descriptions(text):
            made = _signature(connection, name) if kind == "function" else name
            literal = sql.Literal(comment).as_string()
            _execute(connection, f"comment on {kind} {made} is {literal}")
    connection.execute(
        sa.text("update rec_internal.state set sql_digest = :digest"), {"digest": sql_digest()}
    )
    connection.execute(sa.text("select rec.make_partitions()"))
    # Autovacuum never analyses tables of a few rows, and every plan joins these.
    _execute(connection, "analyze rec.rankers, rec.settings, rec.horizons, rec.event_kinds")


def forget_sql(connection: Connection) -> None:
    """Record that the re-run objects are absent, if the tables exist."""
    if _is_there(connection):
        connection.execute(sa.text("update rec_internal.state set sql_digest = null"))


class _Incompatible(Exception):
    """A file of `sql/` makes something of another shape than an earlier version did."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name)
        self.path = path


def _drop_made(connection: Connection, text: str) -> None:
    """Drop the functions and views of a file of `sql/` that the last run of it made."""
    made = sa.text(
        "select format('drop %s if exists %s cascade', m.kind, m.signature)"
        " from rec_internal.made m where split_part(m.signature, '(', 1) = any(:names)"
    )
    names = [name for _, name, _ in descriptions(text)]
    for statement in connection.execute(made, {"names": names}).scalars().all():
        _execute(connection, statement)


def _signature(connection: Connection, name: str) -> str:
    """Return the signature of the function of this name that this transaction has just created."""
    made = sa.text(
        "select p.oid::regprocedure::text from pg_proc p"
        " where p.pronamespace = cast(:schema as regnamespace) and p.proname = :function"
        " and p.xmin = cast(pg_current_xact_id() as xid)"
    )
    home, _, function = name.partition(".")
    return str(connection.execute(made, {"schema": home, "function": function}).scalar_one())


def _is_there(connection: Connection) -> bool:
    face, engine = connection.execute(sa.text(FOUND)).one()
    return is_whole(face=face, engine=engine)


def _refuse_newer(connection: Connection, config: alembic.config.Config) -> None:
    """Raise SchemaTooNew if the database is at a revision that this version does not have."""
    with connection.begin():
        if connection.scalar(sa.text("select to_regclass('rec_internal.alembic_version') is null")):
            return
        current = connection.scalar(sa.text("select version_num from rec_internal.alembic_version"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise SchemaTooNew(f"revision {current}")


def _config(
    connection: Connection, dims: int, incompatible: Collection[Path] = ()
) -> alembic.config.Config:
    config = alembic.config.Config(
        attributes={"connection": connection, "dims": dims, "incompatible": incompatible}
    )
    config.set_main_option("script_location", str(folder("migrations")))
    config.set_main_option("path_separator", "os")
    return config


def _execute(connection: Connection, statements: str) -> None:
    """Hand `statements` to the driver unchanged: neither `:name` nor `%` is special in them."""
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(statements)


def _pgvector_schema(connection: Connection) -> str:
    """Return the quoted schema of the extension vector; create it in `public` if it is missing."""
    find = sa.text(
        "select quote_ident(n.nspname), e.extversion from pg_extension e"
        " join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'"
    )
    row = connection.execute(find).one_or_none()
    if row is None:
        available = sa.text("select 1 from pg_available_extensions where name = 'vector'")
        if connection.scalar(available) is None:
            raise PgvectorMissing
        _execute(connection, "create extension vector schema public")
        row = connection.execute(find).one()
    home, version = row
    if tuple(int(part) for part in version.split(".")[:3]) < PGVECTOR_MINIMUM:
        raise PgvectorMissing(f"found {version}")
    return str(home)
