"""Reads the rows of a CSV or JSON Lines file one at a time, including lines that are not rows."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE_BYTES: Final = 1 << 24
FIELD_CHARS: Final = 1 << 20
DEPTH: Final = 64

JSON_LINES: Final = (".jsonl", ".ndjson")
TABLES: Final = {".csv": ",", ".tsv": "\t"}

Row = dict[str, Any]


class BadRow(ValueError):
    """A row cannot be used; the message is the reason."""


@dataclass(frozen=True)
class Rejection:
    """A line of the file that was not loaded, and the reason."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


class Source:
    """
    A file of rows: CSV with a header, or JSON Lines; either may be a `.gz`.

    Iterating yields (number of the row's first line, row) or (that number, BadRow). The rows
    contain only text that Postgres can store: UTF-8 without NUL bytes. In a CSV every value is
    text; in JSON Lines it has its JSON type.

    Raises:
        BadInput: if the file does not exist, is empty or damaged, or has no usable header.
    """

    def __init__(self, path: Path, delimiter: str | None = None) -> None:
        suffixes = [suffix.lower() for suffix in path.suffixes]
        self.zipped = suffixes[-1:] == [".gz"]
        suffix = "".join(suffixes[-2:-1] if self.zipped else suffixes[-1:])
        if suffix not in TABLES and suffix not in JSON_LINES:
            names = ", ".join([*TABLES, *JSON_LINES])
            raise BadInput(f"{path}: the name ends in none of {names}, nor in these with .gz")
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise BadInput("a delimiter must be one character other than a quote or a line break")
        self.path = path
        self.columns: tuple[str, ...] | None = None
        self._delimiter = delimiter or TABLES.get(suffix, ",")
        self._is_json = suffix in JSON_LINES
        self._raw: IO[bytes] | None = None
        self.size = 0

    @contextmanager
    def open(self) -> Iterator[Iterator[tuple[int, Row | BadRow]]]:
        """Open the file, read its header if it has one, and yield the rows."""
        try:
            with self.path.open("rb") as raw:
                self._raw, self.size = raw, self.path.stat().st_size
                yield self._rows(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{self.path}: {error}") from error
        finally:
            self._raw = None

    def position(self) -> int:
        """Return how many of the `size` bytes of the file have been read."""
        return self._raw.tell() if self._raw is not None and self._raw.seekable() else 0

    def _rows(self, raw: IO[bytes]) -> Iterator[tuple[int, Row | BadRow]]:
        lines = _Lines(gzip.GzipFile(fileobj=raw) if self.zipped else raw)
        if self._is_json:
            rows = _json_rows(lines)
        else:
            table = csv.reader(lines, delimiter=self._delimiter, strict=True)
            csv.field_size_limit(FIELD_CHARS)
            self.columns = self._header(lines, table)
            rows = _csv_rows(lines, table, self.columns)
        return self._not_empty(rows)

    def _header(self, lines: _Lines, table: Iterator[list[str]]) -> tuple[str, ...]:
        try:
            columns = [name.strip() for name in next(table, [])]
        except csv.Error as error:
            raise BadInput(f"{self.path}:1: {_reason(error)}") from error
        if lines.flaw:
            raise BadInput(f"{self.path}:1: the header {lines.flaw}")
        if columns and not all(columns):
            raise BadInput(f"{self.path}:1: a column has no name")
        if twice := sorted({name for name in columns if columns.count(name) > 1}):
            raise BadInput(f"{self.path}:1: two columns are called {', '.join(twice)}")
        return tuple(columns)

    def _not_empty(
        self, rows: Iterator[tuple[int, Row | BadRow]]
    ) -> Iterator[tuple[int, Row | BadRow]]:
        first = next(rows, None)
        if first is None and not self.columns:
            raise BadInput(f"{self.path} is empty")
        return iter(()) if first is None else _chained(first, rows)


class _Lines:
    """The lines of a file as text; `flaw` describes a bad line until it is cleared."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.number = 0
        self.flaw = ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LINE_BYTES)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            self._skip_rest()
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in line:
            self.flaw = "holds a NUL byte"
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.flaw = self.flaw or "is not UTF-8"
            return line.decode(errors="replace")

    def _skip_rest(self) -> None:
        self.flaw = f"is longer than {LINE_BYTES >> 20} MB"
        while (rest := self._file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
            pass


def _chained(
    first: tuple[int, Row | BadRow], rest: Iterator[tuple[int, Row | BadRow]]
) -> Iterator[tuple[int, Row | BadRow]]:
    yield first
    yield from rest


def _csv_rows(
    lines: _Lines, table: Iterator[list[str]], columns: tuple[str, ...]
) -> Iterator[tuple[int, Row | BadRow]]:
    while True:
        lines.flaw, number = "", lines.number + 1
        try:
            values = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, BadRow(_reason(error))
            continue
        if lines.flaw:
            yield number, BadRow(f"the row {lines.flaw}")
        elif len(values) == len(columns):
            yield number, dict(zip(columns, values, strict=True))
        elif values:
            yield number, BadRow(f"{len(values)} fields, but the header has {len(columns)}")


def _reason(error: csv.Error) -> str:
    return str(error).partition(" - ")[0]


def _json_rows(lines: _Lines) -> Iterator[tuple[int, Row | BadRow]]:
    for line in lines:
        if lines.flaw:
            yield lines.number, BadRow(f"the line {lines.flaw}")
            lines.flaw = ""
        elif not line.isspace():
            yield lines.number, _json_row(line)


def _json_row(line: str) -> Row | BadRow:
    try:
        row = parse_json(line)
    except BadRow as reason:
        return reason
    return row if isinstance(row, dict) else BadRow("not a JSON object")


def parse_json(text: str) -> Any:  # noqa: ANN401  # a JSON value has any type
    """
    Return the value of a JSON text, if jsonb can store it.

    Raises:
        BadRow: if it is not JSON, contains NaN, infinity, NUL or a lone surrogate, or is too deep.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise BadRow(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise BadRow("JSON too deep") from error
    except BadRow:
        raise
    except ValueError as error:
        raise BadRow(f"not JSON: {error}") from error
    if "\\u" in text or text.count("[") + text.count("{") > DEPTH:
        _check(value, DEPTH)
    return value


def _refuse(constant: str) -> NoReturn:
    raise BadRow(f"{constant} is not a number")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise BadRow(f"{digits[:20]} is too large a number")
    return number


def _check(value: object, depth: int) -> None:
    if depth == 0:
        raise BadRow("JSON too deep")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, part in value.items():
            _check_text(key)
            _check(part, depth - 1)
    elif isinstance(value, list):
        for part in value:
            _check(part, depth - 1)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise BadRow("a NUL character in a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("half of a surrogate pair in a text") from error
