"""Loads vectors that were made elsewhere: COPY, merge, and one index build after all rows."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg

from rec_pkg.database import pooler
from rec_pkg.database.halfvec import packed
from rec_pkg.encoder.calibration import Calibration
from rec_pkg.encoder.store import active_encoder
from rec_pkg.errors import BadInput
from rec_pkg.loading import Feed, OnProgress, OnReject, copy_chunk, stopping, store
from rec_pkg.loading.files import Source
from rec_pkg.loading.rows import VectorRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from psycopg import Connection

    from rec_pkg.encoder.store import ActiveEncoder

COLUMNS: Final = ("item_id", "embedding")
SHORTEST: Final = 12
"""Fewest digits of a fingerprint that identify an encoder; logs and errors show as many."""

LOOK_S: Final = 0.5
MEMORY: Final = re.compile(r"\d+(kB|MB|GB|TB)")


@dataclass(frozen=True)
class VectorReport:
    """The outcome of loading vectors; `unknown` counts vectors whose item does not exist."""

    rows: int
    inserted: int
    updated: int
    unchanged: int
    unknown: int
    rejected: int


def load_vectors(  # noqa: PLR0913  # one parameter per way to read a file
    connection: Connection[Any],
    path: Path,
    fingerprint: str,
    mapping: Mapping[str, str] | None = None,
    *,
    workers: int | None = None,
    memory: str | None = None,
    delimiter: str | None = None,
    on_reject: OnReject = lambda _: None,
    on_progress: OnProgress = lambda *_: None,
) -> VectorReport:
    """
    Store the vectors of a file as the vectors of the items' present contents.

    Columns (or keys) are item_id and embedding, a list of numbers; the length of a vector does not
    matter. If no vectors are stored yet, the HNSW index is dropped before the first row and built
    after the last one; until then lists compare all items. Each chunk is a transaction of its own.
    After an interruption, the same call continues the work. Stop the workers first: nobody can
    store vectors while the index is being built. Behind a pooler the index is kept.

    Args:
        connection: its role owns schema `rec`.
        path: a .csv, .tsv, .jsonl or .ndjson file, or one of these with .gz.
        fingerprint: of the encoder that made the vectors, or at least its first 12 digits. It must
            be the active encoder, or the one beneath the active calibration.
        mapping: our name of a column -> the file's name of it.
        workers: processes that build the index beside the server's own; None means the server's
            setting.
        memory: memory for the index, such as 4GB; None means the server's setting.
        delimiter: of a CSV; None means comma, or tab in a .tsv.
        on_reject: called with each row that is not loaded.
        on_progress: called after each chunk, and with `index` while the index is built.

    Raises:
        BadInput: if nothing of the file can be read, or its vectors are of another encoder.
        LoadStopped: if the database refuses a chunk.
    """
    if memory is not None and not MEMORY.fullmatch(memory):
        raise BadInput(f"{memory} is not an amount of memory such as 4GB or 500MB")
    source = Source(path, delimiter)
    with connection.transaction():
        active = _active(connection, fingerprint)
    feed = Feed(source, mapping or {}, VectorRows(active.dims), on_reject, COLUMNS)
    counts = np.zeros(4, np.int64)
    with (
        stopping(path),
        feed.rows("item_id") as rows,
        pooler.one_session(connection) as in_one_transaction,
    ):
        with connection.transaction():
            store.stage_vectors(connection)
            if not in_one_transaction:  # it would keep everyone else from the table
                store.drop_vector_index(connection)
        placed = _placed(rows, active, fingerprint)
        while copy_chunk(connection, store.copy_vectors, placed):
            with connection.transaction():
                counts += store.merge_vectors(connection, active.fingerprint)
            on_progress("read", source.position(), source.size)
        make_index(connection, workers, memory, on_progress)
        with connection.transaction():
            store.wake(connection)
    inserted, updated, unchanged, unknown = counts.tolist()
    return VectorReport(feed.good, inserted, updated, unchanged, unknown, feed.rejected)


def make_index(
    connection: Connection[Any],
    workers: int | None = None,
    memory: str | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> bool:
    """Build the HNSW index of the vectors if it is missing, and return whether it was."""
    on_progress("index", 0, 0)
    with _watched(connection, on_progress), connection.transaction():
        return store.make_vector_index(connection, workers, memory)


def _active(connection: Connection[Any], fingerprint: str) -> ActiveEncoder:
    active = active_encoder(connection)
    if active is None:
        raise BadInput("no encoder is active yet; run `pgrec worker --once` first")
    known = [active.fingerprint, *filter(None, [active.base])]
    if len(fingerprint) < SHORTEST or not any(each.startswith(fingerprint) for each in known):
        names = " and ".join(each[:SHORTEST] for each in known)
        raise BadInput(f"vectors of {names} are stored here; those of the file are of another one")
    return active


def _placed(
    rows: Iterator[tuple[Any, ...]], active: ActiveEncoder, fingerprint: str
) -> Iterator[tuple[str, bytes]]:
    """Yield the rows in binary form, in the space of the stored vectors."""
    calibration = None
    if active.calibration is not None and not active.fingerprint.startswith(fingerprint):
        calibration = Calibration.from_bytes(active.calibration, active.dims)
    for item_id, vector in rows:
        one = vector[np.newaxis]
        (embedding,) = packed(calibration.apply(one) if calibration else one)
        yield item_id, embedding


@contextmanager
def _watched(connection: Connection[Any], on_progress: OnProgress) -> Iterator[None]:
    """Report the progress of a connection's index build by asking on a second connection."""
    over = Event()
    address, password = connection.info.dsn, connection.info.password
    pid = connection.info.backend_pid

    def look() -> None:
        with psycopg.connect(address, password=password, autocommit=True) as other:
            while not over.wait(LOOK_S):
                if found := store.index_progress(other, pid):
                    on_progress("index", *found)

    looking = Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
