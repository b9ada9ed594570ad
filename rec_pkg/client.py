"""The recommender as a Python application calls it."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import sqlalchemy as sa
from sqlalchemy import URL, exc
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, scoped_session

from rec_pkg import arguments, models, queries, schema
from rec_pkg.database import pooler, sqlstates
from rec_pkg.database.addresses import url_of
from rec_pkg.errors import BadInput, DatabaseUnreachable, RecError, SchemaMissing, UnknownItem, told
from rec_pkg.models import Item
from rec_pkg.operations import vacuuming
from rec_pkg.queries import (
    DEFAULT_RANKER,
    Interest,
    PopularItem,
    Recommendation,
    Share,
    SimilarItem,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from typing import Self

    from sqlalchemy.engine import Connection, Engine, RowMapping
    from sqlalchemy.sql.functions import Function

    from rec_pkg.operations.vacuuming import Erasures

    Transaction = Session | Connection

T = TypeVar("T")
CHECKED: Final = "pgrec_schema_checked"


@dataclass(frozen=True, slots=True)
class Status:
    """How the recommender is doing: counts of rows, and the age of the oldest queued event."""

    items: int
    items_to_encode: int
    items_failed: int
    events: int
    users: int
    texts: int
    pending: int
    parked: int
    lag_seconds: float
    deltas: int
    workers: int
    encoder: str | None
    fingerprint: str | None


class Client:
    """
    The functions of schema `rec` as calls, each in a transaction of its own.

    Args:
        database: an Engine, which stays the caller's, or the URL of a database as libpq writes it,
            with one host or several.

    Raises:
        DatabaseUnreachable: from any call, if the connection fails.
        SchemaMissing: from any call, if the database was never migrated.
        SchemaMismatch: from any call, if another version of pgrec migrated it.
        BadInput: from any call, if the database refuses what it was given.
    """

    def __init__(self, database: Engine | URL | str | Transaction) -> None:
        self._bind = _engine(database) if isinstance(database, URL | str) else database
        self._owns = self._bind is not database

    @classmethod
    def on(cls, transaction: Transaction | scoped_session[Any]) -> Self:
        """
        Return a client whose calls are part of the caller's open transaction.

        They see what it has written, a Session's unflushed objects included, and a rollback undoes
        them. With asyncio: `await connection.run_sync(lambda c: Client.on(c).recommend("ada"))`.
        """
        return cls(transaction() if isinstance(transaction, scoped_session) else transaction)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of an engine that was made here from a URL."""
        if self._owns and isinstance(self._bind, sa.Engine):
            self._bind.dispose()

    def track(  # noqa: PLR0913  # an event has as many parts
        self,
        user_id: str,
        item_id: str | None = None,
        *,
        kind: str = "click",
        text: str | None = None,
        value: float | None = None,
        occurred_at: datetime | None = None,
        dedupe_key: str | None = None,
    ) -> int | None:
        """
        Log an event on an item, a text, or both, and return its id; None if it is not let in.

        Args:
            user_id: never empty.
            item_id: may name an item that comes later.
            kind: a row of `rec.event_kinds`.
            text: what the user searched or wrote; it is encoded.
            value: of a rating, say; it scales the weight of kinds that have a scale.
            occurred_at: an aware time; None for now.
            dedupe_key: a repeated call with it logs nothing and returns the first id.
        """
        function = sa.func.rec.track(
            *map(arguments.text, (user_id, item_id, kind, text)),
            sa.literal(value, sa.Double()),
            arguments.time(occurred_at),
            arguments.text(dedupe_key),
            type_=sa.BigInteger(),
        )
        return self._call(function)

    def recommend(  # noqa: PLR0913  # as many as the SQL function has
        self,
        user_id: str,
        k: int = 10,
        *,
        domain: str | None = None,
        filter: queries.Filter | None = None,  # noqa: A002  # as in SQL
        exclude_seen: bool = True,
        diversity: float | None = None,
        as_of: datetime | None = None,
        seed: int = 0,
        ranker: str = DEFAULT_RANKER,
    ) -> list[Recommendation]:
        """Return the `k` best items for a user, best first; see `rec_pkg.queries.recommend`."""
        rows = queries.recommend(
            user_id,
            k,
            domain=domain,
            filter=filter,
            exclude_seen=exclude_seen,
            diversity=diversity,
            as_of=as_of,
            seed=seed,
            ranker=ranker,
        )
        return [Recommendation(**row) for row in self._rows(_titled(rows, rows.c.rank))]

    def similar_items(
        self,
        item_id: str,
        k: int = 10,
        *,
        domain: str | None = None,
        filter: queries.Filter | None = None,  # noqa: A002  # as in SQL
    ) -> list[SimilarItem]:
        """Return the `k` items most like `item_id`, best first; none before it is encoded."""
        rows = queries.similar_items(item_id, k, domain=domain, filter=filter)
        return [SimilarItem(**row) for row in self._rows(_titled(rows, rows.c.rank))]

    def popular(
        self,
        k: int = 10,
        *,
        domain: str | None = None,
        filter: queries.Filter | None = None,  # noqa: A002  # as in SQL
    ) -> list[PopularItem]:
        """Return the `k` trending items, the most popular first."""
        rows = queries.popular(k, domain=domain, filter=filter)
        statement = _titled(rows, rows.c.mass.desc(), rows.c.item_id)
        return [PopularItem(**row) for row in self._rows(statement)]

    def explain(
        self,
        user_id: str,
        item_id: str,
        as_of: datetime | None = None,
        *,
        ranker: str = DEFAULT_RANKER,
    ) -> list[Share]:
        """
        Return the shares whose sum is the score of an item for a user, the greatest first.

        Raises:
            UnknownItem: if there is no such item.
        """
        shares = queries.explain(user_id, item_id, as_of, ranker=ranker)
        statement = (
            sa.select(shares)
            .select_from(sa.outerjoin(Item, shares, sa.true()))
            .where(Item.item_id == item_id)
            .order_by(shares.c.share.desc(), shares.c.event_id)
        )
        rows = self._rows(statement)
        if not rows:
            raise UnknownItem(repr(item_id))
        return [Share(**row) for row in rows if row["term"] is not None]

    def explain_list(
        self,
        user_id: str,
        item_ids: Sequence[str],
        as_of: datetime | None = None,
        *,
        ranker: str = DEFAULT_RANKER,
    ) -> dict[str, list[Share]]:
        """Return the shares of each of these items, found in one pass, the greatest first."""
        shares = queries.explain_list(user_id, item_ids, as_of, ranker=ranker)
        rows = self._rows(sa.select(shares).order_by(shares.c.share.desc(), shares.c.event_id))
        explained: dict[str, list[Share]] = {item_id: [] for item_id in item_ids}
        for row in rows:
            values = dict(row)
            explained[values.pop("explained_item")].append(Share(**values))
        return explained

    def interest(self, user_id: str, as_of: datetime | None = None) -> list[Interest]:
        """Return the horizons of a user now, or replayed as of an aware time; none if unknown."""
        known = queries.interest(user_id, as_of).c
        vector = known.interest.label("vector")
        statement = sa.select(known.horizon, vector, known.mass, known.as_of, known.weight)
        return [
            Interest(**{**row, "vector": np.asarray(row["vector"], np.float32)})
            for row in self._rows(statement)
        ]

    def forget(self, user_id: str) -> int:
        """Erase all that is kept of a user and return how many events that were."""
        return self._call(sa.func.rec.forget_user(arguments.text(user_id), type_=sa.Integer()))

    def vacuum(self, *, full: bool = False, patience_s: float = 0) -> Erasures:
        """
        Clear the rows that erasures deleted; see `rec_pkg.operations.vacuuming.vacuum`.

        Raises:
            BadInput: from a client that is part of a transaction of the caller's.
        """
        if not isinstance(self._bind, sa.Engine):
            raise BadInput("a vacuum cannot be part of a transaction")
        with self._connected():
            pass  # the schema is of this version
        with _translated():
            return vacuuming.vacuum(self._bind, full=full, patience_s=patience_s)

    def retain(self) -> str | None:
        """Drop a part of what is not to stay and say what; None if nothing is left."""
        return self._call(sa.func.rec.apply_retention(type_=sa.Text()))

    def pause(self, user_id: str) -> bool:
        """Keep the user's events out from now on; False if they were kept out already."""
        return self._call(sa.func.rec.pause_user(arguments.text(user_id), type_=sa.Boolean()))

    def resume(self, user_id: str) -> bool:
        """Let the user's events in again; False if they were not kept out."""
        return self._call(sa.func.rec.resume_user(arguments.text(user_id), type_=sa.Boolean()))

    def undo(self, user_id: str, event_id: int) -> bool:
        """Take an event back as if it had never been; False if there is no such event."""
        event = sa.literal(event_id, sa.BigInteger())
        return self._call(
            sa.func.rec.undo_event(arguments.text(user_id), event, type_=sa.Boolean())
        )

    def export(self, user_id: str) -> dict[str, Any]:
        """Return all that is kept of a user, in the form of JSON."""
        return self._call(sa.func.rec.export_user(arguments.text(user_id), type_=JSONB()))

    def rebuild(self, user_id: str) -> int:
        """Make a user's stored interest anew from the log and return the number of events."""
        return self._call(sa.func.rec.rebuild_user(arguments.text(user_id), type_=sa.Integer()))

    def status(self) -> Status:
        """Return the figures of the view `rec.status`, which counts rows."""
        return Status(**self._rows(sa.select(models.status))[0])

    def _call(self, function: Function[T]) -> T:
        with self._connected() as connection:
            return connection.execute(sa.select(function)).scalar_one()

    def _rows(self, statement: sa.Executable) -> Sequence[RowMapping]:
        with self._connected() as connection:
            return connection.execute(statement).mappings().all()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        if isinstance(self._bind, Session) and self._bind.autoflush:
            self._bind.flush()  # an error in here is the caller's own
        with _translated(), self._transaction() as connection:
            if CHECKED not in connection.info:
                schema.check(connection)
                connection.info[CHECKED] = True
            yield connection

    def _transaction(self) -> AbstractContextManager[Connection]:
        if isinstance(self._bind, sa.Engine):
            return self._bind.begin()
        if isinstance(self._bind, Session):
            return nullcontext(self._bind.connection(bind_arguments={"mapper": Item}))
        return nullcontext(self._bind)


