"""
A scratch database on the configured server, so that the user's own schema is never touched.

Items and texts are encoded once into a database that is kept; its name contains a digest of the
encoder and its inputs. Every evaluation works in a copy and drops it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine

from rec_pkg import database, schema
from rec_pkg.database.addresses import DRIVER
from rec_pkg.encoder import fetch, load_record
from rec_pkg.errors import DatabaseRefused, WorkerSilent
from rec_pkg.evaluation.data import Event
from rec_pkg.evaluation.protocols import FIRST_TARGET_AT
from rec_pkg.evaluation.store import Store
from rec_pkg.loading import load_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import Connection

    from rec_pkg.evaluation.data import Dataset
    from rec_pkg.progress import OnProgress
    from rec_pkg.settings import Settings

PREFIX: Final = "pgrec_evaluate"
POLL_S: Final = 0.5


@contextmanager
def scratch_database(
    settings: Settings, dataset: Dataset, on_progress: OnProgress
) -> Iterator[str]:
    """
    Yield the conninfo of a database with the items of `dataset` encoded and an empty log.

    Raises:
        DatabaseRefused: if the role may not create databases.
        WorkerSilent: if the worker fails.
    """
    address = database.conninfo(settings, create=True)
    with psycopg.connect(address, autocommit=True) as server:
        kept = f"{PREFIX}_{_digest(server, settings, dataset)}"
        used = f"{kept}_run_{os.getpid()}"
        with _alone(server, kept):
            _make(server, kept, "template0")
            _fill(settings, make_conninfo(address, dbname=kept), dataset, on_progress)
            _drop(server, used)
            _make(server, used, kept)
        try:
            yield make_conninfo(address, dbname=used)
        finally:
            _drop(server, used)


def run_worker(
    settings: Settings, conninfo: str, waiting: Callable[[], int], on_progress: OnProgress
) -> None:
    """
    Run `pgrec worker --once` on a database until its queue is empty.

    Raises:
        WorkerSilent: if it fails; the message contains the end of its output.
    """
    environment = os.environ | {
        "PGREC_DATABASE_URL": conninfo,
        "PGREC_ENCODER": settings.encoder,
        "PGREC_CACHE_DIR": str(settings.cache_dir),
        "PGREC_THREADS": str(settings.threads),
        "PGREC_PROVIDER": settings.provider,
        "PGREC_LOG_FORMAT": "json",
    }
    total = waiting()
    command = [sys.executable, "-P", "-m", "rec_pkg", "worker", "--once", "--metrics-port", "0"]
    with subprocess.Popen(  # noqa: S603  # our own program
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        _watch(process, waiting, total, on_progress)
        said = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise WorkerSilent(said.strip()[-500:])


def _watch(
    process: subprocess.Popen[str], waiting: Callable[[], int], total: int, on_progress: OnProgress
) -> None:
    try:
        while process.poll() is None:
            on_progress("encode and fold", max(total - waiting(), 0), total)
            time.sleep(POLL_S)
    except BaseException:
        process.terminate()
        raise
    on_progress("encode and fold", total, total)


def _digest(server: Connection[Any], settings: Settings, dataset: Dataset) -> str:
    """Return a digest of what the kept database depends on: texts, encoder, tables, and owner."""
    record = load_record(settings.encoder)
    digest = sha256(fetch(record, settings.cache_dir).fingerprint.encode())
    digest.update(str(server.execute("select current_user").fetchone()).encode())
    for path in sorted(schema.folder("migrations").rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(dataset.items_path.read_bytes())
    for text in (*dataset.texts, *_event_texts(dataset)):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def _event_texts(dataset: Dataset) -> list[str]:
    return sorted({event.text for event in dataset.events if event.text})


def _fill(settings: Settings, address: str, dataset: Dataset, on_progress: OnProgress) -> None:
    """Bring the kept database to this version, with all items and texts encoded."""
    engine = create_engine(f"{DRIVER}://", creator=lambda: psycopg.connect(address))
    try:
        schema.migrate(engine, dims=load_record(settings.encoder).dims)
    finally:
        engine.dispose()
    with psycopg.connect(address, autocommit=True) as connection:
        filled = connection.execute("select count(*) from rec.items").fetchone()
        if not (filled and filled[0]):
            load_items(connection, dataset.items_path)
    with Store.open(address) as store:
        if store.items_to_encode() == 0:
            store.forget_users()  # left by an interrupted run
            return
        texts = [
            Event("texts", None, "search", text, None, FIRST_TARGET_AT)
            for text in _event_texts(dataset)
        ]
        store.forget_users()
        store.load(texts)
        run_worker(
            settings, address, lambda: store.items_to_encode() + store.pending(), on_progress
        )
        store.forget_users()


@contextmanager
def _alone(server: Connection[Any], name: str) -> Iterator[None]:
    """Lock out other evaluations of the same data while the kept database is made and copied."""
    server.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [name])
    try:
        yield
    finally:
        server.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", [name])


def _make(server: Connection[Any], name: str, template: str) -> None:
    known = server.execute("select from pg_database where datname = %s", [name]).fetchone()
    if known is not None:
        return
    call = sql.SQL("create database {} template {}")
    try:
        server.execute(call.format(sql.Identifier(name), sql.Identifier(template)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseRefused(
            "an evaluation creates a database of its own, so its role needs the right to create "
            "one: alter role ... createdb"
        ) from error


def _drop(server: Connection[Any], name: str) -> None:
    server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
