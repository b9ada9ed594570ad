"""
The functions of schema `rec` as selectables, to be joined with an application's own tables.

    r = recommend("ada", 20, domain="shop")
    select(Product, r.c.score).join(r, r.c.item_id == Product.sku).order_by(r.c.rank)

Rows come in no promised order: sort by `rank`, or by what a docstring names. A user or item may be
a column, which gives the rows for every one in the statement. What cannot be right, such as a
negative `k`, a filter that is no mapping, an id that is no text, or a time without a zone, raises
`BadInput` at once.
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
    A place in a list, `rank` counting from 1.

    `score` adds up the terms from `content` to `repeat` and takes `aversion` away, each
    times its weight in the ranker. `topic` counts the user's unrelated interests from 1; `path`
    says how the item was found: hnsw, exact, transition, companion, trend, newest, or explore if
    it was drawn.
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
    """An item and its cosine to another; `path` is hnsw or exact."""

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
    """An item and the weights of its positive events, decayed by the settings' half-life."""

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
    """A part of a score; of the term `event` it is the part of one event of the user."""

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
    """A horizon: its decayed sum, float32 (dims,) of any length, and its weight in the mix."""

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


def recommend(  # noqa: PLR0913  # as many as the SQL function has
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
        user_id: whoever is unknown gets what is trending.
        k: number of rows; fewer come back only if fewer items qualify.
        domain: of the items; None for all.
        filter: attributes that an item must have, with these values.
        exclude_seen: leave out the items of events of a kind that marks as seen.
        diversity: from 0, the best scores, to 1, the least alike; None for that of the ranker.
        as_of: an aware time; the list that the events until then make. None for now.
        seed: 32 bits; another one draws other items for the places that `exploration` gives away.
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
    """Return the `k` trending items but those in `exclude`; `mass` is the decayed event weight."""
    function = sa.func.rec.popular(
        *_list(k, domain, filter),
        sa.literal(_texts(exclude), ARRAY(sa.Text())),
    )
    return _rows(function, Masses)


def explain(
    user_id: Id, item_id: Id, as_of: datetime | None = None, *, ranker: str = DEFAULT_RANKER
) -> FromClause[Shares]:
    """
    Return what the score of an item is the sum of, in `share`.

    The term `event` has a row per event of the user, for its part in `content`, `latest` and
    `closest`; each other term has one row, unless it is 0. With `as_of`, an aware time, it is the
    score of then.
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
    """Return the shares of several items in one pass; `explained_item` says whose each is."""
    items = sa.literal(_texts(item_ids), ARRAY(sa.Text()))
    function = sa.func.rec.explain_list(
        _id(user_id), items, arguments.time(as_of), arguments.text(ranker)
    )
    return _rows(function, ListShares)


def interest(user_id: Id, as_of: datetime | None = None) -> FromClause[Interests]:
    """
    Return a row per horizon: its decayed sum, of any length, and its `weight` in the mix, of sum 1.

    With `as_of`, an aware time, that of then is replayed from the event log.
    """
    function = sa.func.rec.interest(_id(user_id), arguments.time(as_of))
    return _rows(function, Interests)


def interest_vector(user_id: Id, horizon: str = "long") -> ScalarSelect[list[float]]:
    """
    Return one horizon of a user as a unit vector, NULL if nothing is known of them.

    In `order_by(ItemVector.embedding.cosine_distance(interest_vector("ada")))` with a limit it is
    served by the HNSW index, since it is computed once, before the scan.
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
        raise BadInput("what to exclude is a list of ids")
    if not all(isinstance(value, str) for value in values):
        raise BadInput("the ids to exclude are of type str")
    return list(values)


def _rows(function: Function[Any], columns: type[C]) -> FromClause[C]:
    typed = sa.Table(function.name, sa.MetaData(), columns)
    names = (sa.column(column.name, column.type) for column in typed.c)
    return function.table_valued(*names).with_cols(columns)
