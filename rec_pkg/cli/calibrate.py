"""`pgrec calibrate`: the catalogue's own calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rec_pkg.cli.options import AsJson  # noqa: TC001  # typer reads it
from rec_pkg.cli.output import console, print_json, progress
from rec_pkg.cli.session import open_connection

if TYPE_CHECKING:
    from collections.abc import Callable


app = typer.Typer()


@app.command(rich_help_panel="Improve")
def calibrate(
    *,
    ridge: Annotated[
        float | None,
        typer.Option(
            help="Softness of the whitening, in units of the mean eigenvalue; above 0. Default: "
            "what served another catalogue best."
        ),
    ] = None,
    off: Annotated[
        bool, typer.Option("--off", help="Take the calibration back: the encoder's own vectors.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Fit the vectors to your catalogue: what all its items share counts less, what differs more.

    A linear map (mean removal and soft whitening) is fitted on the vectors of the items and applied
    to all vectors, and interests are made anew from the log. Nothing is encoded again, and lists go
    on meanwhile; workers wait, then go on in the new space. Worth doing once the catalogue is
    there, and again when it has changed much.

    It is one transaction: interrupted, it leaves everything as it was.
    """
    from rec_pkg.operations import calibrating

    with open_connection() as connection, progress(lines=True) as on_progress:
        counts = _Counts(on_progress)
        if off:
            fingerprint = calibrating.uncalibrate(connection, counts)
        else:
            fingerprint = calibrating.calibrate(connection, ridge, counts)
    if as_json:
        print_json(counts.moved | {"fingerprint": fingerprint})
    else:
        console.print(_summary(counts.moved, fingerprint), soft_wrap=True)


class _Counts:
    """Hands progress on and keeps how many of what were done."""

    def __init__(self, on_progress: Callable[[str, int, int], None]) -> None:
        self._on_progress = on_progress
        self.moved: dict[str, int] = {"items": 0, "texts": 0, "users": 0}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what in self.moved:
            self.moved[what] = done
        self._on_progress(what, done, total)


def _summary(moved: dict[str, int], fingerprint: str) -> str:
    if not any(moved.values()):
        return "The vectors are not calibrated; nothing was changed."
    counts = (
        "vectors of {items:,} items and {texts:,} texts moved, interests of {users:,} users made"
    )
    return f"{counts.format(**moved)} anew; fingerprint {fingerprint[:12]}"
