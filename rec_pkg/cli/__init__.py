"""The command `pgrec`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rec_pkg.cli import (
    calibrate,
    doctor,
    encoders,
    evaluate,
    load,
    operate,
    people,
    release,
    tune,
)
from rec_pkg.cli.output import cell, console, to_stderr
from rec_pkg.cli.session import read_settings, refusals
from rec_pkg.errors import RecError

if TYPE_CHECKING:
    from typer import Context


class Commands(TyperGroup):
    """Commands whose errors are one line on stderr and exit status 1."""

    def invoke(self, ctx: Context) -> Any:  # type: ignore[override]  # noqa: ANN401
        """Run the command, or say what went wrong."""
        try:
            return super().invoke(ctx)
        except RecError as error:
            to_stderr(f"pgrec: {cell(str(error))}")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:  # noqa: FBT001  # so typer calls it
    if value:
        from importlib.metadata import version

        typer.echo(f"pgrec {version('pgrec')}")
        raise typer.Exit


@app.callback()
def pgrec(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """
    Recommendations inside your own Postgres.

    The database is the one of PGREC_DATABASE_URL; if that is unset, the one of libpq's variables
    (PGHOST, PGDATABASE, PGSERVICE, ...); if these are unset, an embedded server that `pgrec up`
    starts. Exit status: 0 done, 1 not or not wholly done, 2 wrong usage, 130 interrupted.
    """
    del version


@app.command(rich_help_panel="Set up")
def demo(
    *,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="URL",
            help="Play in this database instead: it gets schema rec, the sample catalogue and two "
            "users.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """
    Start a server, load the sample catalogue, and follow a shopper click by click.

    The server is the embedded one, whatever PGREC_DATABASE_URL names.
    """
    from rec_pkg.demo.story import play

    with refusals():
        play(read_settings(), console, database_url)


@app.command(rich_help_panel="Run")
def worker(
    *,
    once: Annotated[bool, typer.Option("--once", help="Exit when nothing waits any more.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the Prometheus metrics, 0: none. [PGREC_METRICS_PORT]"
        ),
    ] = None,
) -> None:
    """
    Encode new texts and items and fold events into interests, until Ctrl-C or SIGTERM.

    Any number may run at the same time. Killing one loses nothing.
    """
    from pgrec_worker import run
    from rec_pkg.database import conninfo

    settings = read_settings()
    if metrics_port is not None:
        settings = settings.model_copy(update={"metrics_port": metrics_port})
    with refusals():
        run(settings, conninfo(settings), once=once)


for module in (operate, doctor, people, release, calibrate, tune, evaluate):
    app.add_typer(module.app)
app.add_typer(load.app, name="load", rich_help_panel="Data")
app.add_typer(encoders.app, name="encoder", rich_help_panel="Set up")
