"""The demo plays on a server of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.demo.story import background_worker, wait_until
from rec_pkg.errors import WorkerSilent

if TYPE_CHECKING:
    from rec_pkg.encoder import Encoder


@pytest.mark.slow
def test_the_demo_leaves_the_configured_database_alone(database_url: str, encoder: Encoder) -> None:
    del encoder  # its files are there
    folder = Path(
        tempfile.mkdtemp(prefix="pgrec-")
    )  # not 0700, for as root the server is another user
    folder.chmod(0o755)
    environment = os.environ | {
        "PGREC_DATABASE_URL": database_url,
        "PGREC_DATA_DIR": str(folder),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "rec_pkg", "demo"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "export PGREC_DATABASE_URL=" in done.stdout
    finally:
        EmbeddedServer(folder).stop()
        shutil.rmtree(folder)
    with psycopg.connect(database_url) as db:
        found = db.execute("select count(*) from rec.items").fetchone()
        assert found == (0,)


@pytest.mark.timeout(60)
def test_the_demo_does_not_wait_for_a_worker_that_ended(database_url: str) -> None:
    with background_worker(database_url) as worker:
        worker.kill()
        with pytest.raises(WorkerSilent):
            wait_until(lambda: False, worker, pause_s=0.1)
