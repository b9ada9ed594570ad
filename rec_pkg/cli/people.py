"""Commands about users and items: the calls of an application, from a shell."""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rec_pkg.cli.options import (  # noqa: TC001  # typer reads it
    AsJson,
    At,
    Count,
    Domain,
    Filter,
    Item,
    Ranker,
    User,
    Yes,
)
from rec_pkg.cli.output import cell, console, print_json, print_table
from rec_pkg.cli.session import open_client
from rec_pkg.errors import BadInput
from rec_pkg.terms import NAMES, told
from rec_pkg.words import subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rec_pkg.queries import Share

TOLD: Final = {
    "share": "share",
    "term": "term",
    "kind": "kind",
    "what": "what",
    "occurred_at": "occurred at",
    "event": "event",
}

app = typer.Typer()


@app.command(
    rich_help_panel="Recommend",
    help=f"Recommend items to a user, best first.\n\n{told()} An unknown user gets trending items.",
)
def recommend(
    user: User,
    *,
    k: Count = 10,
    domain: Domain = None,
    filter: Filter = None,  # noqa: A002  # the name of the option
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Also list items that the user has seen.")
    ] = False,
    diversity: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="From 0 (by score alone) to 1 (as different as possible). Default: the ranker's.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=-(2**31),
            max=2**31 - 1,
            help="Seed for exploration; no effect while the ranker's exploration is 0.",
        ),
    ] = 0,
    ranker: Ranker = "default",
    as_json: AsJson = False,
) -> None:
    """Recommend items to a user, best first."""
    with open_client() as client:
        rows = client.recommend(
            user,
            k,
            domain=domain,
            filter=filter,
            exclude_seen=not include_seen,
            diversity=diversity,
            seed=seed,
            ranker=ranker,
        )
    if as_json:
        print_json(rows)
        return
    terms = [term for term in NAMES if any(getattr(row, term) for row in rows)]
    names = ("rank", "item_id", "title", "score", *terms, "path")
    _print_rows(rows, {name: {"rank": "#", "item_id": "item"}.get(name, name) for name in names})


@app.command(rich_help_panel="Recommend")
def explain(user: User, item: Item, *, ranker: Ranker = "default", as_json: AsJson = False) -> None:
    """
    Split the score of an item for a user into the shares of past events and other terms.

    The shares add up exactly to the score.
    """
    with open_client() as client:
        shares = client.explain(user, item, ranker=ranker)
    if as_json:
        print_json(shares)
        return
    print_table([_told(share) for share in shares], TOLD)
    console.print(f"score {sum(share.share for share in shares):.3f}")


@app.command(rich_help_panel="Recommend")
def similar(
    item: Item,
    *,
    k: Count = 10,
    domain: Domain = None,
    filter: Filter = None,  # noqa: A002  # the name of the option
    as_json: AsJson = False,
) -> None:
    """List the items most similar to an item, best first."""
    with open_client() as client:
        rows = client.similar_items(item, k, domain=domain, filter=filter)
    if as_json:
        print_json(rows)
        return
    headings = {"rank": "#", "item_id": "item", "title": "title", "similarity": "similarity"}
    _print_rows(rows, headings | {"path": "path"})


@app.command(rich_help_panel="Recommend")
def track(
    user: User,
    item: Annotated[
        str | None,
        typer.Argument(
            metavar="ITEM", help="Id of the item, if the event is about one.", show_default=False
        ),
    ] = None,
    *,
    kind: Annotated[
        str, typer.Option(help="Kind of the event, a row of rec.event_kinds.")
    ] = "click",
    text: Annotated[str | None, typer.Option(help="What the user searched for or wrote.")] = None,
    value: Annotated[
        float | None, typer.Option(help="Value of the event, such as a rating.")
    ] = None,
    at: At = None,
    dedupe_key: Annotated[
        str | None, typer.Option(help="Log an event with this key only once per user.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Log an event of a user and print its id.

    The event needs an item, a text, or both.

        pgrec track ada shop-en-001
        pgrec track ada --kind search --text "warm winter jacket"
    """
    with open_client() as client:
        event_id = client.track(
            user,
            item,
            kind=kind,
            text=text,
            value=value,
            occurred_at=at,
            dedupe_key=dedupe_key,
        )
    if as_json:
        print_json({"event_id": event_id})
    else:
        console.print(
            "not stored: the user is paused, or the log does not reach back that far"
            if event_id is None
            else event_id
        )


@app.command(rich_help_panel="Data")
def export(user: User) -> None:
    """Print everything stored about a user, as JSON."""
    with open_client() as client:
        kept = client.export(user)
    print_json(kept)


@app.command(rich_help_panel="Data")
def undo(
    user: User, event: Annotated[int, typer.Argument(metavar="EVENT", help="Id of the event.")]
) -> None:
    """Undo an event as if it had never happened, including its part in all counts."""
    with open_client() as client:
        if not client.undo(user, event):
            raise BadInput(f"{user} has no event {event}")
    console.print(f"Event {event} is undone.")


@app.command(rich_help_panel="Data")
def forget(
    user: User,
    *,
    yes: Yes = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Return only after a vacuum has cleared the deleted rows."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Erase a user: events, interests, texts, and their part in every count. This cannot be undone.

    The files of the database contain the deleted rows until a vacuum clears them. A worker does
    that by itself, and so do --wait and `pgrec vacuum`, for which rec_app lacks the rights.
    """
    if not yes:
        typer.confirm(f"Erase everything stored about {cell(user)}?", abort=True, err=True)
    with open_client() as client:
        erased = client.forget(user)
        if as_json:
            print_json({"events": erased})
        else:
            console.print(
                f"{erased:,} events of {cell(user)} are erased, with everything derived from them."
            )
        if wait:  # if the role may not, the error says so
            client.vacuum(patience_s=inf)


@app.command(rich_help_panel="Data")
def pause(user: User) -> None:
    """Stop storing the events of a user; stored data stays, and lists are still made from it."""
    with open_client() as client:
        paused = client.pause(user)
    console.print("Paused: new events of the user are not stored." if paused else "Already paused.")


@app.command(rich_help_panel="Data")
def resume(user: User) -> None:
    """Store the events of a user again."""
    with open_client() as client:
        resumed = client.resume(user)
    console.print("Events of the user are stored again." if resumed else "The user was not paused.")


def _told(share: Share) -> dict[str, Any]:
    what = None if share.event_id is None else subject(share)
    event = None if share.event_id is None else str(share.event_id)
    return asdict(share) | {"what": what, "event": event}


def _print_rows(rows: Sequence[Any], columns: dict[str, str]) -> None:
    if rows:
        print_table([asdict(row) for row in rows], columns)
    else:
        console.print("nothing")
