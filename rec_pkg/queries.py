"""
The functions of schema `rec` as selectables, to be joined with an application's own tables.

    r = recommend("ada", 20, domain="shop")
    select(Product, r.c.score).join(r, r.c.item_id == Product.sku).order_by(r.c.rank)

Rows come in no guaranteed order: sort by `rank`, or by what a docstring names. A user or item may
be a column; the result then has rows for each of its values. An invalid argument, such as a
negative `k`, a filter that is not a mapping, an id that is not a str, or a time without a zone,
raises `BadInput` immediately.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral
from typing import Any, Final, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import HALFVEC, Vector
from sqlalchemy import Column, FromClause, Named, ScalarSelect, SQLColumnExpression, TypedColumns
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.functions import Function

from rec_pkg import arguments
from rec_pkg.errors import BadInput

C = TypeVar("C", bound=TypedColumns)
DEFAULT_RANKER: Final = "default"
Id = str | SQLColumnExpression[str]
Filter = Mapping[str, Any]
WHEN = sa.DateTime(timezone=True)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """
    An entry of a list; `rank` counts from 1.

    `score` is the sum of the terms from `content` to `repeat` minus `aversion`, each multiplied by
    its weight in the ranker. `topic` numbers the user's unrelated interests from 1. `path` says how
    the item was found: hnsw, exact, transition, companion, trend, newest, or explore if it was
    drawn at random.
    """

    rank: int
    item_id: str
    title: str
    domain: str
    score: float
    content: float
    latest: float
    closest: float
    transition: float
    together: float
    trend: float
    newness: float
    repeat: float
    aversion: float
    topic: int | None
    path: str


class Recommendations(TypedColumns):
    """Columns of `recommend`."""

    rank: Named[int]
    item_id: Named[str]
    score: Named[float]
    content: Named[float]
    latest: Named[float]
    closest: Named[float]
    transition: Named[float]
    together: Named[float]
    trend: Named[float]
    newness: Named[float]
    repeat: Named[float]
    aversion: Named[float]
    topic: Named[int | None]
    path: Named[str]


@dataclass(frozen=True, slots=True)
class SimilarItem:
    """An item and its cosine similarity to another; `path` is hnsw or exact."""

    rank: int
    item_id: str
    title: str
    domain: str
    similarity: float
    path: str


class Similarities(TypedColumns):
    """Columns of `similar_items`."""

    rank: Named[int]
    item_id: Named[str]
    similarity: Named[float]
    path: Named[str]


@dataclass(frozen=True, slots=True)
class PopularItem:
    """An item and the summed weights of its positive events, decayed by the settings' half-life."""

    item_id: str
    title: str
    domain: str
    mass: float


class Masses(TypedColumns):
    """Columns of `popular`."""

    item_id: Named[str]
    mass: Named[float]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a score; if `term` is `event`, the part of one event of the user."""

    term: str
    share: float
    event_id: int | None
    occurred_at: datetime | None
    kind: str | None
    item_id: str | None
    title: str | None
    text: str | None


class Shares(TypedColumns):
    """Columns of `explain`."""

    term: Named[str]
    share: Named[float]
    event_id: Named[int | None] = Column(sa.BigInteger)
    occurred_at: Named[datetime | None] = Column(WHEN)
    kind: Named[str | None]
    item_id: Named[str | None]
    title: Named[str | None]
    text: Named[str | None]


class ListShares(Shares):
    """Columns of `explain_list`."""

    explained_item: Named[str]


@dataclass(frozen=True, slots=True, eq=False)
class Interest:
    """A horizon: its decayed sum, float32 (dims,), not normalised, and its weight in the mix."""

    horizon: str
    vector: NDArray[np.float32]
    mass: float
    as_of: datetime
    weight: float


class Interests(TypedColumns):
    """Columns of `interest`."""

    horizon: Named[str]
    interest: Named[list[float]] = Column(Vector())
    mass: Named[float]
    as_of: Named[datetime] = Column(WHEN)
    weight: Named[float]


def recommend(  # noqa: PLR0913  # the parameters of the SQL function
    user_id: Id,
    k: int = 10,
    *,
    domain: str | None = None,
    filter: Filter | None = None,  # noqa: A002  # as in SQL
    exclude_seen: bool = True,
    diversity: float | None = None,
    as_of: datetime | None = None,
    seed: int = 0,
    ranker: str = DEFAULT_RANKER,
) -> FromClause[Recommendations]:
    """
    Return the `k` best items for a user; `rank` counts from 1.

    Args:
        user_id: an unknown user gets trending items.
        k: number of rows; fewer come back only if fewer items qualify.
        domain: domain of the items; None means all.
        filter: attribute values that an item must have.
        exclude_seen: leave out items on which the user has an event of a kind that marks as seen.
        diversity: from 0 (best scores) to 1 (least alike); None takes the ranker's value.
        as_of: an aware time; the list uses only events up to it. None means now.
        seed: 32 bits; another seed draws other items for the places that `exploration` takes.
        ranker: a row of `rec.rankers`.
    """
    function = sa.func.rec.recommend(
        _id(user_id),
        *_list(k, domain, filter),
        sa.literal(exclude_seen, sa.Boolean()),
        sa.literal(diversity, sa.Double()),
        arguments.time(as_of),
        sa.literal(seed, sa.Integer()),
        arguments.text(ranker),
    )
    return _rows(function, Recommendations)


def similar_items(
    item_id: Id,
    k: int = 10,
    *,
    domain: str | None = None,
    filter: Filter | None = None,  # noqa: A002  # as in SQL
) -> FromClause[Similarities]:
    """Return the `k` items closest to an item; `similarity` is the cosine, `rank` counts from 1."""
    function = sa.func.rec.similar_items(
        _id(item_id),
        *_list(k, domain, filter),
    )
    return _rows(function, Similarities)


def popular(
    k: int = 10,
    *,
    domain: str | None = None,
    filter: Filter | None = None,  # noqa: A002  # as in SQL
    exclude: Sequence[str] = (),
) -> FromClause[Masses]:
    """Return the `k` trending items not in `exclude`; `mass` is their events' decayed weight."""
    function = sa.func.rec.popular(
        *_list(k, domain, filter),
        sa.literal(_texts(exclude), ARRAY(sa.Text())),
    )
    return _rows(function, Masses)


