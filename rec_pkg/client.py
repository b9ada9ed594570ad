"""The recommender for Python applications."""

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
    """The state of the recommender: row counts, and the age of the oldest queued event."""

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
    Calls the functions of schema `rec`, each call in its own transaction.

    Args:
        database: an Engine, which stays the caller's to close, or a database URL in libpq's form,
            with one host or several.

    Raises:
        DatabaseUnreachable: from any call, if the connection fails.
        SchemaMissing: from any call, if the database was never migrated.
        SchemaMismatch: from any call, if another version of pgrec migrated it.
        BadInput: from any call, if the database refuses an argument.
    """

    def __init__(self, database: Engine | URL | str | Transaction) -> None:
        self._bind = _engine(database) if isinstance(database, URL | str) else database
        self._owns = self._bind is not database

    @classmethod
    def on(cls, transaction: Transaction | scoped_session[Any]) -> Self:
        """
        Return a client whose calls are part of the caller's open transaction.

        The calls see everything that the transaction has written, including a Session's unflushed
        objects, and a rollback undoes them. With asyncio: `await connection.run_sync(lambda c:
        Client.on(c).recommend("ada"))`.
        """
        return cls(transaction() if isinstance(transaction, scoped_session) else transaction)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of the engine that this client made from a URL."""
        if self._owns and isinstance(self._bind, sa.Engine):
            self._bind.dispose()

    def track(  # noqa: PLR0913  # one parameter per part of an event
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
        Log an event about an item, a text, or both; return its id, or None if it is not stored.

        An event is not stored if its user is paused or the log does not reach back to its time.

        Args:
            user_id: must not be empty.
            item_id: may name an item that does not exist yet.
            kind: a row of `rec.event_kinds`.
            text: what the user searched for or wrote; the worker encodes it.
            value: for example a rating; it scales the weight if the kind has a scale.
            occurred_at: an aware time; None means now.
            dedupe_key: a second call with the same key logs nothing and returns the first event's
                id.
        """
        function = sa.func.rec.track(
            *map(arguments.text, (user_id, item_id, kind, text)),
            sa.literal(value, sa.Double()),
            arguments.time(occurred_at),
            arguments.text(dedupe_key),
            type_=sa.BigInteger(),
        )
        return self._call(function)

    def recommend(  # noqa: PLR0913  # the parameters of the SQL function
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
        """Return the `k` items most similar to `item_id`, best first; empty until it is encoded."""
        rows = queries.similar_items(item_id, k, domain=domain, filter=filter)
        return [SimilarItem(**row) for row in self._rows(_titled(rows, rows.c.rank))]

    def popular(
        self,
        k: int = 10,
        *,
        domain: str | None = None,
        filter: queries.Filter | None = None,  # noqa: A002  # as in SQL
    ) -> list[PopularItem]:
        """Return the `k` trending items, most popular first."""
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
        Return the shares that add up to a user's score for an item, greatest first.

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
        """Return the shares of each of these items, greatest first, computed in one pass."""
        shares = queries.explain_list(user_id, item_ids, as_of, ranker=ranker)
        rows = self._rows(sa.select(shares).order_by(shares.c.share.desc(), shares.c.event_id))
        explained: dict[str, list[Share]] = {item_id: [] for item_id in item_ids}
        for row in rows:
            values = dict(row)
            explained[values.pop("explained_item")].append(Share(**values))
        return explained

    def interest(self, user_id: str, as_of: datetime | None = None) -> list[Interest]:
        """Return a user's horizons, now or replayed as of an aware time; none for unknown users."""
        known = queries.interest(user_id, as_of).c
        vector = known.interest.label("vector")
        statement = sa.select(known.horizon, vector, known.mass, known.as_of, known.weight)
        return [
            Interest(**{**row, "vector": np.asarray(row["vector"], np.float32)})
            for row in self._rows(statement)
        ]

    def forget(self, user_id: str) -> int:
        """Erase everything stored about a user and return the number of erased events."""
        return self._call(sa.func.rec.forget_user(arguments.text(user_id), type_=sa.Integer()))

    def vacuum(self, *, full: bool = False, patience_s: float = 0) -> Erasures:
        """
        Clear the rows that erasures deleted; see `rec_pkg.operations.vacuuming.vacuum`.

        Raises:
            BadInput: if the client is part of a caller's transaction.
        """
        if not isinstance(self._bind, sa.Engine):
            raise BadInput("a vacuum cannot be part of a transaction")
        with self._connected():
            pass  # entering checks the version of the schema
        with _translated():
            return vacuuming.vacuum(self._bind, full=full, patience_s=patience_s)

    def retain(self) -> str | None:
        """Delete one part of the expired data and return what it was; None if nothing is left."""
        return self._call(sa.func.rec.apply_retention(type_=sa.Text()))

    def pause(self, user_id: str) -> bool:
        """Stop storing the user's events; return False if the user was already paused."""
        return self._call(sa.func.rec.pause_user(arguments.text(user_id), type_=sa.Boolean()))

    def resume(self, user_id: str) -> bool:
        """Store the user's events again; return False if the user was not paused."""
        return self._call(sa.func.rec.resume_user(arguments.text(user_id), type_=sa.Boolean()))

    def undo(self, user_id: str, event_id: int) -> bool:
        """Undo an event as if it had never happened; return False if there is no such event."""
        event = sa.literal(event_id, sa.BigInteger())
        return self._call(
            sa.func.rec.undo_event(arguments.text(user_id), event, type_=sa.Boolean())
        )

    def export(self, user_id: str) -> dict[str, Any]:
        """Return everything stored about a user, as JSON values."""
        return self._call(sa.func.rec.export_user(arguments.text(user_id), type_=JSONB()))

    def rebuild(self, user_id: str) -> int:
        """Rebuild a user's stored interest from the log and return the number of events."""
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
            self._bind.flush()  # an error of the caller's objects reaches the caller untranslated
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
    # Errors end up in logs, and logs must not contain passwords, user ids or users' texts.
    url = url_of(database)
    engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
    sa.event.listen(engine, "connect", lambda connection, _: pooler.adapt(connection))
    return engine


def _titled(rows: sa.FromClause[Any], *order: sa.ColumnElement[Any]) -> sa.Executable:
    """Select `rows` together with the title and domain of each item."""
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
        # A lone surrogate, or a filter that JSON cannot hold: a foreign type, a cycle, or too deep.
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
    if not isinstance(error, exc.DBAPIError):  # raised before anything was sent
        return BadInput(detail)
    if isinstance(error, exc.DataError | exc.IntegrityError) or kind == "unfit":
        return BadInput(detail)
    if isinstance(error, exc.ProgrammingError) and not state:  # a type that the driver cannot adapt
        return BadInput(detail)
    return None
