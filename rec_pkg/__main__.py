"""Lets `python -m rec_pkg` run `pgrec`."""

from rec_pkg.cli import app

app()
