"""A data set in a folder: items, and either a log of events or rows of history and target."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from rec_pkg.encoder.item_text import item_text
from rec_pkg.errors import BadInput
from rec_pkg.loading.files import BadRow, Source
from rec_pkg.loading.rows import EventRows, ItemRows, identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime
    from pathlib import Path

    from rec_pkg.loading.files import Row

T = TypeVar("T")
SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".ndjson")
UNDATED: Final = "an event without occurred_at"


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the log, with `item_id`, `text`, or both."""

    user_id: str
    item_id: str | None
    kind: str
    text: str | None
    value: float | None
    at: datetime


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A user's events, oldest first, and the next one."""

    user_id: str
    history: tuple[str, ...]
    target: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """
    A data set as read: `events`, or the rows `valid` and `test`.

    `texts` are the encoder's inputs of the items, `documents` their full texts, both in the order
    of `item_ids`. `dropped` counts rows that could not be used: unreadable ones, and those that
    name an unknown item.
    """

    name: str
    items_path: Path
    item_ids: tuple[str, ...]
    texts: tuple[str, ...]
    documents: tuple[str, ...]
    events: tuple[Event, ...]
    valid: tuple[HistoryRow, ...]
    test: tuple[HistoryRow, ...]
    dropped: int


class _EveryKind(frozenset[str]):
    """Accepts every kind of event; kinds are checked later, against the database."""

    __slots__ = ()

    def __contains__(self, kind: object) -> bool:
        return True


def read_dataset(folder: Path) -> Dataset:
    """
    Read `items`, and `events` or `valid` and `test`, from a folder of CSV or JSON Lines files.

    Columns are those of `pgrec load`; rows have user_id, history (oldest first) and target.

    Raises:
        BadInput: if files are missing or contain nothing usable.
    """
    items_path = _file(folder, "items")
    if items_path is None:
        raise BadInput(f"{folder}: no items.csv or items.jsonl")
    found, bad_items = _read(items_path, _item_texts)
    items = dict(found)
    events, bad_events = _read(_file(folder, "events"), _event_reader())
    valid, bad_valid = _read(_file(folder, "valid"), _history_row)
    test, bad_test = _read(_file(folder, "test"), _history_row)
    kept = [event for event in events if event.item_id is None or event.item_id in items]
    valid_kept, test_kept = _of_known(valid, items), _of_known(test, items)
    if not items or not (kept or (valid_kept and test_kept)):
        raise BadInput(f"{folder}: needs items, and events or rows of valid and test, that match")
    strange = len(events) + len(valid) + len(test) - len(kept) - len(valid_kept) - len(test_kept)
    return Dataset(
        name=folder.resolve().name,
        items_path=items_path,
        item_ids=tuple(items),
        texts=tuple(text for text, _ in items.values()),
        documents=tuple(document for _, document in items.values()),
        events=tuple(kept),
        valid=valid_kept,
        test=test_kept,
        dropped=bad_items + bad_events + bad_valid + bad_test + strange,
    )


def _file(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{suffix}{zipped}" for suffix in SUFFIXES for zipped in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path | None, convert: Callable[[Row], T]) -> tuple[list[T], int]:
    """Return the converted rows of a file, and the number of unusable rows."""
    good: list[T] = []
    bad = 0
    if path is None:
        return good, bad
    with Source(path).open() as rows:
        for _, row in rows:
            try:
                good.append(convert(_checked(row)))
            except BadRow:
                bad += 1
    return good, bad


def _checked(row: Row | BadRow) -> Row:
    if isinstance(row, BadRow):
        raise row
    return row


def _item_texts(row: Row) -> tuple[str, tuple[str, str]]:
    """Return an item's id, the encoder's input for it, and its full text."""
    item_id, _, title, body, attributes, tags, *_ = ItemRows()(row)
    known = json.loads(attributes or "{}")
    parts = (title, *map(str, known.values()), *(tags or ()), body)
    return item_id, (
        item_text(title or "", body, known, tags),
        "\n".join(part for part in parts if part),
    )


def _event_reader() -> Callable[[Row], Event]:
    checked = EventRows(_EveryKind())

    def read(row: Row) -> Event:
        user_id, item_id, kind, text, value, at, _ = checked(row)
        if at is None:
            raise BadRow(UNDATED)
        return Event(user_id, item_id, kind, text, value, at)

    return read


def _history_row(row: Row) -> HistoryRow:
    history = row.get("history")
    if not isinstance(history, list) or not history:
        raise BadRow("history must be a list of item ids")
    items = (str(identifier({"item_id": item}, "item_id")) for item in history)
    return HistoryRow(str(identifier(row, "user_id")), tuple(items), str(identifier(row, "target")))


def _of_known(rows: list[HistoryRow], items: Collection[str]) -> tuple[HistoryRow, ...]:
    return tuple(row for row in rows if all(item in items for item in (*row.history, row.target)))
