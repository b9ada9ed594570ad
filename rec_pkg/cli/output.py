"""The output of commands: tables and lines for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from rec_pkg.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rec_pkg.progress import OnProgress

console: Final = Console(markup=False, highlight=False, emoji=False)
errors: Final = Console(markup=False, highlight=False, emoji=False, stderr=True)

CONTROLS: Final = dict.fromkeys([*range(32), *range(127, 160)], " ")
"""
Replaces characters that could control the terminal, in titles and texts that anyone may write.
"""

ESCAPED: Final = {code: f"\\u{code:04x}" for code in range(127, 160)}
"""The same, for the control characters that JSON leaves in its strings."""


def to_stderr(message: str) -> None:
    """Print a message on stderr."""
    typer.echo(message, err=True)


def print_json(value: object) -> None:
    """Print a value as JSON and nothing else; dataclasses and times are allowed."""
    text = json.dumps(_plain(value), ensure_ascii=False, indent=2)
    sys.stdout.write(text.translate(ESCAPED) + "\n")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """
    Print rows as a table.

    Args:
        rows: values by name; numbers are aligned right.
        columns: name of a value -> heading, in the order of the table.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, heading in columns.items():
        is_number = any(isinstance(row[name], int | float) for row in rows)
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row[name]) for name in columns))
    console.print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one pair per line, without wrapping."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        console.print(f"{name:{width}}  {cell(value)}", soft_wrap=True)


@contextmanager
def progress(*, lines: bool = False) -> Iterator[OnProgress]:
    """Yield a progress bar on a terminal; elsewhere, if `lines`, print a line per tenth."""
    if not errors.is_terminal:
        yield _Lines() if lines else silent
        return
    from rich.progress import Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bars:
        yield _advance(bars)


def _advance(bars: Any) -> OnProgress:  # noqa: ANN401  # rich, imported late
    tasks: dict[str, Any] = {}

    def advance(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what)
        bars.update(tasks[what], completed=done, total=total or None)

    return advance


class _Lines:
    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 10
        if self._said.get(what) != tenth:
            self._said[what] = tenth
            errors.print(f"{what}: {done:,} of {total:,}", soft_wrap=True)


def cell(value: object) -> str:
    """Return a value in readable form, without terminal control characters."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return str(value).translate(CONTROLS)


def _plain(value: Any) -> Any:  # noqa: ANN401  # JSON values have no common type
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.isoformat() if isinstance(value, datetime) else value
