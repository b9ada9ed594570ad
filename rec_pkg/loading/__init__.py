"""Loads files of items and events: read, check, COPY, merge. Repeating a load is harmless."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import psycopg

from rec_pkg.database import pooler
from rec_pkg.errors import BadInput, LoadStopped
from rec_pkg.loading import store
from rec_pkg.loading.files import BadRow, Rejection, Row, Source
from rec_pkg.loading.rows import EventRows, ItemRows
from rec_pkg.loading.store import EVENT_COLUMNS, ITEM_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from psycopg import Connection, Copy, Cursor

CHUNK: Final = 10_000

OnReject = Callable[[Rejection], None]
OnProgress = Callable[[str, int, int], None]
"""Called with the step (`read` or `merge`), the amount done, and the total."""


@dataclass(frozen=True)
class Report:
    """
    The outcome of loading a file.

    `rows` were usable and `rejected` were not; `repeated` rows were dropped in favour of a later
    row of the same item. Events that were already in the log count as `unchanged`. `ignored` names
    the columns that pgrec does not use.
    """

    rows: int
    inserted: int
    updated: int
    unchanged: int
    repeated: int
    rejected: int
    ignored: tuple[str, ...]


def load_items(  # noqa: PLR0913  # one parameter per way to read a file
    connection: Connection[Any],
    path: Path,
    mapping: Mapping[str, str] | None = None,
    *,
    domain: str | None = None,
    numbers: Collection[str] = (),
    delimiter: str | None = None,
    on_reject: OnReject = lambda _: None,
    on_progress: OnProgress = lambda *_: None,
) -> Report:
    """
    Insert the items of a file into `rec.items`, update those that differ, and wake the worker.

    Columns (or keys) are item_id, domain, title, body, attributes (a JSON object), tags (a list, or
    text with `|` between them), available and created_at; every other one becomes an attribute.
    Columns that the file lacks stay unchanged. If several rows have the same item_id, the last one
    counts. Each chunk of rows is merged in a transaction of its own, or under a savepoint if the
    connection is already in a transaction or goes through a pooler.

    Args:
        connection: its role may write `rec.items` and create temporary tables.
        path: a .csv, .tsv, .jsonl or .ndjson file, or one of these with .gz.
        mapping: our name of a column -> the file's name of it.
        domain: domain of rows without one.
        numbers: attributes that are numbers; in a CSV the others stay text.
        delimiter: of a CSV; None means comma, or tab in a .tsv.
        on_reject: called with each row that is not loaded.
        on_progress: called after each chunk.

    Raises:
        BadInput: if nothing of the file can be read.
        LoadStopped: if the database refuses a chunk.
    """
    source = Source(path, delimiter)
    feed = Feed(source, mapping or {}, ItemRows(domain, numbers), on_reject, ITEM_COLUMNS)
    with stopping(path), feed.rows("item_id") as rows, pooler.one_session(connection):
        with connection.transaction():
            store.stage_items(connection)
        while copy_chunk(connection, store.copy_items, rows):
            on_progress("read", source.position(), source.size)
        with connection.transaction():
            repeated = store.settle_items(connection)
        inserted, updated, unchanged = _merge_items(connection, feed.good, on_progress)
        with connection.transaction():
            store.wake(connection)
    return Report(feed.good, inserted, updated, unchanged, repeated, feed.rejected, ())


def load_events(  # noqa: PLR0913  # as above
    connection: Connection[Any],
    path: Path,
    mapping: Mapping[str, str] | None = None,
    *,
    kind: str = "click",
    delimiter: str | None = None,
    on_reject: OnReject = lambda _: None,
    on_progress: OnProgress = lambda *_: None,
) -> Report:
    """
    Append the events of a file to `rec.events`, as if the application had inserted them.

    Columns (or keys) are user_id, item_id or text or both, kind, value, occurred_at (ISO 8601, UTC
    if it names no zone, or epoch seconds; now if empty) and dedupe_key; others are ignored. An
    event whose user and dedupe key are already in the log is skipped. If the file gives no key, the
    key is derived from the row's values and the number of equal rows before it, so that loading a
    file again, or a longer one that contains it, inserts nothing twice.

    For the arguments and errors see `load_items`; `kind` is the kind of rows without one.
    """
    source = Source(path, delimiter)
    convert = EventRows(_event_kinds(connection, path), kind)
    feed = Feed(source, mapping or {}, convert, on_reject, EVENT_COLUMNS)
    inserted = 0
    with stopping(path), feed.rows("user_id") as rows, pooler.one_session(connection):
        with connection.transaction():
            store.stage_events(connection)
        while copy_chunk(connection, store.copy_events, rows):
            with connection.transaction():
                inserted += store.merge_events(connection)
            on_progress("read", source.position(), source.size)
    known = feed.good - inserted
    return Report(feed.good, inserted, 0, known, 0, feed.rejected, tuple(sorted(feed.strange)))


class Feed:
    """The rows of a file, renamed and checked; rejected rows are reported and counted."""

    def __init__(
        self,
        source: Source,
        mapping: Mapping[str, str],
        convert: Callable[[Row], tuple[Any, ...]],
        on_reject: OnReject,
        columns: Collection[str],
    ) -> None:
        self._source = source
        self._mapping = mapping
        self._convert = convert
        self._on_reject = on_reject
        self._columns = frozenset(columns)
        self._renamed_away = {*mapping, *(set(mapping.values()) - self._columns)}
        self.good = 0
        self.rejected = 0
        self.strange: set[str] = set()

    @contextmanager
    def rows(self, key: str) -> Iterator[Iterator[tuple[Any, ...]]]:
        """Open the file and yield tuples for COPY; a table must have the column `key`."""
        with self._source.open() as rows:
            self._check_header(key)
            yield self._checked(rows)

    def _check_header(self, key: str) -> None:
        columns = self._source.columns
        if columns is None:
            return
        needed = {*self._mapping.values(), self._mapping.get(key, key)}
        if missing := sorted(needed - set(columns)):
            raise BadInput(
                f"{self._source.path}:1: no column {', '.join(missing)}"
                f" among {', '.join(columns)[:300]}; --map {key}=NAME takes another column"
            )

    def _checked(self, rows: Iterator[tuple[int, Row | BadRow]]) -> Iterator[tuple[Any, ...]]:
        for line, row in rows:
            try:
                values = self._values(row)
            except BadRow as reason:
                self.rejected += 1
                self._on_reject(Rejection(self._source.path, line, str(reason)))
            else:
                self.good += 1
                yield values

    def _values(self, row: Row | BadRow) -> tuple[Any, ...]:
        if isinstance(row, BadRow):
            raise row
        if self._mapping:
            row = self._renamed(row)
        if not row.keys() <= self._columns:
            self.strange |= row.keys() - self._columns
        return self._convert(row)

    def _renamed(self, row: Row) -> Row:
        named = {ours: row[theirs] for ours, theirs in self._mapping.items() if theirs in row}
        return {name: row[name] for name in row if name not in self._renamed_away} | named


def _event_kinds(connection: Connection[Any], path: Path) -> frozenset[str]:
    with stopping(path), connection.transaction():
        return store.event_kinds(connection)


def copy_chunk(
    connection: Connection[Any],
    copying: Callable[[Cursor[Any]], AbstractContextManager[Copy]],
    rows: Iterator[tuple[Any, ...]],
) -> int:
    """Copy the next rows into a table of the session and return their number."""
    copied = 0
    with connection.transaction(), connection.cursor() as cursor, copying(cursor) as copy:
        for values in islice(rows, CHUNK):
            copy.write_row(values)
            copied += 1
    return copied


def _merge_items(
    connection: Connection[Any], rows: int, on_progress: OnProgress
) -> tuple[int, int, int]:
    inserted = updated = unchanged = 0
    for first in range(1, rows + 1, CHUNK):
        last = min(first + CHUNK - 1, rows)
        with connection.transaction():
            counts = store.merge_items(connection, first, last)
        inserted, updated, unchanged = (
            inserted + counts[0],
            updated + counts[1],
            unchanged + counts[2],
        )
        on_progress("merge", last, rows)
    return inserted, updated, unchanged


@contextmanager
def stopping(path: Path) -> Iterator[None]:
    """Name the file in the error if the database refuses something."""
    try:
        yield
    except psycopg.Error as error:
        raise LoadStopped(f"{path}: {error.diag.message_primary or error}") from error
