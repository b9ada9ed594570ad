"""`pgrec evaluate`: measures the quality of the lists."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.console import Console

from rec_pkg.cli.output import console, progress
from rec_pkg.cli.session import read_settings, refusals
from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from rec_pkg.evaluation.report import Report

TABLE_WIDTH: Final = 130

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="Contains items.csv, and events.csv or both valid.jsonl and test.jsonl.",
        exists=True,
        file_okay=False,
        readable=True,
        show_default=False,
    ),
]


app = typer.Typer()


@app.command(rich_help_panel="Improve")
def evaluate(
    folder: Folder,
    *,
    protocol: Annotated[
        Literal["time", "loo", "rows"] | None,
        typer.Option(
            help="time: every event of a known user in the last tenth; loo: the last event of each "
            "user; rows: the test rows. Default: time if there are events, else rows.",
            show_default=False,
        ),
    ] = None,
    core: Annotated[
        int,
        typer.Option(
            min=0,
            help="For time and loo: keep users and items with this many of the other; 0: all.",
        ),
    ] = 5,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="First calibrate the vectors on the catalogue and tune the ranker on the events "
            "before the test.",
        ),
    ] = False,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Lists may contain items that the user already had.")
    ] = False,
    frozen: Annotated[
        bool,
        typer.Option("--frozen", help="Keep popularity and transitions as they are at the split."),
    ] = False,
    oracle: Annotated[
        bool,
        typer.Option(
            "--oracle",
            help="Also measure a perfect order of the same candidates; takes longer.",
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Ask only this many questions, drawn at random. Default: all."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random sample.")] = 0,
    ranker: Annotated[
        str | None,
        typer.Option(
            help="Make the lists with this row of rec.rankers in your database. Default: that of "
            "a new database.",
            show_default=False,
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Write the figures as JSON."),
    ] = None,
    plot_file: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", dir_okay=False, help="Draw the figures into a PNG."),
    ] = None,
) -> None:
    """
    Measure the lists on a data set, beside simple baselines, without leaks.

    The worker and the functions of schema rec replay the log in a separate database on the
    configured server; your own data is not touched. Each list comes from rec.recommend as of the
    moment of its question and sees only events strictly before it. Baselines rank the whole
    catalogue. Columns are those of `pgrec load`; rows of a .jsonl have user_id, history and target.

    Vectors are kept in a database pgrec_evaluate_..., so that a second run encodes nothing; drop it
    when you no longer need it. Needs a role that may create databases, and the extra
    pgrec[evaluate].

        pgrec evaluate data/shop --limit 1000 --json shop.json --plot shop.png
    """
    evaluation, report_module = _modules()
    _check_writable(json_file, plot_file)
    options = evaluation.Options(
        protocol, core, keep_seen, frozen, limit, seed, tune, oracle, ranker
    )
    with refusals(), progress(lines=True) as on_progress:
        report = evaluation.evaluate(read_settings(), folder, options, on_progress)
    _print(report)
    if json_file:
        json_file.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    if plot_file:
        report_module.plot(report, plot_file)


def _check_writable(*files: Path | None) -> None:
    """Raise BadInput immediately, not after an hour, if a file cannot be written."""
    for file in filter(None, files):
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise BadInput(f"{file} cannot be written")


def _modules() -> tuple[Any, Any]:
    try:
        from rec_pkg import evaluation
        from rec_pkg.evaluation import report
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "scipy":
            raise
        raise BadInput("scipy is missing; run `pip install 'pgrec[evaluate]'`") from error
    return evaluation, report


def _print(report: Report) -> None:
    wide = Console(markup=False, highlight=False, emoji=False)
    wide.width = max(wide.width, TABLE_WIDTH)
    wide.print(report.as_table())
    facts = report.facts
    console.print(
        f"{facts['users']:,} users, {facts['items']:,} items, {facts['log_events']:,} events in the"
        f" log, {facts['seconds']:,.0f} s",
        soft_wrap=True,
    )
