"""`pgrec release`: counts for publication, with noise that OpenDP draws."""

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
        list[str], typer.Argument(metavar="COUNTS...", help="By what: kind, domain, item.")
    ],
    *,
    since: Annotated[
        datetime, typer.Option(parser=time, metavar="TIME", help="From when on, UTC.")
    ],
    until: Annotated[
        datetime | None,
        typer.Option(
            parser=time, metavar="TIME", help="Up to when; default: the last midnight, UTC."
        ),
    ] = None,
    epsilon: Annotated[
        float, typer.Option(min=1e-6, max=100, help="What each of COUNTS costs of the budget.")
    ] = 0.1,
    keys_per_user: Annotated[
        int, typer.Option(min=1, help="Under how many kinds, domains or items a user counts.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """
    Release how many users had events, with noise that hides whether any one user is among them.

    The same question is answered from rec.releases and costs nothing again. All releases together
    may cost settings.privacy_budget; then no more are answered. It needs OpenDP:
    `pip install 'pgrec[privacy]'`.

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
