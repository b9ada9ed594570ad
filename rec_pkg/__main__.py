"""So that `python -m rec_pkg` is `pgrec`."""

from rec_pkg.cli import app

app()
