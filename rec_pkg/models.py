"""
The tables and views of schemas `rec` and `rec_internal` as SQLAlchemy models.

`pgrec migrate` creates the tables, never `Base.metadata.create_all()`. Columns that the database
fills in may be omitted. Vectors are lists of `Encoder.dims` floats.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, TypeVar

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC, Vector
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

T = TypeVar("T")
Key = Annotated[T, mapped_column(primary_key=True)]
Filled = Annotated[T, mapped_column(server_default=sa.FetchedValue())]
UnitVector = Annotated[list[float], mapped_column(HALFVEC())]
SumVector = Annotated[list[float], mapped_column(Vector())]
FIRST = datetime(1, 1, 3, tzinfo=UTC)
LAST = datetime(9999, 12, 29, tzinfo=UTC)


class FiniteTime(sa.TypeDecorator[datetime]):
    """A timestamptz; an infinite one is read as one of the first or last days of Python."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def column_expression(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Select `column`, clamped to the years 1 to 9999."""
        first, last = (sa.literal(time, self.impl_instance) for time in (FIRST, LAST))
        return sa.func.least(sa.func.greatest(column, first), last, type_=self)


class Base(DeclarativeBase):
    """Base of all tables and views; those of `rec_internal` may change with any version."""

    metadata = sa.MetaData(schema="rec")
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: sa.Text(),
        float: sa.Double(),
        bytes: BYTEA(),
        datetime: sa.DateTime(timezone=True),
        timedelta: sa.Interval(),
        dict[str, Any]: MutableDict.as_mutable(JSONB()),
        list[str]: MutableList.as_mutable(ARRAY(sa.Text())),
    }


INTERNAL: Final = {"schema": "rec_internal"}


class Item(Base):
    """Something to recommend. It has a vector once the worker has encoded its text."""

    __tablename__ = "items"

    item_id: Mapped[Key[str]]
    domain: Mapped[Filled[str]]
    title: Mapped[Filled[str]]
    body: Mapped[Filled[str]]
    attributes: Mapped[Filled[dict[str, Any]]]
    tags: Mapped[Filled[list[str]]]
    available: Mapped[Filled[bool]]
    created_at: Mapped[Filled[datetime]]
    updated_at: Mapped[Filled[datetime]] = mapped_column(onupdate=sa.func.now())
    content_hash: Mapped[Filled[bytes]] = mapped_column(server_onupdate=sa.FetchedValue())
    encoded_hash: Mapped[bytes | None]
    stale: Mapped[Filled[bool]] = mapped_column(server_onupdate=sa.FetchedValue())
    encode_error: Mapped[str | None]

    vector: Mapped["ItemVector | None"] = relationship(back_populates="item", viewonly=True)


class ItemVector(Base):
    """The vector of an item, written by the worker; `embedding` has an HNSW index for cosine."""

    __tablename__ = "item_vectors"

    item_id: Mapped[str] = mapped_column(
        sa.ForeignKey("rec.items.item_id", ondelete="CASCADE"), primary_key=True
    )
    embedding: Mapped[UnitVector]

    item: Mapped[Item] = relationship(back_populates="vector", viewonly=True)


class EventKind(Base):
    """A kind of event; a value v, such as a rating, scales its weight by (v - neutral) / scale."""

    __tablename__ = "event_kinds"

    kind: Mapped[Key[str]]
    weight: Mapped[float]
    marks_seen: Mapped[Filled[bool]]
    neutral: Mapped[float | None]
    scale: Mapped[float | None]


class Horizon(Base):
    """A half-life of interest and its weight in the mix."""

    __tablename__ = "horizons"

    horizon: Mapped[Key[str]]
    half_life: Mapped[timedelta]
    weight: Mapped[float]


class Event(Base):
    """
    What a user did with an item, a text, or both. The log is append-only.

    To undo an event use `Client.undo`: a folded row cannot be changed or deleted. An event of a
    paused user is not stored: flushing such an object is an error, while `Client.track` and
    `insert(Event)` skip it.
    """

    __tablename__ = "events"

    user_id: Mapped[Key[str]]
    occurred_at: Mapped[Filled[datetime]] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(
        sa.BigInteger, sa.Identity(always=True), primary_key=True, insert_sentinel=True
    )
    item_id: Mapped[str | None]
    kind: Mapped[Filled[str]]
    text: Mapped[str | None]
    text_hash: Mapped[bytes | None] = mapped_column(server_default=sa.FetchedValue())
    value: Mapped[float | None]
    dedupe_key: Mapped[str | None]
    received_at: Mapped[Filled[datetime]]

    item: Mapped[Item | None] = relationship(
        primaryjoin=lambda: foreign(Event.item_id) == Item.item_id, viewonly=True
    )


