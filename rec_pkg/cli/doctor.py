"""`pgrec doctor`: reports problems and how to solve them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import typer

from rec_pkg.cli.options import AsJson  # noqa: TC001  # typer reads it
from rec_pkg.cli.output import cell, console, print_json
from rec_pkg.cli.session import read_settings, refusals

if TYPE_CHECKING:
    from rec_pkg.operations.doctor import Finding

STYLES: Final = {"green": "green", "yellow": "yellow", "red": "bold red"}


app = typer.Typer()


@app.command(rich_help_panel="Run")
def doctor(*, as_json: AsJson = False) -> None:
    """
    Check the deployment and say how to fix what is wrong.

    Green is fine, yellow deserves attention, red does not work as promised. The exit status is 1 if
    anything is red. Nothing is changed. A role with few rights sees less, and the output says so.
    Run it with the worker's PGREC_DATABASE_URL, because it also checks the connection.
    """
    from rec_pkg import database
    from rec_pkg.operations.doctor import examine

    with refusals(), database.connect(read_settings()) as connection:
        findings = examine(connection)
    if as_json:
        print_json(findings)
    else:
        _print(findings)
    if any(finding.level == "red" for finding in findings):
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        console.print(f"{finding.level:6}", style=STYLES[finding.level], end="  ")
        console.print(f"{finding.what:{width}}  {cell(finding.found)}", soft_wrap=True)
        if finding.advice:
            console.print(f"{'':{width + 8}}  {cell(finding.advice)}", soft_wrap=True)
    levels = Counter[str](finding.level for finding in findings)
    console.print(", ".join(f"{levels[level]} {level}" for level in STYLES))
