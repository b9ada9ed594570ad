from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from rec_pkg.database.sqlstates import meaning


@pytest.mark.parametrize(
    ("error", "kind", "any_row"),
    [
        (errors.ConnectionFailure, "unreachable", True),
        (errors.AdminShutdown, "unreachable", True),
        (errors.CannotConnectNow, "unreachable", True),
        (errors.ReadOnlySqlTransaction, "unusable", True),
        (errors.DiskFull, "unusable", True),
        (errors.LockNotAvailable, "unusable", True),
        (errors.QueryCanceled, "slow", False),
        (errors.DeadlockDetected, "passing", False),
        (errors.InvalidSchemaName, "undefined", True),
        (errors.UndefinedTable, "undefined", True),
        (errors.UndefinedFunction, "undefined", True),
        (errors.UndefinedColumn, "other", True),
        (errors.InsufficientPrivilege, "forbidden", True),
        (errors.StatementTooComplex, "unfit", False),
        (errors.FeatureNotSupported, "unfit", False),
        (errors.CannotCoerce, "unfit", True),
        (errors.NumericValueOutOfRange, "other", False),
        (errors.RaiseException, "other", False),
        (psycopg.OperationalError, "other", True),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_the_longest_prefix_of_a_sqlstate_says_what_it_means(
    error: type[psycopg.Error], kind: str, *, any_row: bool
) -> None:
    meant = meaning(error())
    assert (meant.kind, meant.any_row) == (kind, any_row)
