"""The models: a true picture of the migrated schema, with which a session can read and write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, configure_mappers, selectinload

from rec_pkg.models import (
    Base,
    DeploymentSettings,
    Event,
    EventVector,
    Horizon,
    Item,
    ItemVector,
    Parked,
    Pending,
    Popularity,
    Ranker,
    Text,
    UserInterest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from sqlalchemy.engine.interfaces import ReflectedColumn

    Db = psycopg.Connection[tuple[Any, ...]]

pytestmark = pytest.mark.clock

DIMS = 384
VIEWS = {"rec.status", "rec.erasure_status", "rec.parked", "rec_internal.event_vectors"}
UNIT = [1.0] + [0.0] * (DIMS - 1)


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def _sql_type(type_: sa.types.TypeEngine[Any]) -> str:
    """Return a type's name in SQL; the models leave the length of vectors open."""
    name = type_.compile(sa.make_url("postgresql+psycopg://").get_dialect()())
    return name.partition("(")[0] if "VEC" in name else name


def _in_models(table: sa.Table) -> dict[str, tuple[str, bool]]:
    return {column.name: (_sql_type(column.type), bool(column.nullable)) for column in table.c}


def _in_database(columns: list[ReflectedColumn]) -> dict[str, tuple[str, bool]]:
    return {column["name"]: (_sql_type(column["type"]), column["nullable"]) for column in columns}


@pytest.mark.parametrize("name", sorted(set(Base.metadata.tables) - VIEWS))
def test_a_table_has_the_columns_types_and_keys_of_its_model(name: str, engine: sa.Engine) -> None:
    table = Base.metadata.tables[name]
    found = sa.inspect(engine)
    assert _in_models(table) == _in_database(found.get_columns(table.name, table.schema))
    key = found.get_pk_constraint(table.name, table.schema)["constrained_columns"]
    assert [column.name for column in table.primary_key] == key


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_a_view_has_the_columns_and_types_of_its_model(name: str, engine: sa.Engine) -> None:
    table = Base.metadata.tables[name]
    found = sa.inspect(engine)
    assert table.name in found.get_view_names(table.schema)
    modelled, present = _in_models(table), _in_database(found.get_columns(table.name, table.schema))
    assert {n: kind for n, (kind, _) in modelled.items()} == {
        n: kind for n, (kind, _) in present.items()
    }


def test_every_table_has_a_model(engine: sa.Engine) -> None:
    found = sa.inspect(engine)
    tables = {
        f"{schema}.{name}"
        for schema in ("rec", "rec_internal")
        for name in found.get_table_names(schema)
    }
    partitions = {name for name in tables if name.startswith("rec_internal.events_")}
    modelled = set(Base.metadata.tables) - VIEWS
    assert tables - partitions - {"rec_internal.alembic_version"} == modelled


def test_every_column_with_a_default_of_the_database_may_be_left_out(engine: sa.Engine) -> None:
    configure_mappers()
    found = sa.inspect(engine)
    for name in sorted(set(Base.metadata.tables) - VIEWS):
        table = Base.metadata.tables[name]
        for column in found.get_columns(table.name, table.schema):
            made = column["default"] or column.get("identity") or column.get("computed")
            default = table.c[column["name"]].server_default
            assert bool(made) <= (default is not None), (name, column["name"])


def test_an_item_needs_no_more_than_an_id(session: Session) -> None:
    item = Item(item_id="shirt", title="A shirt")
    session.add(item)
    session.flush()
    assert (item.domain, item.body, item.attributes, item.tags) == ("default", "", {}, [])
    assert item.available
    assert len(item.content_hash) == 32
    assert item.stale
    assert item.created_at.tzinfo is not None


def test_a_changed_item_has_another_hash_and_a_later_time(session: Session) -> None:
    item = Item(item_id="shirt", attributes={"price": 10}, tags=["new"])
    session.add(item)
    session.commit()
    before = (item.content_hash, item.updated_at)
    item.attributes["price"] = 20
    item.tags.append("sale")
    session.commit()
    assert item.content_hash != before[0]
    assert item.updated_at > before[1]
    session.expire_all()
    assert (item.attributes, item.tags) == ({"price": 20}, ["new", "sale"])


def test_an_event_needs_a_user_and_an_item_and_knows_its_id(session: Session) -> None:
    event = Event(user_id="ada", item_id="shirt")
    session.add(event)
    session.commit()
    assert event.event_id > 0
    assert (event.kind, event.text_hash) == ("click", None)
    assert abs(datetime.now(UTC) - event.occurred_at) < timedelta(minutes=1)
    key = (event.user_id, event.occurred_at, event.event_id)
    session.expunge_all()
    assert session.get_one(Event, key).item_id == "shirt"


