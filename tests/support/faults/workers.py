"""Real worker processes, with the real encoder or with a quick one, and their logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.faults.world import Connection

Which = Literal["real", "quick"]
QUICK: Final = Path(__file__).with_name("quick_worker.py")
PATIENCE_S: Final = 90.0
DEFAULTS: Final = {
    "PGREC_METRICS_PORT": "0",
    "PGREC_POLL_SECONDS": "2",
    "PGREC_LOG_FORMAT": "json",
    "PGREC_THREADS": "1",
}


class Worker:
    """A worker process and what it says."""

    def __init__(
        self, address: str, log: Path, which: Which, settings: Mapping[str, str] = DEFAULTS
    ) -> None:
        self._log = log
        variables = {**os.environ, "PGREC_DATABASE_URL": address, **DEFAULTS, **settings}
        command = ["-m", "rec_pkg", "worker"] if which == "real" else [str(QUICK)]
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *command], stderr=stderr, env=variables
            )

    def kill(self) -> None:
        """Kill it as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far; lines that are none of ours as `{"event": line}`."""
        return [_parsed(line) for line in self._log.read_text().splitlines()]

    def pauses(self) -> list[float]:
        """Seconds that it announced to wait before the next try."""
        return [
            float(line["retry_in_seconds"]) for line in self.lines() if "retry_in_seconds" in line
        ]

    def said(self, words: str) -> bool:
        return any(words in str(line) for line in self.lines())


def _parsed(line: str) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"event": line}
    return parsed


@contextmanager
def worker(
    address: str,
    folder: Path,
    which: Which = "quick",
    settings: Mapping[str, str] = DEFAULTS,
) -> Iterator[Worker]:
    """A worker on the database, killed with the block."""
    log = folder / f"worker-{len(list(folder.glob('worker-*')))}.log"
    started = Worker(address, log, which, settings)
    try:
        yield started
    finally:
        started.kill()


def wait_until(
    done: Callable[[], bool], patience_s: float = PATIENCE_S, pause_s: float = 0.02
) -> float:
    """Wait, and return for how many seconds; fail if it takes too long."""
    start = time.monotonic()
    while not done():
        assert time.monotonic() < start + patience_s, "what should happen does not"
        time.sleep(pause_s)
    return time.monotonic() - start


def drained(db: Connection) -> bool:
    row = db.execute("select pending + items_to_encode + deltas from rec.status").fetchone()
    return row == (0,)


def sleeping(db: Connection) -> bool:
    """Whether a worker holds the sleepers' lock."""
    row = db.execute(
        "select count(*) from pg_locks l join pg_database d on d.oid = l.database"
        " where d.datname = current_database() and l.locktype = 'advisory'"
        " and l.objsubid = 1 and l.mode = 'ExclusiveLock' and l.granted"
        " and (l.classid::bigint << 32) | l.objid::bigint = rec_internal.sleep_lock()"
    ).fetchone()
    return row == (1,)