def _engine(database: URL | str) -> Engine:
    # Errors end up in logs, and passwords are not for logs, nor what users are called and write.
    url = url_of(database)
    engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
    sa.event.listen(engine, "connect", lambda connection, _: pooler.adapt(connection))
    return engine


def _titled(rows: sa.FromClause[Any], *order: sa.ColumnElement[Any]) -> sa.Executable:
    """Select `rows` and what they leave out of their items."""
    return (
        sa.select(rows, Item.title, Item.domain)
        .join(Item, Item.item_id == rows.c.item_id)
        .order_by(*order)
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        # Lone surrogates; what JSON has no form for, as it is no value, a circle or too deep.
        raise BadInput(str(error)) from error
    except exc.StatementError as error:
        meant = _meaning(error)
        if meant is None:
            raise
        raise meant from error


def _meaning(error: exc.StatementError) -> RecError | None:
    state = sqlstates.sqlstate(error.orig)
    kind = sqlstates.meaning(error.orig).kind
    detail = told(error.orig)
    if kind == "undefined":
        return SchemaMissing(detail)
    if isinstance(error, exc.OperationalError) and (not state or kind == "unreachable"):
        return DatabaseUnreachable(detail)
    if not isinstance(error, exc.DBAPIError):  # it was never sent
        return BadInput(detail)
    if isinstance(error, exc.DataError | exc.IntegrityError) or kind == "unfit":
        return BadInput(detail)
    if isinstance(error, exc.ProgrammingError) and not state:  # of a type that the driver lacks
        return BadInput(detail)
    return None
