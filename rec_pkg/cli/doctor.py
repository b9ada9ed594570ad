"""`pgrec doctor`: what is wrong, and what to do about it."""

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
    Look at everything that has to be right, and say what to do about what is not.

    Green is well, yellow is worth a look, red does not work as promised. Exit status 1 if anything
    is red. Nothing is changed; a role with few rights sees less and is told so. Run it with the
    PGREC_DATABASE_URL of the worker: what lies between is looked at, too.
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
