"""The shop of any size: made and copied piece by piece, indexed at the end and in parallel."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import psycopg
import shop
from pgvector import HalfVector
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from support import Connection

PIECE: Final = 20_000
BUILDERS: Final = 2
LOOK_S: Final = 20.0
# Made again when the rows are there. Those of constraints stay.
INDEXES: Final = """
    select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) from pg_index i
    where i.indrelid in ('rec.items'::regclass, 'rec.item_vectors'::regclass)
        and not exists (select from pg_constraint c where c.conindid = i.indexrelid)
    order by pg_get_indexdef(i.indexrelid) like '%hnsw%'
"""
BUILDING: Final = "select phase, tuples_done from pg_stat_progress_create_index where pid = %s"
console: Final = Console(width=110)


class Clock:
    """Says what is going on, and since when."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        console.print(f"[{minutes:3d}:{seconds:02d}] {what}", highlight=False, markup=False)


class Shelves:
    """Where items lie: directions of departments, topics, brands and languages, as in the shop."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        weights = 1 / np.arange(1, shop.TOPICS + 1) ** 0.5
        self._share = weights / weights.sum()
        departments = shop.directions(rng, shop.DEPARTMENTS, shop.DIMS)
        department = rng.integers(shop.DEPARTMENTS, size=shop.TOPICS)
        own = shop.directions(rng, shop.TOPICS, shop.DIMS)
        self._centre = 0.4 * departments[department] + 0.6 * own
        self._brand = 0.25 * shop.directions(rng, shop.TOPICS, shop.BRANDS, shop.DIMS)
        self._language = 0.3 * shop.directions(rng, 2, shop.DIMS)
        self._noise = 0.6 * shop.directions(rng, shop.RANK, shop.DIMS)

    def items(
        self, rng: np.random.Generator, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Topic and unit vector of some items."""
        topic = rng.choice(shop.TOPICS, count, p=self._share)
        other, lean = rng.choice(shop.TOPICS, count), 0.6 * rng.random((count, 1), np.float32)
        vectors = (
            (1 - lean) * self._centre[topic]
            + lean * self._centre[other]
            + self._brand[topic, rng.integers(shop.BRANDS, size=count)]
            + self._language[rng.integers(2, size=count)]
            + shop.directions(rng, count, shop.RANK) @ self._noise
            + 0.1 * shop.directions(rng, count, shop.DIMS)
        ).astype(np.float32)
        return topic, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(db: Connection, items: int) -> None:
    """Insert the shop, its log, and all that follows from the log."""
    clock = Clock()
    topic = fill_catalogue(db, items, clock)
    clock.say("a log of events")
    shop.add_events(db, topic)
    drain(db, "select rec.apply_pending(5000)", "events folded", clock)
    drain(db, "select rec.merge_deltas()", "counts merged", clock)
    db.execute("vacuum analyze")
    clock.say("filled")


def fill_catalogue(db: Connection, items: int, clock: Clock) -> NDArray[np.int64]:
    """Insert items and vectors; return the topics of the items."""
    indexes = db.execute(INDEXES).fetchall()
    for name, _ in indexes:
        db.execute(f"drop index {name}".encode())
    shelves, rng, topics = Shelves(), np.random.default_rng(8), []
    for first in range(0, items, PIECE):
        count = min(PIECE, items - first)
        topic, vectors = shelves.items(rng, count)
        add_piece(db, first, topic, vectors)
        topics.append(topic)
        if (first + count) % (10 * PIECE) == 0 or first + count == items:
            clock.say(f"{first + count:,} of {items:,} items")
    for _, definition in indexes:
        build(db, definition, clock)
    db.execute("vacuum analyze rec.items, rec.item_vectors")
    return np.concatenate(topics)


def add_piece(
    db: Connection, first: int, topic: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    """Copy items with what they were encoded from, so that none is touched again."""
    rng = np.random.default_rng(first)
    flags = {name: rng.random(len(topic)) < share for name, share in shop.SHARES.items()}
    with db.transaction(), db.cursor() as cursor:
        cursor.execute(
            "create temp table piece (item_id text, title text, attributes jsonb) on commit drop"
        )
        with cursor.copy("copy piece from stdin") as copy:
            for place in range(len(topic)):
                true = ", ".join(f'"{name}": true' for name in shop.SHARES if flags[name][place])
                copy.write_row((f"i{first + place}", f"topic {topic[place]}", f"{{{true}}}"))
        cursor.execute(
            "insert into rec.items (item_id, title, attributes, encoded_hash)"
            " select p.item_id, p.title, p.attributes,"
            " rec_internal.item_hash(p.title, '', p.attributes, '{}') from piece p"
        )
        with cursor.copy("copy rec.item_vectors from stdin with (format binary)") as copy:
            copy.set_types(["text", "halfvec"])
            for place, vector in enumerate(vectors):
                copy.write_row((f"i{first + place}", HalfVector(vector)))


def build(db: Connection, definition: str, clock: Clock) -> None:
    """Make an index with all cores, saying how far it is."""
    name = definition.split(" ON ", maxsplit=1)[0].rsplit(maxsplit=1)[-1]
    db.execute(f"set max_parallel_maintenance_workers = {BUILDERS}".encode())
    with told(db, name, clock):
        db.execute(definition.encode())
    clock.say(f"{name} made")


@contextmanager
def told(db: Connection, name: str, clock: Clock) -> Iterator[None]:
    """Say now and then how far an index is."""
    done = threading.Event()
    address, pid = db.info.dsn, db.info.backend_pid

    def look() -> None:
        with psycopg.connect(address, autocommit=True) as beside:
            while not done.wait(LOOK_S):
                row = beside.execute(BUILDING, [pid]).fetchone()
                if row and row[1]:
                    clock.say(f"{name}: {row[0]}, {row[1]:,} rows")

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()


def drain(db: Connection, call: str, what: str, clock: Clock) -> None:
    """Call until nothing is left."""
    total, said = 0, time.monotonic()
    while some := shop.drain(db, call):
        total += some
        if time.monotonic() > said + LOOK_S:
            said = time.monotonic()
            clock.say(f"{total:,} {what}")
    clock.say(f"{total:,} {what}, all")
