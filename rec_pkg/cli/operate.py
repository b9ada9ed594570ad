"""Commands for operators: server, schema, queue."""

from __future__ import annotations

import os
import shutil
from math import inf
from typing import Annotated, Final

import typer

from rec_pkg.cli.options import AsJson, Yes  # noqa: TC001  # typer reads it
from rec_pkg.cli.output import console, print_facts, print_json, to_stderr
from rec_pkg.cli.session import open_client, open_connection, open_engine, read_settings
from rec_pkg.errors import BadInput, EmbeddedServerMissing

app = typer.Typer()

PSQL: Final = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
"""psql handles all other options."""


@app.command(rich_help_panel="Set up")
def up() -> None:
    """
    Prepare the database: start the embedded server if no other is configured, and migrate.

    If PGREC_DATABASE_URL or libpq's variables name a database, no server is started and that
    database is migrated. Existing data is kept; running it again is harmless.
    """
    from rec_pkg.database import embedded_server

    _migrate("head", create=True)
    server = embedded_server(read_settings())
    if server is None:
        console.print("The database is ready.")
        return
    console.print(f"The embedded server is up: {server.url}", soft_wrap=True)
    console.print("Next: pgrec load items FILE, pgrec worker, pgrec psql; pgrec down stops it.")


@app.command(rich_help_panel="Set up")
def down() -> None:
    """Stop the embedded server for everyone who uses it; its data is kept."""
    from rec_pkg.database import embedded_server

    server = embedded_server(read_settings())
    if server is None:
        raise BadInput("the database in use is not the embedded one, so it is not ours to stop")
    was_up = server.running
    server.stop()
    console.print("The embedded server is down." if was_up else "The embedded server was not up.")


@app.command(rich_help_panel="Run", context_settings=PSQL)
def psql(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGS]...", help="Arguments for psql, such as -c 'select ...'."),
    ] = None,
) -> None:
    """
    Open psql on the database: `select * from rec.recommend('ada')`.

    The password is passed through the environment, so that the process list does not show it.
    """
    from rec_pkg.database import conninfo, without_secrets

    address, secrets = without_secrets(conninfo(read_settings()))
    program = _psql_path()
    os.execve(  # noqa: S606  # no shell
        program, [program, f"--dbname={address}", *(arguments or ())], os.environ | secrets
    )


def _psql_path() -> str:
    from rec_pkg.database import embedded_server
    from rec_pkg.database.embedded import EmbeddedServer

    settings = read_settings()
    found = shutil.which("psql")
    if embedded_server(settings) is None and found:
        return found
    try:
        own = EmbeddedServer(settings.data_dir, settings.pg_bin).psql_path
    except EmbeddedServerMissing:
        own = None
    if own is not None and own.exists():
        return str(own)
    if found:
        return found
    raise BadInput("there is no psql on this machine; set PGREC_PG_BIN to a folder that has one")


@app.command(rich_help_panel="Set up")
def migrate(
    *,
    down: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Go back to this revision; `base` drops everything, including all events.",
        ),
    ] = None,
    yes: Yes = False,
) -> None:
    """
    Bring schemas `rec` and `rec_internal` of the database to this version of pgrec.

    One transaction upgrades the tables by revisions and creates every function and view again; the
    data is kept. The roles rec_owner, rec_worker, rec_app and rec_analyst are created first, or you
    are told which SQL an administrator has to run.
    """
    if down is None:
        _migrate("head")
        console.print("Schema rec is at this version.")
        return
    if not yes:
        typer.confirm(f"Go back to {down} and lose everything added since?", abort=True, err=True)
    _migrate(down, back=True)
    console.print(f"Schema rec is at {down}.")


def _migrate(revision: str, *, create: bool = False, back: bool = False) -> None:
    from alembic.util import CommandError

    from rec_pkg import schema
    from rec_pkg.encoder.records import load_record

    dims = load_record(read_settings().encoder).dims
    with open_engine(create=create) as engine:
        try:
            if back:
                schema.downgrade(engine, revision)
            else:
                schema.migrate(engine, dims=dims, revision=revision)
                _advise(schema.role_advice(engine))
        except CommandError as error:
            raise BadInput(str(error)) from error


def _advise(statements: str | None) -> None:
    if statements:
        to_stderr(
            "The roles of pgrec are incomplete, and this role may not complete them. Only you\n"
            "have rights until an administrator runs this and you run `pgrec migrate` again:\n\n"
            f"{statements}\n"
        )


@app.command(rich_help_panel="Run")
def retry(*, as_json: AsJson = False) -> None:
    """Retry parked events, and items that could not be encoded."""
    from rec_pkg.operations import store

    with open_connection() as connection:
        events, items = store.retry(connection)
    if as_json:
        print_json({"events": events, "items": items})
    else:
        console.print(f"{events:,} events and {items:,} items are back in the queue.")


@app.command(rich_help_panel="Run")
def retain(*, as_json: AsJson = False) -> None:
    """
    Delete what rec.settings lets expire: raw texts (keep_text) and old events (events_kept).

    A worker does this once a day. Running it again is harmless.
    """
    with open_client() as client:
        done = list(iter(client.retain, None))
    if as_json:
        print_json({"dropped": done})
    else:
        console.print("\n".join(done) or "Nothing has expired.")


@app.command(rich_help_panel="Run")
def vacuum(
    *,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Rewrite the tables, which locks them, so that no old byte stays in their files.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for transactions that may still read the rows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Clear the rows that erasures deleted from tables, indexes and statistics.

    A worker does this by itself; rec.erasure_status shows the progress. If nothing was erased,
    nothing happens. The exit status is 1 if anything is left.
    """
    with open_client() as client:
        left = client.vacuum(full=full, patience_s=inf if wait else 0)
    if as_json:
        print_json(left._asdict())
    else:
        console.print(f"{left.waiting:,} erasures remain, {left.held:,} held by transactions.")
    if left.waiting:
        raise typer.Exit(1)


@app.command(rich_help_panel="Run")
def status(*, as_json: AsJson = False) -> None:
    """
    Show the state of the recommender: counts, the queue, failures, the encoder.

    `select * from rec.parked` shows why events failed.
    """
    with open_client() as client:
        figures = client.status()
    if as_json:
        print_json(figures)
        return
    print_facts(
        {
            "items": figures.items,
            "  to encode": figures.items_to_encode,
            "  failed": figures.items_failed,
            "events": figures.events,
            "  pending": figures.pending,
            "  parked": figures.parked,
            "  oldest waits, s": figures.lag_seconds,
            "users": figures.users,
            "texts": figures.texts,
            "deltas to merge": figures.deltas,
            "workers": figures.workers,
            "encoder": figures.encoder or "none yet; the first worker registers its own",
            "  fingerprint": figures.fingerprint,
        }
    )
    if figures.parked or figures.items_failed:
        to_stderr("Some failed: rec.parked and rec.items say why; pgrec retry tries again.")
