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
    """Commands that report an error in one line on stderr and exit with status 1."""

    def invoke(self, ctx: Context) -> Any:  # type: ignore[override]  # noqa: ANN401
        """Run the command, or print what went wrong."""
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


def _version(value: bool) -> None:  # noqa: FBT001  # the signature that typer calls
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

    The database is the one named by PGREC_DATABASE_URL; if that is unset, by libpq's variables
    (PGHOST, PGDATABASE, PGSERVICE, ...); if these are unset too, an embedded server that `pgrec up`
    starts. Exit status: 0 done, 1 not or only partly done, 2 wrong usage, 130 interrupted.
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
    Load the sample catalogue, start a worker, and follow two new users click by click.

    It plays on the embedded server, whatever PGREC_DATABASE_URL names. The catalogue and the two
    users, demo-lin and demo-kate, stay there, and the server keeps running; `pgrec down` stops it.
    """
    from rec_pkg.demo.story import play

    with refusals():
        play(read_settings(), console, database_url)


@app.command(rich_help_panel="Run")
def worker(
    *,
    once: Annotated[bool, typer.Option("--once", help="Exit when the queue is empty.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the Prometheus metrics, 0: none. Default: PGREC_METRICS_PORT, else 9478.",
        ),
    ] = None,
) -> None:
    """
    Encode new texts and items and fold events into interests, until Ctrl-C or SIGTERM.

    Any number of workers may run at the same time. Killing one loses nothing.
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
