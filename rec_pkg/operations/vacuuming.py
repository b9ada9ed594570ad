"""The vacuum that completes erasures; no function of the database can run one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from rec_pkg.models import erasure_status

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

PAUSE_S: Final = 0.2


class Erasures(NamedTuple):
    """
    Erasures whose deleted rows are still in the files.

    `held` of the `waiting` ones wait for open transactions that may still read the rows.
    """

    waiting: int
    held: int


def vacuum(engine: Engine, *, full: bool = False, patience_s: float = 0) -> Erasures:
    """
    Clear erased rows from files, indexes and statistics; return the erasures that still wait.

    Args:
        engine: its role may vacuum the tables: their owner, or one with MAINTAIN.
        full: rewrite the tables, which locks them, so that their files keep no old bytes.
        patience_s: how long to wait for transactions that hold the rows.
    """
    end = time.monotonic() + patience_s
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while True:
            _vacuum_once(connection, full=full)
            left = _left(connection)
            if left.waiting == 0 or time.monotonic() >= end:
                return left
            time.sleep(PAUSE_S)


def _vacuum_once(connection: Connection, *, full: bool) -> None:
    begin = sa.func.rec_internal.begin_vacuum(full).table_valued("statement", "erasures")
    plan = connection.execute(sa.select(begin)).all()
    for statement, _ in plan:
        connection.exec_driver_sql(statement)
    if plan:
        erasures = sa.literal(plan[0].erasures, ARRAY(sa.BigInteger))
        connection.execute(sa.select(sa.func.rec_internal.end_vacuum(erasures)))


def _left(connection: Connection) -> Erasures:
    state = erasure_status.c.state
    counts = sa.select(sa.func.count(), sa.func.count().filter(state == "held"))
    waiting, held = connection.execute(counts.where(state != "cleared")).one()
    return Erasures(waiting, held)
