"""`pgrec load`: loads files of items, events and vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rec_pkg.cli.options import AsJson  # noqa: TC001  # typer reads it
from rec_pkg.cli.output import cell, console, errors, print_json, progress
from rec_pkg.cli.session import open_connection

if TYPE_CHECKING:
    from rec_pkg.loading import Report
    from rec_pkg.loading.files import Rejection

SHOWN: Final = 100
"""How many rejected rows are shown; the rest are only counted."""

app = typer.Typer(
    no_args_is_help=True,
    help="Load items, events or vectors from a CSV or JSON Lines file; loading a file"
    " again is harmless.",
)

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A .csv or .tsv with a header, a .jsonl or an .ndjson, optionally with .gz.",
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
    ),
]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="OURS=THEIRS",
        help="Read column OURS from the file's column THEIRS; may be repeated.",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Character between the fields of a CSV. Default: comma, or tab in a .tsv."),
]


@app.command()
def items(
    path: File,
    *,
    maps: Maps = None,
    domain: Annotated[str | None, typer.Option(help="Domain of rows that do not name one.")] = None,
    number: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="An attribute that is a number; in a CSV the others stay text. May be repeated.",
        ),
    ] = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
) -> None:
    """
    Insert items and update those that differ.

    Columns: item_id, domain, title, body, tags (a JSON list, or text with | between them),
    attributes (a JSON object), available, created_at. Every other column becomes an attribute;
    brand, category and price are useful ones. Values whose column the file lacks stay unchanged in
    the database. If several rows have the same item_id, the last one counts. Items that the file
    lacks stay.

    Bad rows are reported as FILE:LINE: REASON and make the exit status 1; all other rows are
    loaded. Only items whose content changed are encoded again.

        pgrec load items products.csv --map item_id=sku --map title=name --domain shop
    """
    from rec_pkg.loading import load_items

    mapping = _mapping(maps)
    with open_connection() as connection, progress() as on_progress:
        rejections = _Rejections()
        report = load_items(
            connection,
            path,
            mapping,
            domain=domain,
            numbers=number or (),
            delimiter=delimiter,
            on_reject=rejections,
            on_progress=on_progress,
        )
    _finish("items", report, as_json=as_json)


@app.command()
def events(
    path: File,
    *,
    maps: Maps = None,
    kind: Annotated[str, typer.Option(help="Kind of rows that do not name one.")] = "click",
    delimiter: Delimiter = None,
    as_json: AsJson = False,
) -> None:
    """
    Append events to the log, each only once.

    Columns: user_id, item_id or text or both, kind, value, occurred_at (ISO 8601, UTC if it names
    no zone, or epoch seconds; now if empty), dedupe_key. Other columns are ignored. An event is
    skipped if its user already has one with the same dedupe_key. If the file has no keys, they are
    derived from the rows' values, so give equal clicks a time or a key.

    Bad rows are reported as FILE:LINE: REASON and make the exit status 1; all other rows are
    loaded. Events on items that do not exist yet wait for them.

        pgrec load events ratings.csv --kind rating --map value=stars --map occurred_at=ts
    """
    from rec_pkg.loading import load_events

    mapping = _mapping(maps, of_events=True)
    with open_connection() as connection, progress() as on_progress:
        rejections = _Rejections()
        report = load_events(
            connection,
            path,
            mapping,
            kind=kind,
            delimiter=delimiter,
            on_reject=rejections,
            on_progress=on_progress,
        )
    _finish("events", report, as_json=as_json)


@app.command()
def vectors(
    path: File,
    *,
    fingerprint: Annotated[
        str,
        typer.Option(
            help="Fingerprint of the encoder that made the vectors, or its first 12 digits.",
            show_default=False,
        ),
    ],
    maps: Maps = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1024,
            help="Extra processes that build the index. Default: the server's setting.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory for building the index, such as 4GB. Default: the server's setting."
        ),
    ] = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
) -> None:
    """
    Store vectors of items that the same encoder made elsewhere.

    Columns: item_id, embedding (a JSON list of numbers). The items must exist already. If no
    vectors are stored yet, the index is built once after the last row, by several processes, and
    lists compare all items meanwhile. After an interruption, the same command continues.

    `pgrec encoder check` shows the fingerprint on the machine where the vectors are made.

        pgrec load vectors vectors.jsonl.gz --fingerprint 4e0c08e09822 --workers 4 --memory 4GB
    """
    from rec_pkg.loading.vectors import load_vectors

    mapping = _mapping(maps)
    with open_connection() as connection, progress(lines=True) as on_progress:
        report = load_vectors(
            connection,
            path,
            fingerprint,
            mapping,
            workers=workers,
            memory=memory,
            delimiter=delimiter,
            on_reject=_Rejections(),
            on_progress=on_progress,
        )
    if as_json:
        print_json(asdict(report))
    else:
        counted = {
            name: count for name, count in asdict(report).items() if name != "rows" and count
        }
        said = ", ".join(f"{count:,} {name}" for name, count in counted.items())
        console.print(f"vectors: {said or 'none'}", soft_wrap=True)
    if report.rejected or report.unknown:
        raise typer.Exit(1)


def _mapping(maps: list[str] | None, *, of_events: bool = False) -> dict[str, str]:
    from rec_pkg.loading.store import EVENT_COLUMNS

    mapping: dict[str, str] = {}
    for pair in maps or ():
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (ours and equals and theirs):
            raise typer.BadParameter(f"{pair!r} is not of the form OURS=THEIRS", param_hint="--map")
        if ours in mapping:
            raise typer.BadParameter(f"{ours} is mapped twice", param_hint="--map")
        if of_events and ours not in EVENT_COLUMNS:
            known = ", ".join(EVENT_COLUMNS)
            raise typer.BadParameter(f"no column {ours}, only {known}", param_hint="--map")
        mapping[ours] = theirs
    return mapping


class _Rejections:
    """Shows the first rejected rows on stderr and says when it stops showing them."""

    def __init__(self) -> None:
        self._seen = 0

    def __call__(self, rejection: Rejection) -> None:
        self._seen += 1
        if self._seen <= SHOWN:
            errors.print(cell(str(rejection)), soft_wrap=True)
        if self._seen == SHOWN:
            errors.print(f"... further bad rows are only counted ({SHOWN} shown)")


def _finish(what: str, report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
    else:
        console.print(_summary(what, report), soft_wrap=True)
    if report.rejected:
        raise typer.Exit(1)


def _summary(what: str, report: Report) -> str:
    counts = {
        "inserted": report.inserted,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "repeated in the file": report.repeated,
        "bad rows": report.rejected,
    }
    parts = [f"{count:,} {name}" for name, count in counts.items() if count or name == "inserted"]
    ignored = f"; ignored columns: {', '.join(report.ignored)}" if report.ignored else ""
    return f"{what}: {', '.join(parts)}{cell(ignored)}"