def explain(
    user_id: Id, item_id: Id, as_of: datetime | None = None, *, ranker: str = DEFAULT_RANKER
) -> FromClause[Shares]:
    """
    Return the shares that add up to the score of an item.

    The term `event` has a row per event of the user, for its part in `content`, `latest` and
    `closest`; every other term has one row, unless it is 0. With `as_of`, an aware time, the score
    is the one at that time.
    """
    function = sa.func.rec.explain(
        _id(user_id), _id(item_id), arguments.time(as_of), arguments.text(ranker)
    )
    return _rows(function, Shares)


def explain_list(
    user_id: Id,
    item_ids: Sequence[str],
    as_of: datetime | None = None,
    *,
    ranker: str = DEFAULT_RANKER,
) -> FromClause[ListShares]:
    """Return the shares of several items in one pass; `explained_item` names the item."""
    items = sa.literal(_texts(item_ids), ARRAY(sa.Text()))
    function = sa.func.rec.explain_list(
        _id(user_id), items, arguments.time(as_of), arguments.text(ranker)
    )
    return _rows(function, ListShares)


def interest(user_id: Id, as_of: datetime | None = None) -> FromClause[Interests]:
    """
    Return a row per horizon: its decayed sum, not normalised, and its `weight`; weights sum to 1.

    With `as_of`, an aware time, the interest at that time is replayed from the event log.
    """
    function = sa.func.rec.interest(_id(user_id), arguments.time(as_of))
    return _rows(function, Interests)


def interest_vector(user_id: Id, horizon: str = "long") -> ScalarSelect[list[float]]:
    """
    Return one horizon of a user as a unit vector; NULL if nothing is known of the user.

    In `order_by(ItemVector.embedding.cosine_distance(interest_vector("ada")))` with a limit, the
    HNSW index serves the query, because the vector is computed once, before the scan.
    """
    known = interest(user_id)
    unit = sa.cast(sa.func.l2_normalize(known.c.interest), HALFVEC())
    return sa.select(unit).where(known.c.horizon == horizon).scalar_subquery()


def _list(k: int, domain: str | None, wanted: Filter | None) -> Iterator[sa.ColumnElement[Any]]:
    if not isinstance(k, Integral) or k < 0:
        raise BadInput("k must be a whole number, at least 0")
    if not (wanted is None or isinstance(wanted, Mapping)):
        raise BadInput("the filter must be a mapping of attributes to values")
    yield sa.literal(k, sa.Integer())
    yield arguments.text(domain)
    yield sa.literal(dict(wanted or {}), JSONB())


def _id(value: Id) -> sa.ColumnElement[str]:
    if isinstance(value, SQLColumnExpression):
        return sa.type_coerce(value, sa.Text())
    return arguments.text(value)


def _texts(values: Sequence[str]) -> list[str]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise BadInput("the ids must be a list of str")
    if not all(isinstance(value, str) for value in values):
        raise BadInput("every id in the list must be a str")
    return list(values)


def _rows(function: Function[Any], columns: type[C]) -> FromClause[C]:
    typed = sa.Table(function.name, sa.MetaData(), columns)
    names = (sa.column(column.name, column.type) for column in typed.c)
    return function.table_valued(*names).with_cols(columns)
