"""The meaning of server errors: one table of SQLSTATEs for client, CLI and worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal[
    "unreachable",  # the connection is lost, or the server is stopping
    "unusable",  # the server answers, but can do nothing of this kind now
    "undefined",  # the schema or a part of it is missing
    "forbidden",  # the role lacks a right
    "unfit",  # the given value cannot be used
    "passing",  # the same statement may succeed immediately
    "slow",  # it took too long; a smaller part may succeed
    "other",
]


class Meaning(NamedTuple):
    """
    What a SQLSTATE means.

    `any_row` says whether every other row would have failed too, so that none is to blame; `words`
    tell the operator what is wrong with the server.
    """

    kind: Kind
    any_row: bool
    words: str = "no connection to the server"


LACKING: Final = "the database lacks a table, function or right"
BY_PREFIX: Final[Mapping[str, Meaning]] = {
    "08": Meaning("unreachable", any_row=True),  # connection exceptions
    "0A000": Meaning("unfit", any_row=False),  # an unsupported type, or not a number
    "25": Meaning(
        "unusable",
        any_row=True,
        words="the server is read-only, as a standby is or by its settings; a worker has to write",
    ),
    "28": Meaning("unusable", any_row=True, words="the server rejects the login"),
    "3F000": Meaning("undefined", any_row=True, words=LACKING),  # schema
    "40": Meaning(
        "passing",
        any_row=False,
        words="the transaction collided with another one",  # a deadlock, a serialization failure
    ),
    "42": Meaning("other", any_row=True, words=LACKING),
    "42501": Meaning("forbidden", any_row=True, words=LACKING),
    "42846": Meaning("unfit", any_row=True, words=LACKING),  # a type that cannot be converted
    "42883": Meaning("undefined", any_row=True, words=LACKING),  # function
    "42P01": Meaning("undefined", any_row=True, words=LACKING),  # table
    "53": Meaning(
        "unusable",
        any_row=True,
        words="the server has no room, memory or connections left",
    ),
    "54": Meaning("unfit", any_row=False),  # beyond a limit, such as JSON that is too deep
    "55": Meaning("unusable", any_row=True),  # not in the required state, or lock not available
    "57": Meaning("unusable", any_row=True),  # operator intervention
    "57014": Meaning("slow", any_row=False),  # statement_timeout, or an operator
    "57P": Meaning("unreachable", any_row=True),  # the server is stopping
    "58": Meaning("unusable", any_row=True, words="the server cannot read or write its files"),
}
"""The longest matching prefix of a SQLSTATE gives its meaning."""

UNKNOWN: Final = Meaning("other", any_row=False)
NONE: Final = Meaning("other", any_row=True)
"""The meaning of an error without a SQLSTATE: it was raised here, not by the server."""


def sqlstate(error: BaseException | None) -> str:
    """Return the SQLSTATE of a driver's error, empty if it has none."""
    return getattr(error, "sqlstate", None) or ""


def meaning(error: BaseException | None) -> Meaning:
    """Return what a driver's error means."""
    state = sqlstate(error)
    if not state:
        return NONE
    prefixes = (state[:length] for length in range(len(state), 0, -1))
    return next((BY_PREFIX[prefix] for prefix in prefixes if prefix in BY_PREFIX), UNKNOWN)
