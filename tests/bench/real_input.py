"""
Load a folder with items.csv and events.csv, let a worker drain it, and report.

    python tests/bench/real_input.py FOLDER

Uses a database of its own on the embedded server, dropped at the end.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, make_url

from rec_pkg import database, schema
from rec_pkg.client import Client
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rec_pkg.queries import Share

NAME = "pgrec_real_input"
USERS = 100
LISTS = 10
console = Console(width=110)


@contextmanager
def scratch_database() -> Iterator[str]:
    """URL of an empty database beside the one of the settings."""
    address = database.conninfo(Settings(), create=True)
    with psycopg.connect(address, autocommit=True) as admin:
        admin.execute(f"drop database if exists {NAME} with (force)")
        admin.execute(f"create database {NAME}")
        parts = psycopg.conninfo.conninfo_to_dict(address)
        url = make_url("postgresql://").set(
            username=str(parts["user"]),
            database=NAME,
            query={"host": str(parts["host"]), "port": str(parts["port"])},
        )
        try:
            yield url.render_as_string(hide_password=False)
        finally:
            admin.execute(f"drop database {NAME} with (force)")


def timed(what: str, *command: str, url: str) -> None:
    """Run a pgrec command on the database and print how long it took."""
    start = time.perf_counter()
    environment = os.environ | {"PGREC_DATABASE_URL": url, "PGREC_LOG_FORMAT": "console"}
    subprocess.run([sys.executable, "-m", "rec_pkg", *command], env=environment, check=True)
    console.print(f"{what}: {time.perf_counter() - start:.1f} s")


def fold_again(db: psycopg.Connection[Any]) -> None:
    """Queue the whole log once more and fold it without the encoder."""
    db.execute("create temp table log as table rec.events")
    db.execute(
        "truncate rec.events, rec.user_interests, rec_internal.item_deltas,"
        " rec_internal.popularity, rec_internal.item_transitions"
    )
    db.execute(
        "insert into rec.events (user_id, item_id, kind, text, value, dedupe_key, occurred_at)"
        " select user_id, item_id, kind, text, value, dedupe_key, occurred_at from log"
    )
    start = time.perf_counter()
    events = drain(db, "select rec.apply_pending(5000)")
    console.print(f"fold {events:,} events: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    deltas = drain(db, "select rec.merge_deltas()")
    console.print(f"merge {deltas:,} deltas: {time.perf_counter() - start:.1f} s")


def drain(db: psycopg.Connection[Any], call: str) -> int:
    """Call until nothing is left, and return the sum of what the calls returned."""
    total = 0
    while count := one(db, call):
        total += count
    return total


def one(db: psycopg.Connection[Any], query: str, *parameters: object) -> Any:  # noqa: ANN401
    """Return the single value of a query."""
    row = db.execute(query, parameters).fetchone()
    return row[0] if row else None


def check_replay(db: psycopg.Connection[Any], users: list[str]) -> None:
    """Compare what is stored of users with a replay of the log."""
    worst = max(
        one(
            db,
            "select max((u.interest <-> r.interest) / greatest(vector_norm(r.interest), 1e-9))"
            " from rec.user_interests u join rec_internal.replay(%s) r using (horizon)"
            " where u.user_id = %s",
            user,
            user,
        )
        for user in users
    )
    console.print(f"stored interest of {len(users)} users against the replay: {worst:.1e} apart")


def time_lists(db: psycopg.Connection[Any], users: list[str]) -> None:
    """Print the median time of a list."""
    seconds = []
    for user in users:
        start = time.perf_counter()
        db.execute("select * from rec.recommend(%s, 10)", [user]).fetchall()
        seconds.append(time.perf_counter() - start)
    console.print(f"rec.recommend: median {statistics.median(seconds) * 1000:.1f} ms")


def show_list(client: Client, user: str) -> None:
    """Print what a user liked last and his list with its reasons."""
    table = Table("#", "item", "score", "path", "why", title=f"user {user}")
    for item in client.recommend(user, 10):
        shares = [s for s in client.explain(user, item.item_id) if s.share > 0][:3]
        why = "; ".join(f"{s.share:.2f} {reason(s)}" for s in shares)
        table.add_row(str(item.rank), item.title, f"{item.score:.2f}", item.path, why)
    console.print(table)


def reason(share: Share) -> str:
    """Name an event or a term."""
    return share.text or share.title or share.term


def main(folder: str) -> None:
    """Run everything."""
    with scratch_database() as url:
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        schema.migrate(engine)
        timed("load items", "load", "items", f"{folder}/items.csv", url=url)
        timed("encode items", "worker", "--once", url=url)
        timed("load events", "load", "events", f"{folder}/events.csv", url=url)
        timed("encode texts, fold and merge", "worker", "--once", url=url)
        with psycopg.connect(url, autocommit=True) as db:
            status = Client(engine).status()
            console.print(f"pending {status.pending}, parked {status.parked}")
            fold_again(db)
            users = [row[0] for row in db.execute("select distinct user_id from rec.events")]
            sample = random.Random(1).sample(sorted(users), min(USERS, len(users)))
            check_replay(db, sample)
            time_lists(db, sample)
            for user in sample[:LISTS]:
                show_list(Client(engine), user)
        engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
