"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from rec_pkg.loading.files import BadRow, parse_json
from rec_pkg.loading.rows import moment

User = Annotated[str, typer.Argument(metavar="USER", help="Id of the user.")]
Item = Annotated[str, typer.Argument(metavar="ITEM", help="Id of the item.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Domain = Annotated[str | None, typer.Option(help="Only items of this domain.")]
Ranker = Annotated[str, typer.Option(help="A row of rec.rankers.")]
Count = Annotated[int, typer.Option("-k", "--count", min=0, help="How many items.")]


def json_object(text: str) -> dict[str, Any]:
    """Read the value of an option that is a JSON object."""
    try:
        value = parse_json(text)
    except BadRow as reason:
        raise typer.BadParameter(str(reason)) from reason
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object")
    return value


def time(text: str) -> datetime:
    """Read the value of an option that is a time."""
    try:
        value = moment(text, "the time")
    except BadRow as reason:
        raise typer.BadParameter(str(reason)) from reason
    if value is None:
        raise typer.BadParameter("no time")
    return value


Filter = Annotated[
    dict[str, Any] | None,
    typer.Option(
        parser=json_object,
        metavar="JSON",
        help='Only items whose attributes contain this, such as \'{"brand": "Nord"}\'.',
    ),
]
At = Annotated[
    datetime | None,
    typer.Option(
        parser=time,
        metavar="TIME",
        help="When it happened: ISO 8601 (UTC if it names no zone) or epoch seconds. Default: now.",
    ),
]
