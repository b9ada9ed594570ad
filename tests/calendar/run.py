"""Run the tests that carry the mark `clock` on days and in zones that are not today's."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
AT_ONCE: Final = 2


@dataclass(frozen=True)
class Day:
    """When the tests begin, in UTC and None for now, and the zone of server and session."""

    why: str
    zone: str
    begins: datetime | None = None

    def __str__(self) -> str:
        moment = f"{self.begins:%Y-%m-%d %H:%M:%S} UTC" if self.begins else "now"
        return f"{moment}, {self.zone}: {self.why}"


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# The first tests run half a minute after that, for a server has to be made and migrated.
DAYS: Final = (
    Day("today", "Asia/Kathmandu"),
    Day("a year ends", "America/New_York", _at("2026-12-31 23:59:10")),
    Day("a year begins", "UTC", _at("2027-01-01 00:00:00")),
    Day("the last of a month, with no such day in the next", "UTC", _at("2027-01-31 23:00:00")),
    Day("a month ends in the east", "Pacific/Kiritimati", _at("2027-02-28 12:00")),
    Day("90 days ago is the first of a month", "UTC", _at("2027-03-01 00:00:00")),
    Day("clocks go ahead", "America/New_York", _at("2027-03-14 06:59:10")),
    Day("the day after clocks went ahead", "America/New_York", _at("2027-03-15 03:00:00")),
    Day("clocks go back", "America/New_York", _at("2027-11-07 05:59:10")),
    Day("the day after clocks went back", "America/New_York", _at("2027-11-08 04:00:00")),
    Day("the eve of a leap day", "Asia/Kathmandu", _at("2028-02-28 23:59:10")),
    Day("a leap day ends", "Pacific/Kiritimati", _at("2040-02-29 23:59:10")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="All else is for pytest.")
    parser.add_argument("--day", default="", help="only the days whose description holds this")
    options, for_pytest = parser.parse_known_args()
    days = [day for day in DAYS if options.day in str(day)]
    with tempfile.TemporaryDirectory(prefix="pgrec-calendar-") as folder:
        Path(folder).chmod(0o755)  # as root the server is another user, who has to get in
        clock = _compiled(Path(folder))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            passed = list(pool.map(lambda day: _passes(day, clock, for_pytest), days))
    print(f"{sum(passed)} of {len(days)} days passed")  # noqa: T201
    sys.exit(not (days and all(passed)))


def _compiled(folder: Path) -> Path:
    """Return the library that moves the clock of whatever it is preloaded into."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if sys.platform != "linux" or compiler is None:
        sys.exit(
            "make calendar moves the clock with a library that it compiles; it needs Linux and a C"
            " compiler. On Debian: apt-get install gcc libc6-dev"
        )
    library = folder / "clock.so"
    flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
    subprocess.run([compiler, *flags, "-o", library, HERE / "clock.c", "-ldl"], check=True)
    return library


def _passes(day: Day, clock: Path, for_pytest: list[str]) -> bool:
    """Run the tests on a day, print how it went, and everything if it did not go well."""
    begins = day.begins or datetime.now(UTC)
    environment = os.environ | {
        "LD_PRELOAD": str(clock),
        "CLOCK_OFFSET": str(round(begins.timestamp() - time.time())),
        "CLOCK_BEGINS": begins.isoformat(),
        "TEST_TIMEZONE": day.zone,
        "TZ": day.zone,
    }
    environment.pop("PGREC_DATABASE_URL", None)  # a server whose clock is not ours
    command = [sys.executable, "-m", "pytest", "-q", "-m", "clock", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *for_pytest],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    last = re.sub("=", "", done.stdout.strip().rpartition("\n")[2]).strip()
    said = f"{day}\n    {last}" if done.returncode == 0 else f"{done.stdout}\nFAILED: {day}"
    print(said, flush=True)  # noqa: T201
    return done.returncode == 0


if __name__ == "__main__":
    main()
