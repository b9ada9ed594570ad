"""The programs that come with the server, such as pg_dump."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def program(name: str) -> Path:
    """Return the path of a program of Postgres; it lies beside psql."""
    settings = Settings()
    return EmbeddedServer(settings.data_dir, settings.pg_bin).psql_path.with_name(name)


def run_program(name: str, *arguments: str) -> str:
    """Return what a program of Postgres prints; an exit status other than 0 is an error."""
    call = [str(program(name)), *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return str(done.stdout)


def dump(url: str) -> str:
    """Return the schema as pg_dump tells it, without months, which end, and lines that differ."""
    told = run_program("pg_dump", "--schema-only", "--exclude-table=*.events_2*", url)
    lines = told.splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))
