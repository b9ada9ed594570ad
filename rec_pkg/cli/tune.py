"""`pgrec tune`: fits the ranker to the deployment's log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rec_pkg.cli.options import AsJson, Ranker  # noqa: TC001  # typer reads it
from rec_pkg.cli.output import console, print_json, print_table, progress
from rec_pkg.cli.session import open_connection
from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from rec_pkg.tuning import Judgement, Store

SHOWN = {"ndcg@10": "nDCG@10", "hr@10": "hit rate@10", "mrr": "MRR@20"}


app = typer.Typer()


@app.command(rich_help_panel="Improve")
def tune(
    *,
    keep_seen: Annotated[
        bool,
        typer.Option(
            "--keep-seen", help="Set this if your lists may contain items that the user has seen."
        ),
    ] = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Learn from choices since this time (UTC). Default: the middle of the log."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change without changing anything.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Restore the settings from before the last tuning.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random samples.")] = 0,
    ranker: Ranker = "default",
    as_json: AsJson = False,
) -> None:
    """
    Fit the ranker to your own log: the weights of its terms, their decay, and their half-lives.

    Replays the latest events of many users; each event sees only what was known strictly before it.
    Weights are fitted on some users and judged on others. They are written to rec.rankers only if
    they rank the others better by more than chance, and `--undo` restores the previous ones. Except
    in a dry run, the result is recorded in rec.tunings either way.

    Reads at most the last 1,000,000 events and 5,000 examples, which takes some minutes. Nothing is
    written before the end, so interrupting it is safe. Run it once there are some thousand events,
    and again when users' habits change.
    """
    from pgvector.psycopg import register_vector

    from rec_pkg import tuning

    if undo and dry_run:
        raise typer.BadParameter("--undo changes the settings", param_hint="--dry-run")
    options = tuning.Options(
        keep_seen=keep_seen, since=since and since.replace(tzinfo=UTC), seed=seed, ranker=ranker
    )
    with open_connection() as connection, progress(lines=True) as on_progress:
        register_vector(connection)
        store = tuning.Store(connection)
        if undo:
            _say(_undone(store, ranker), as_json=as_json)
            return
        found = tuning.fit(tuning.prepare(store, options), options, on_progress)
        adopted = found.better and not dry_run
        if not dry_run:
            store.record(ranker, found.after, found.figures, adopt=adopted)
    if as_json:
        settings = {"before": dict(found.before), "after": dict(found.after)}
        print_json({"adopted": adopted, "settings": settings, "figures": dict(found.figures)})
        return
    _print(found)
    console.print(_verdict(found, dry_run=dry_run), soft_wrap=True)


def _undone(store: Store, ranker: str) -> dict[str, Any]:
    undone = store.undo(ranker)
    if undone is None:
        raise BadInput("there is no tuning to undo")
    return {"undone": undone}


def _say(undone: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(undone)
    else:
        console.print(f"The settings are those from before tuning {undone['undone']}.")


def _print(found: Judgement) -> None:
    changed = [
        {"setting": name, "before": found.before[name], "after": value}
        for name, value in found.after.items()
        if value != found.before[name]
    ]
    print_table(changed, {"setting": "setting", "before": "before", "after": "after"})
    parts = ("before", "after", "gain")
    figures = [
        {"metric": heading} | {part: _interval(found.figures[part][metric]) for part in parts}
        for metric, heading in SHOWN.items()
    ]
    title = f"{found.figures['users']:,} users"
    print_table(figures, {"metric": title, "before": "before", "after": "after", "gain": "gain"})


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['mean']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"


def _verdict(found: Judgement, *, dry_run: bool) -> str:
    if not found.better:
        return "No gain beyond chance on held-out users; the settings are unchanged."
    if dry_run:
        return "A real gain on held-out users; without --dry-run the settings would change."
    return "A real gain on held-out users; the settings were changed. --undo restores the old ones."
