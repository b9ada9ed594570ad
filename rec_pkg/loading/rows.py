"""Turns rows of a file into items, events and vectors, and rejects rows that cannot be used."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rec_pkg.loading.files import BadRow, Row, parse_json
from rec_pkg.loading.store import ITEM_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

ID_BYTES: Final = 1000  # two ids and a kind fit into an index entry of 2,704 bytes
NAME_BYTES: Final = 200
EPOCH: Final = re.compile(r"-?\d{9,11}(\.\d+)?", re.ASCII)  # eight digits are a date
TRUTHS: Final = {"true": True, "t": True, "yes": True, "y": True, "1": True} | {
    "false": False,
    "f": False,
    "no": False,
    "n": False,
    "0": False,
}

Tuple = tuple[Any, ...]


@dataclass(frozen=True)
class ItemRows:
    """
    Turns rows into tuples of `ITEM_COLUMNS`; None means that the file does not give a value.

    `domain` is the domain of rows without one. Unknown columns become attributes; those named in
    `numbers` become numbers.
    """

    domain: str | None = None
    numbers: Collection[str] = ()

    def __call__(self, row: Row) -> Tuple:
        """Return the tuple of a row, or raise BadRow."""
        return (
            identifier(row, "item_id"),
            _name(row, "domain") or self.domain,
            _text(row, "title"),
            _text(row, "body"),
            self._attributes(row),
            _tags(row.get("tags")),
            _truth(row.get("available")),
            moment(row.get("created_at"), "created_at"),
        )

    def _attributes(self, row: Row) -> str | None:
        given = row.get("attributes")
        if isinstance(given, str):
            given = parse_json(given) if given.strip() else {}
        extra = {
            name: self._extra(name, value)
            for name, value in row.items()
            if name not in ITEM_COLUMNS and value != ""
        }
        if given is None and row.keys() <= set(ITEM_COLUMNS):
            return None
        if not isinstance(given, dict | None):
            raise BadRow("attributes must be a JSON object")
        return json.dumps({**(given or {}), **extra}, ensure_ascii=False)

    def _extra(self, name: str, value: object) -> object:
        return _number(value, name) if name in self.numbers else value


@dataclass(frozen=True)
class EventRows:
    """
    Turns rows into tuples of `EVENT_COLUMNS`; every event gets a dedupe key.

    If the file gives no key, it is derived from the row's values and the number of equal rows
    before it in the file. `kind` is the kind of rows without one; `kinds` are the known ones.
    """

    kinds: Collection[str]
    kind: str = "click"
    _equal: Counter[bytes] = field(default_factory=Counter)

    def __call__(self, row: Row) -> Tuple:
        """Return the tuple of a row, or raise BadRow."""
        text = _text(row, "text")
        event = (
            identifier(row, "user_id"),
            identifier(row, "item_id", needed=False),
            self._kind(row),
            text if text and text.strip() else None,
            _number(row.get("value"), "value"),
            moment(row.get("occurred_at"), "occurred_at"),
        )
        if event[1] is None and event[3] is None:
            raise BadRow("neither item_id nor text")
        return (*event, identifier(row, "dedupe_key", needed=False) or self._key(event))

    def _kind(self, row: Row) -> str:
        kind = _name(row, "kind") or self.kind
        if kind not in self.kinds:
            raise BadRow(f"unknown kind {kind!r}; the kinds are {', '.join(sorted(self.kinds))}")
        return kind

    def _key(self, event: Tuple) -> str:
        content = json.dumps([None if part is None else str(part) for part in event])
        digest = sha256(content.encode()).digest()[:16]
        place = self._equal[digest]
        self._equal[digest] += 1
        return f"load:{digest.hex()}:{place}" if place else f"load:{digest.hex()}"


@dataclass(frozen=True)
class VectorRows:
    """Turns rows into tuples of item_id and unit vector, float32 (dims,)."""

    dims: int

    def __call__(self, row: Row) -> Tuple:
        """Return the tuple of a row, or raise BadRow."""
        return identifier(row, "item_id"), self._unit(row.get("embedding"))

    def _unit(self, given: object) -> NDArray[np.float32]:
        numbers = parse_json(given) if isinstance(given, str) else given
        if not isinstance(numbers, list) or len(numbers) != self.dims:
            raise BadRow(f"embedding must be a list of {self.dims} numbers")
        try:
            vector = np.array(numbers, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRow("embedding holds something that is not a number") from error
        if vector.ndim != 1:
            raise BadRow(f"embedding must be a list of {self.dims} numbers")
        with np.errstate(over="ignore"):
            length = np.linalg.norm(vector)
        if not (np.isfinite(length) and length > 0):
            raise BadRow("embedding has no direction")
        return (vector / length).astype(np.float32)


def identifier(row: Row, name: str, *, needed: bool = True) -> str | None:
    """Return the id in this column; None if it is absent and not needed."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise BadRow(f"{name} must be text or a whole number")
    text = "" if value is None else str(value)
    if not text.strip():
        if needed:
            raise BadRow(f"no {name}")
        return None
    return _short(text, name, ID_BYTES)


def moment(value: object, name: str) -> datetime | None:
    """Return the time given as ISO 8601 or epoch seconds; without a zone it is UTC."""
    if value is None or value == "":
        return None
    try:
        return _moment(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        shown = str(value)[:40]
        raise BadRow(f"{name} is neither ISO 8601 nor epoch seconds: {shown!r}") from error


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        if not EPOCH.fullmatch(value.strip()):
            time = datetime.fromisoformat(value.strip())
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return datetime.fromtimestamp(value, UTC)


def _name(row: Row, name: str) -> str | None:
    text = _text(row, name)
    return _short(text, name, NAME_BYTES) if text and text.strip() else None


def _short(text: str, name: str, limit: int) -> str:
    if len(text) * 4 > limit and len(text.encode()) > limit:
        raise BadRow(f"{name} is longer than {limit:,} bytes")
    return text


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise BadRow(f"{name} must be text")


def _number(value: object, name: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        number = None
    if number is None or isinstance(value, bool) or not isfinite(number):
        raise BadRow(f"{name} is not a finite number: {str(value)[:40]!r}")
    return number


def _truth(value: object) -> bool | None:
    if value is None or value == "":
        return None
    truth = TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise BadRow(f"available is neither true nor false: {str(value)[:40]!r}")
    return truth


def _tags(value: object) -> list[str] | None:
    if value is None:
        return None
    parts = value.split("|") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise BadRow("tags must be a list of texts, or one text with | between the tags")
    return [part.strip() for part in parts if part.strip()]
