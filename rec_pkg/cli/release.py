"""`pgrec release`: publishes counts with noise that OpenDP draws."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from rec_pkg.cli.options import AsJson, time
from rec_pkg.cli.output import print_json, print_table
from rec_pkg.cli.session import open_connection

app = typer.Typer()


@app.command(rich_help_panel="Data")
def release(
    counts: Annotated[
        list[str],
        typer.Argument(
            metavar="COUNTS...", help="Count users by kind, domain or item; may name several."
        ),
    ],
    *,
    since: Annotated[
        datetime, typer.Option(parser=time, metavar="TIME", help="Start of the period (UTC).")
    ],
    until: Annotated[
        datetime | None,
        typer.Option(
            parser=time, metavar="TIME", help="End of the period (UTC). Default: the last midnight."
        ),
    ] = None,
    epsilon: Annotated[
        float,
        typer.Option(
            min=1e-6, max=100, help="Budget that each of COUNTS costs; less means more noise."
        ),
    ] = 0.1,
    keys_per_user: Annotated[
        int, typer.Option(min=1, help="Most kinds, domains or items under which one user counts.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """
    Release the number of users with events, with noise that hides each single user.

    Asking the same question again returns the answer recorded in rec.releases and costs nothing.
    All releases together may cost settings.privacy_budget; after that, new questions are refused.
    Needs OpenDP: `pip install 'pgrec[privacy]'`.

        pgrec release kind domain --since 2026-10-01 --until 2026-11-01
    """
    from rec_pkg.operations.releasing import Question, release

    end = until or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    questions = [Question(by, since, end, epsilon, keys_per_user) for by in counts]
    with open_connection() as connection:
        answers = {question.by: release(connection, question) for question in questions}
    if as_json:
        print_json(answers)
        return
    for by, answer in answers.items():
        rows = [{"key": key, "users": users} for key, users in answer.items()]
        print_table(rows, {"key": by, "users": "users, about"})