class Pending(Base):
    """A committed event that is not yet folded into the stored interests."""

    __tablename__ = "pending"
    __table_args__ = INTERNAL

    user_id: Mapped[Key[str]]
    event_id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    occurred_at: Mapped[datetime]
    has_text: Mapped[bool]
    enqueued_at: Mapped[Filled[datetime]]
    attempts: Mapped[Filled[int]] = mapped_column(sa.SmallInteger)
    retry_at: Mapped[Filled[datetime]] = mapped_column(FiniteTime)
    error: Mapped[str | None]


class UserInterest(Base):
    """The sums of a user's decayed event vectors and of their absolute weights, as of `as_of`."""

    __tablename__ = "user_interests"

    user_id: Mapped[Key[str]]
    horizon: Mapped[Key[str]]
    interest: Mapped[SumVector]
    mass: Mapped[float]
    as_of: Mapped[datetime]


class ItemDelta(Base):
    """
    What an event adds to the shared counts; a row stays until it is merged.

    The event adds `amount` to the `Popularity` of its item, and `step` / distance to the
    `ItemTransition` from each of `from_items`, the last of which is the nearest.
    """

    __tablename__ = "item_deltas"
    __table_args__ = INTERNAL

    user_id: Mapped[Key[str]]
    delta_id: Mapped[int] = mapped_column(
        sa.BigInteger, sa.Identity(always=True), primary_key=True, insert_sentinel=True
    )
    to_item: Mapped[str]
    amount: Mapped[float]
    from_items: Mapped[list[str]] = mapped_column(sa.ARRAY(sa.Text), server_default="{}")
    step: Mapped[float] = mapped_column(server_default="1")
    at: Mapped[datetime]


class Popularity(Base):
    """The decayed weight of an item's events, as log2(mass) + seconds since 1970 / half-life."""

    __tablename__ = "popularity"
    __table_args__ = INTERNAL

    item_id: Mapped[Key[str]]
    log_mass: Mapped[float]
    log_outgoing: Mapped[float | None]
    log_incoming: Mapped[float | None]


class ItemTransition(Base):
    """How often users went from one item to another, in the form of `Popularity.log_mass`."""

    __tablename__ = "item_transitions"
    __table_args__ = INTERNAL

    from_item: Mapped[Key[str]]
    to_item: Mapped[Key[str]]
    log_mass: Mapped[float]


class Text(Base):
    """The vector of an event's text, keyed by the sha256 of the text."""

    __tablename__ = "texts"
    __table_args__ = INTERNAL

    text_hash: Mapped[Key[bytes]]
    embedding: Mapped[UnitVector]


class Encoder(Base):
    """An encoder that this database has used; its vectors are those of the active one."""

    __tablename__ = "encoders"
    __table_args__ = INTERNAL

    fingerprint: Mapped[Key[str]]
    name: Mapped[str]
    record: Mapped[dict[str, Any]]
    dims: Mapped[int]
    active: Mapped[Filled[bool]]
    created_at: Mapped[Filled[datetime]]
    base: Mapped[str | None]
    calibration: Mapped[bytes | None]


class Ranker(Base):
    """A named set of weights and limits for making lists; CHECKs enforce their ranges."""

    __tablename__ = "rankers"

    ranker: Mapped[Filled[str]] = mapped_column(primary_key=True)
    content_weight: Mapped[Filled[float]]
    latest_weight: Mapped[Filled[float]]
    closest_weight: Mapped[Filled[float]]
    transition_weight: Mapped[Filled[float]]
    together_weight: Mapped[Filled[float]]
    trend_weight: Mapped[Filled[float]]
    newness_weight: Mapped[Filled[float]]
    repeat_weight: Mapped[Filled[float]]
    aversion_weight: Mapped[Filled[float]]
    session_weight: Mapped[Filled[float]]
    session_half_life: Mapped[Filled[timedelta]]
    latest_items: Mapped[Filled[int]]
    latest_decay: Mapped[Filled[float]]
    transition_prior: Mapped[Filled[float]]
    topics: Mapped[Filled[int]]
    topic_events: Mapped[Filled[int]]
    topic_similarity: Mapped[Filled[float]]
    candidates: Mapped[Filled[int]]
    ef_search: Mapped[Filled[int]]
    exact_limit: Mapped[Filled[int]]
    reranked: Mapped[Filled[int]]
    diversity: Mapped[Filled[float]]
    balance: Mapped[Filled[float]]
    exploration: Mapped[Filled[float]]


class DeploymentSettings(Base):
    """What this database counts, keeps and publishes, in one row."""

    __tablename__ = "settings"

    singleton: Mapped[Filled[bool]] = mapped_column(primary_key=True)
    popularity_half_life: Mapped[Filled[timedelta]]
    transition_half_life: Mapped[Filled[timedelta]]
    transition_window: Mapped[Filled[int]]
    max_attempts: Mapped[Filled[int]] = mapped_column(sa.SmallInteger)
    keep_text: Mapped[Filled[bool]]
    events_kept: Mapped[timedelta | None]
    keep_interests: Mapped[Filled[bool]]
    minimum_cohort: Mapped[Filled[int]]
    privacy_budget: Mapped[Filled[float]]


