"""How many faults were survived, counted over all tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.faults.ledger import judge
from tests.support.faults.workers import drained, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.faults.world import Connection


@dataclass
class Tally:
    """What all tests together have done and found."""

    survived: int = 0
    failed: int = 0
    lost: int = 0
    twice: int = 0
    struck: dict[str, int] = field(default_factory=dict)
    """Faults of a test that is not over."""

    def __str__(self) -> str:
        return (
            f"faults: {self.survived} survived, {self.failed} failed;"
            f" events lost {self.lost}; applied twice {self.twice}"
        )


@dataclass
class Faults:
    """The faults of one test."""

    name: str
    tally: Tally

    def strike(self) -> None:
        """Count a fault. A test that counts none counts as one."""
        self.tally.struck[self.name] = self.tally.struck.get(self.name, 0) + 1

    def survived(self, db: Connection, acknowledged: Iterable[str] = ()) -> int:
        """Wait until nothing waits, check every event, and return how many there are."""
        wait_until(lambda: drained(db))
        verdict = judge(db, acknowledged)
        self.tally.lost += verdict.lost
        self.tally.twice += verdict.twice
        assert (verdict.lost, verdict.twice) == (0, 0)
        assert verdict.interest_off < 1e-5
        assert verdict.counts_off < 1e-6
        return verdict.events
