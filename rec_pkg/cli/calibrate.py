"""`pgrec calibrate`: fits a calibration to the catalogue."""

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
            help="Softness of the whitening, above 0, in units of the mean eigenvalue. Default: "
            "0.1, the best value on another catalogue."
        ),
    ] = None,
    off: Annotated[
        bool,
        typer.Option("--off", help="Remove the calibration: restore the encoder's own vectors."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Fit the vectors to your catalogue: features that all items share count less, differences more.

    Fits a linear map (mean removal and soft whitening) on the items' vectors, applies it to all
    stored vectors, and rebuilds interests from the log. Nothing is encoded again. Lists stay
    available meanwhile; workers wait, then continue in the new space. Run it once the catalogue is
    complete, and again after large changes.

    It runs as one transaction: if interrupted, it changes nothing.
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
    """Passes progress on and keeps the number done of each step."""

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
        "vectors of {items:,} items and {texts:,} texts moved, interests of {users:,} users rebuilt"
    )
    return f"{counts.format(**moved)}; fingerprint {fingerprint[:12]}"
