"""A made-up shop: unit vectors in topics and two languages, users who keep to their topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pgvector import HalfVector

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from support import Connection

DIMS = 384
DEPARTMENTS = 24
TOPICS = 300
BRANDS = 8  # clusters within a topic
RANK = 24  # of the noise that is not the same in all directions
SUCCESSORS = 5
READERS, READ = 2000, 30
HEAVY, HEAVY_SEEN = 40, 1000
NEWCOMERS = 40
SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}


def directions(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Random vectors of length about one."""
    vectors: NDArray[np.float32] = rng.standard_normal(shape, np.float32)
    return vectors / np.float32(np.sqrt(shape[-1]))


def catalogue(items: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Topic and unit vector of each item."""
    rng = np.random.default_rng(7)
    weights = 1 / np.arange(1, TOPICS + 1) ** 0.5
    topic = rng.choice(TOPICS, items, p=weights / weights.sum())
    brand = rng.integers(BRANDS, size=items)
    language = rng.integers(2, size=items)
    # Most items lie between two topics, so that the topics are no islands.
    other, lean = rng.choice(TOPICS, items), rng.random((items, 1), np.float32)
    centre = 0.4 * directions(rng, DEPARTMENTS, DIMS)[
        rng.integers(DEPARTMENTS, size=TOPICS)
    ] + 0.6 * directions(rng, TOPICS, DIMS)
    vectors = (
        (1 - 0.6 * lean) * centre[topic]
        + 0.6 * lean * centre[other]
        + 0.25 * directions(rng, TOPICS, BRANDS, DIMS)[topic, brand]
        + 0.3 * directions(rng, 2, DIMS)[language]
        + 0.6 * directions(rng, items, RANK) @ directions(rng, RANK, DIMS)
        + 0.1 * directions(rng, items, DIMS)
    )
    return topic, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(db: Connection, items: int) -> None:
    """Insert the shop, its log, and all that follows from the log."""
    topic, vectors = catalogue(items)
    add_items(db, topic, vectors)
    add_events(db, topic)
    while drain(db, "select rec.apply_pending(5000)"):
        pass
    while drain(db, "select rec.merge_deltas()"):
        pass
    db.execute("vacuum analyze")


def drain(db: Connection, call: str) -> int:
    """What one call of a function gave."""
    row = db.execute(call).fetchone()
    return row[0] if row else 0


def add_items(db: Connection, topic: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(8)
    flags = {name: rng.random(len(topic)) < share for name, share in SHARES.items()}
    row = db.execute(
        "select indexdef from pg_indexes where indexname = 'item_vectors_hnsw'"
    ).fetchone()
    db.execute("drop index rec.item_vectors_hnsw")
    with db.cursor() as cursor:
        with cursor.copy("copy rec.items (item_id, title, attributes) from stdin") as copy:
            for number in range(len(topic)):
                true = ", ".join(f'"{name}": true' for name in SHARES if flags[name][number])
                copy.write_row((f"i{number}", f"topic {topic[number]}", f"{{{true}}}"))
        with cursor.copy("copy rec.item_vectors from stdin with (format binary)") as copy:
            copy.set_types(["text", "halfvec"])
            for number, vector in enumerate(vectors):
                copy.write_row((f"i{number}", HalfVector(vector)))
    db.execute(row[0] if row else "")
    db.execute("update rec.items set encoded_hash = content_hash")
    db.execute("vacuum full rec.items")


def walk(
    rng: np.random.Generator,
    members: list[NDArray[np.int64]],
    topics: NDArray[np.int64],
    steps: int,
) -> list[int]:
    """Items without repetition: half of the steps go on to a fixed successor of the last item."""
    walked: dict[int, None] = {}
    last, topic = -1, int(topics[0])
    while len(walked) < steps:
        if rng.random() < 0.15:
            topic = int(rng.choice(topics))
        pool = members[topic]
        place = int(len(pool) * rng.random() ** 2)
        if last >= 0 and rng.random() < 0.5:
            place = (last * 7919 + int(rng.integers(SUCCESSORS)) * 104_729) % len(pool)
        last = int(pool[place])
        walked[last] = None
    return list(walked)


def histories(rng: np.random.Generator, topic: NDArray[np.int64]) -> dict[str, list[int]]:
    """Items of each user, in order."""
    members = [np.flatnonzero(topic == number) for number in range(TOPICS)]
    users: list[tuple[str, int, int]] = [
        *((f"reader {n}", 3, READ) for n in range(READERS)),
        *((f"heavy {n}", 40, HEAVY_SEEN) for n in range(HEAVY)),
        *((f"newcomer {n}", 1, 1) for n in range(NEWCOMERS)),
    ]
    weights = np.array([len(pool) for pool in members]) / len(topic)
    return {
        user: walk(rng, members, rng.choice(TOPICS, kinds, replace=False, p=weights), steps)
        for user, kinds, steps in users
    }


def add_events(db: Connection, topic: NDArray[np.int64]) -> None:
    """Spread each history over the last sixty days; one event in thirty is a dislike."""
    rng = np.random.default_rng(9)
    log: list[tuple[Any, ...]] = []
    for user, walked in histories(rng, topic).items():
        kinds = rng.choice(["click", "like", "dislike"], len(walked), p=[0.85, 0.12, 0.03])
        kinds[-1] = "click"
        ages = np.sort(rng.uniform(1, 60 * 24, len(walked)))[::-1]
        log += [
            (user, f"i{item}", str(kind), float(age))
            for item, kind, age in zip(walked, kinds, ages, strict=True)
        ]
    log.sort(key=lambda row: -row[3])
    db.execute(
        "create temp table log (place int, user_id text, item_id text, kind text, age float8)"
    )
    with db.cursor() as cursor, cursor.copy("copy log from stdin") as copy:
        for place, row in enumerate(log):
            copy.write_row((place, *row))
    db.execute(
        "insert into rec.events (user_id, item_id, kind, occurred_at)"
        " select user_id, item_id, kind, now() - age * interval '1 hour' from log order by place"
    )
    db.execute("drop table log")
