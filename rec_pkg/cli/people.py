"""Commands about users and items: what the application does, from a shell."""

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
from rec_pkg.terms import NAMES
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


@app.command(rich_help_panel="Recommend")
def recommend(
    user: User,
    *,
    k: Count = 10,
    domain: Domain = None,
    filter: Filter = None,  # noqa: A002  # the name of the option
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Do not leave out what the user has seen.")
    ] = False,
    diversity: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="0: by score alone; 1: as different as can be."),
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
    """
    Recommend items to a user, best first.

    The score adds up, each times its weight in the ranker: content (closeness to the user's
    interests), latest (closeness to the last events), closest (closeness to the closest of them),
    transition (what users went on to from the last items), together (what users had shortly before
    or after them), trend (popularity that decays), newness (no event speaks for the item yet) and
    repeat (the user has seen it); it subtracts aversion (closeness to what the user disliked). An
    unknown user gets what is trending.
    """
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
    Split the score of an item for a user into the share of each past event.

    The shares add up to the score exactly.
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
    """List the items most like an item, best first."""
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
            metavar="ITEM", help="Id of the item, if it is about one.", show_default=False
        ),
    ] = None,
    *,
    kind: Annotated[str, typer.Option(help="A row of rec.event_kinds.")] = "click",
    text: Annotated[str | None, typer.Option(help="What the user searched or wrote.")] = None,
    value: Annotated[float | None, typer.Option(help="Of a rating, say.")] = None,
    at: At = None,
    dedupe_key: Annotated[
        str | None, typer.Option(help="With the same key an event is logged only once.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Log an event of a user and print its id.

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
            "not stored: the user is paused, or the log does not reach back so far"
            if event_id is None
            else event_id
        )


@app.command(rich_help_panel="Data")
def export(user: User) -> None:
    """Print all that is kept of a user, as JSON."""
    with open_client() as client:
        kept = client.export(user)
    print_json(kept)


@app.command(rich_help_panel="Data")
def undo(
    user: User, event: Annotated[int, typer.Argument(metavar="EVENT", help="Id of the event.")]
) -> None:
    """Take an event back as if it had never been, counts included."""
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
        bool, typer.Option("--wait", help="End when a vacuum has cleared the deleted rows, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Erase a user: events, interests, texts, and the part in every count. There is no way back.

    Deleted rows can be read from the files of the database until a vacuum has cleared them; a
    worker does that by itself, and so do --wait and `pgrec vacuum`, which rec_app may not.
    """
    if not yes:
        typer.confirm(f"Erase all that is kept of {cell(user)}?", abort=True, err=True)
    with open_client() as client:
        erased = client.forget(user)
        if as_json:
            print_json({"events": erased})
        else:
            console.print(
                f"{erased:,} events of {cell(user)} are erased, and all that came of them."
            )
        if wait:  # which a role may not be allowed to, and then it says so
            client.vacuum(patience_s=inf)


@app.command(rich_help_panel="Data")
def pause(user: User) -> None:
    """Keep the events of a user out from now on; what is stored stays, and so do the lists."""
    with open_client() as client:
        paused = client.pause(user)
    console.print("Paused: no event of the user is stored." if paused else "Already paused.")


@app.command(rich_help_panel="Data")
def resume(user: User) -> None:
    """Let the events of a user in again."""
    with open_client() as client:
        resumed = client.resume(user)
    console.print("Events of the user are stored again." if resumed else "There was no pause.")


def _told(share: Share) -> dict[str, Any]:
    what = None if share.event_id is None else subject(share)
    event = None if share.event_id is None else str(share.event_id)
    return asdict(share) | {"what": what, "event": event}


def _print_rows(rows: Sequence[Any], columns: dict[str, str]) -> None:
    if rows:
        print_table([asdict(row) for row in rows], columns)
    else:
        console.print("nothing")
