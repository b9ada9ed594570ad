from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

NOW = "import datetime as d; print(d.datetime.now(d.UTC).isoformat())"


@pytest.mark.clock
def test_server_tests_and_programs_have_the_time_and_zone_of_the_calendar(
    db: psycopg.Connection[tuple[Any, ...]],
) -> None:
    begins = os.environ.get("CLOCK_BEGINS")
    expected = datetime.fromisoformat(begins) if begins else datetime.now(UTC)
    row = db.execute("select now()").fetchone()
    program = subprocess.run(
        [sys.executable, "-c", NOW], capture_output=True, text=True, check=True
    )
    assert row
    for now in (datetime.now(UTC), row[0], datetime.fromisoformat(program.stdout.strip())):
        assert abs(now - expected) < timedelta(hours=1)
    if zone := os.environ.get("TEST_TIMEZONE"):
        assert db.execute("show timezone").fetchone() == (zone,)
