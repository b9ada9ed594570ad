"""
Counts with noise, for publication: differential privacy by OpenDP.

The database bounds what one user adds (`rec_internal.bounded_counts`), the keys come from the
catalogue and the settings, and OpenDP draws the noise and computes its scale. If two databases
differ in all events of one user, the probabilities of any answer differ by a factor of at most
e^epsilon. The epsilons of all releases add up to at most `settings.privacy_budget`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final

import psycopg

from rec_pkg.errors import BadInput, BudgetSpent, OpenDPMissing
from rec_pkg.operations import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

KEYS: Final = ("kind", "domain", "item")


@dataclass(frozen=True, slots=True)
class Question:
    """
    How many users had an event, by `by`, from `since` up to `until`.

    Args:
        by: one of `KEYS`.
        since: an aware time.
        until: an aware time in the past, so that the answer is final.
        epsilon: the price, and the noise: a number is off by about keys_per_user / epsilon.
        keys_per_user: the most keys under which one user counts.

    Raises:
        BadInput: if an argument does not meet this.
    """

    by: str
    since: datetime
    until: datetime
    epsilon: float
    keys_per_user: int = 1

    def __post_init__(self) -> None:
        if self.by not in KEYS:
            raise BadInput(f"{self.by!r} is not one of {', '.join(KEYS)}")
        if not self.since < self.until <= datetime.now(UTC):
            raise BadInput("the period must begin before it ends, and be over")
        if not 0 < self.epsilon < inf or self.keys_per_user < 1:
            raise BadInput("epsilon and the keys per user must be positive")

    def as_json(self) -> dict[str, Any]:
        """Return the form that identifies a repeated question."""
        times = {
            name: getattr(self, name).astimezone(UTC).isoformat() for name in ("since", "until")
        }
        return asdict(self) | times | {"count": "users", "noise": "discrete Laplace"}


def release(connection: Connection[Any], question: Question) -> dict[str, int]:
    """
    Return the number of users per key, with noise; a repeated question gets the recorded answer.

    Numbers may be negative, because cutting them off at zero would shift their sums.

    Raises:
        BudgetSpent: if all releases together would cost more than the settings allow.
        OpenDPMissing: if OpenDP is not installed.
    """
    asked = question.as_json()
    with connection.transaction():
        recorded = store.released(connection, asked)
        if recorded is not None:
            return recorded
        counts = store.bounded_counts(
            connection, question.by, question.since, question.until, question.keys_per_user
        )
        numbers = with_noise(list(counts.values()), question.keys_per_user, question.epsilon)
        answer = dict(zip(counts, numbers, strict=True))
        try:
            store.record_release(connection, asked, question.epsilon, answer)
        except psycopg.errors.ProgramLimitExceeded as error:
            raise BudgetSpent(error.diag.message_detail) from error
    return answer


def with_noise(counts: Sequence[int], distance: int, epsilon: float) -> list[int]:
    """
    Return the counts with discrete Laplace noise that makes them `epsilon`-private.

    Args:
        counts: leaving out one user changes them by at most `distance` in total.
        distance: L1 sensitivity.
        epsilon: positive.
    """
    try:
        import opendp.prelude as dp  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise OpenDPMissing from error
    dp.enable_features("contrib")  # OpenDP hides the constructors behind it
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    scale = dp.binary_search_param(
        lambda scale: dp.m.make_laplace(*space, scale=scale), d_in=distance, d_out=epsilon
    )
    noisy: list[int] = dp.m.make_laplace(*space, scale=scale)(list(counts))
    return noisy