class State(Base):
    """The software's notes about itself, in one row."""

    __tablename__ = "state"
    __table_args__ = INTERNAL

    singleton: Mapped[Filled[bool]] = mapped_column(primary_key=True)
    sql_digest: Mapped[str | None]
    recount: Mapped[Filled[bool]]


class Made(Base):
    """An object created by the last run of `sql/`; a run that does not create it again drops it."""

    __tablename__ = "made"
    __table_args__ = INTERNAL

    kind: Mapped[Key[str]]
    signature: Mapped[Key[str]]


class Tuning(Base):
    """A run of tuning: the settings of a ranker before and after it, and the figures of both."""

    __tablename__ = "tunings"

    tuning_id: Mapped[Filled[int]] = mapped_column(sa.BigInteger, primary_key=True)
    ranker: Mapped[str]
    tuned_at: Mapped[Filled[datetime]]
    before: Mapped[dict[str, Any]]
    after: Mapped[dict[str, Any]]
    figures: Mapped[dict[str, Any]]
    adopted: Mapped[bool]
    undone_at: Mapped[datetime | None]


class Erasure(Base):
    """An erasure, and when a vacuum cleared its deleted rows; the erased user is not recorded."""

    __tablename__ = "erasures"
    __table_args__ = INTERNAL

    erasure_id: Mapped[Filled[int]] = mapped_column(sa.BigInteger, primary_key=True)
    erased_at: Mapped[Filled[datetime]]
    cleared_at: Mapped[datetime | None]


class PausedUser(Base):
    """A user whose events are not stored, however they arrive."""

    __tablename__ = "paused_users"
    __table_args__ = INTERNAL

    user_id: Mapped[Key[str]]
    paused_at: Mapped[Filled[datetime]]


class Admissions(Base):
    """How often a pause or `events_kept` was set, in one row."""

    __tablename__ = "admissions"
    __table_args__ = INTERNAL

    singleton: Mapped[Filled[bool]] = mapped_column(primary_key=True)
    changes: Mapped[Filled[int]] = mapped_column(sa.BigInteger)


class DedupeKey(Base):
    """A dedupe key that a user has used, and the event that came with it first."""

    __tablename__ = "dedupe_keys"
    __table_args__ = INTERNAL

    user_id: Mapped[Key[str]]
    dedupe_key: Mapped[Key[str]]
    event_id: Mapped[int] = mapped_column(sa.BigInteger)


class InterestBase(Base):
    """The part of a `UserInterest` whose events were dropped from the log."""

    __tablename__ = "interest_bases"
    __table_args__ = INTERNAL

    user_id: Mapped[Key[str]]
    horizon: Mapped[Key[str]]
    interest: Mapped[SumVector]
    mass: Mapped[float]
    as_of: Mapped[datetime]


class Release(Base):
    """Published counts with noise, and what they cost of the privacy budget."""

    __tablename__ = "releases"

    release_id: Mapped[Filled[int]] = mapped_column(sa.BigInteger, primary_key=True)
    released_at: Mapped[Filled[datetime]]
    question: Mapped[dict[str, Any]]
    epsilon: Mapped[float]
    answer: Mapped[dict[str, Any]]


class EventVector(Base):
    """View: an event with its weight and vector; each is None while unknown or not encoded."""

    __tablename__ = "event_vectors"
    __table_args__ = INTERNAL

    user_id: Mapped[Key[str]]
    occurred_at: Mapped[Key[datetime]]
    event_id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    at: Mapped[datetime]
    item_id: Mapped[str | None]
    kind: Mapped[str]
    text: Mapped[str | None]
    weight: Mapped[float | None]
    embedding: Mapped[SumVector | None]
    chosen: Mapped[bool | None]


class Parked(Base):
    """View: an event that could not be folded, and why."""

    __tablename__ = "parked"

    user_id: Mapped[Key[str]]
    occurred_at: Mapped[Key[datetime]]
    event_id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    kind: Mapped[str]
    item_id: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(sa.SmallInteger)
    error: Mapped[str]


erasure_status = sa.Table(
    "erasure_status",
    Base.metadata,
    sa.Column("erasure_id", sa.BigInteger, nullable=False),
    sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("cleared_at", sa.DateTime(timezone=True)),
    sa.Column("state", sa.Text, nullable=False),
)
COUNTS = (
    *("items", "items_to_encode", "items_failed", "events", "users", "texts"),
    *("pending", "parked", "deltas", "workers"),
)
# A table, not a class: a row of figures has no identity for a session to track.
status = sa.Table(
    "status",
    Base.metadata,
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
    sa.Column("lag_seconds", sa.Double, nullable=False),
    sa.Column("encoder", sa.Text),
    sa.Column("fingerprint", sa.Text),
)
