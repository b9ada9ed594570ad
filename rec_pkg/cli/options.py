"""Arguments and options shared by several commands, and how their values are parsed."""

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
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Domain = Annotated[str | None, typer.Option(help="Only items of this domain.")]
Ranker = Annotated[str, typer.Option(help="Name of a ranker, a row of rec.rankers.")]
Count = Annotated[int, typer.Option("-k", "--count", min=0, help="Number of items.")]


def json_object(text: str) -> dict[str, Any]:
    """Parse an option value that is a JSON object."""
    try:
        value = parse_json(text)
    except BadRow as reason:
        raise typer.BadParameter(str(reason)) from reason
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object")
    return value


def time(text: str) -> datetime:
    """Parse an option value that is a time."""
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
        help="Time of the event: ISO 8601 (UTC if without a zone) or epoch seconds. Default: now.",
    ),
]