def test_the_hash_of_a_text_comes_back(session: Session) -> None:
    event = Event(user_id="ada", text="warm jumper", kind="search")
    session.add(event)
    session.flush()
    assert event.text_hash is not None
    assert len(event.text_hash) == 32


def test_many_events_go_in_with_one_statement_and_keep_their_ids_apart(
    session: Session, engine: sa.Engine
) -> None:
    asked: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    events = [Event(user_id="ada", item_id=f"item{n}", occurred_at=moment) for n in range(100)]
    session.add_all(events)
    session.flush()
    assert sum("INSERT INTO rec.events" in statement for statement in asked) == 1
    written = {
        row.event_id: row.item_id
        for row in session.execute(sa.select(Event.event_id, Event.item_id))
    }
    assert {event.event_id: event.item_id for event in events} == written


def test_an_item_knows_its_vector_and_an_event_its_item(session: Session) -> None:
    session.add(Item(item_id="shirt"))
    session.flush()
    session.add_all(
        [
            ItemVector(item_id="shirt", embedding=UNIT),
            Event(user_id="ada", item_id="shirt"),
            Event(user_id="ada", item_id="not there yet"),
        ]
    )
    session.commit()
    events = session.scalars(
        sa.select(Event).order_by(Event.event_id).options(selectinload(Event.item))
    ).all()
    assert [event.item and event.item.item_id for event in events] == ["shirt", None]
    item = session.get_one(Item, "shirt")
    assert item.vector is not None
    assert item.vector.embedding == UNIT
    assert item.vector.item is item


def test_a_deleted_item_takes_its_vector_along(session: Session) -> None:
    session.add(Item(item_id="shirt"))
    session.flush()
    session.add(ItemVector(item_id="shirt", embedding=UNIT))
    session.commit()
    item = session.get_one(Item, "shirt")
    assert item.vector is not None
    session.delete(item)
    session.commit()
    assert session.scalars(sa.select(ItemVector)).all() == []


def test_queued_parked_and_folded_events_can_be_read(session: Session) -> None:
    session.add(Item(item_id="shirt"))
    session.flush()
    session.add(ItemVector(item_id="shirt", embedding=UNIT))
    session.add_all(
        [
            Event(user_id="ada", item_id="shirt"),
            Event(user_id="ada", item_id="unknown"),
        ]
    )
    session.flush()
    assert {row.retry_at.year for row in session.scalars(sa.select(Pending))} == {1}
    session.execute(sa.select(sa.func.rec.apply_pending()))
    session.execute(sa.select(sa.func.rec.merge_deltas()))
    session.expire_all()
    parked = session.scalars(sa.select(Parked)).one()
    assert (parked.item_id, parked.error) == ("unknown", "unknown item 'unknown'")
    assert session.scalars(sa.select(Pending)).one().retry_at.year == 9999
    interests = session.scalars(sa.select(UserInterest)).all()
    assert {row.horizon for row in interests} == {"short", "long"}
    assert interests[0].interest == UNIT
    assert session.get_one(Popularity, "shirt").log_mass > 0
    vectors = session.scalars(sa.select(EventVector).order_by(EventVector.event_id)).all()
    assert [row.embedding for row in vectors] == [UNIT, None]


def test_infinite_times_of_the_queue_can_be_compared_as_they_are(session: Session) -> None:
    session.add(Event(user_id="ada", item_id="shirt"))
    session.flush()
    due = sa.select(Pending.event_id).where(Pending.retry_at <= sa.func.now())
    assert len(session.scalars(due).all()) == 1


def test_the_settings_and_the_horizons_can_be_changed(session: Session) -> None:
    settings = session.scalars(sa.select(DeploymentSettings)).one()
    ranker = session.get_one(Ranker, "default")
    ranker.diversity = 0.5
    settings.popularity_half_life = timedelta(days=1)
    session.get_one(Horizon, "short").half_life = timedelta(minutes=30)
    session.commit()
    assert (ranker.diversity, settings.popularity_half_life) == (0.5, timedelta(days=1))
    ranker.diversity = 2
    with pytest.raises(sa.exc.IntegrityError, match="diversity"):
        session.flush()


def test_items_sort_by_their_distance_to_a_text(session: Session) -> None:
    other = [0.0, *UNIT[:-1]]
    session.add_all([Item(item_id="near"), Item(item_id="far")])
    session.flush()
    session.add_all(
        [
            ItemVector(item_id="near", embedding=UNIT),
            ItemVector(item_id="far", embedding=other),
            Text(text_hash=b"x" * 32, embedding=UNIT),
        ]
    )
    session.flush()
    text = sa.select(Text.embedding).scalar_subquery()
    distance = ItemVector.embedding.cosine_distance(text)
    statement = sa.select(ItemVector.item_id).order_by(distance)
    assert session.scalars(statement).all() == ["near", "far"]
