"""The client: typed calls that join the caller's transaction and fail with errors that say why."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from rec_pkg import (
    BadInput,
    Client,
    DatabaseUnreachable,
    Recommendation,
    SchemaMismatch,
    SchemaMissing,
    UnknownItem,
    explain,
    interest_vector,
    models,
    popular,
    recommend,
    similar_items,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from numpy.typing import NDArray

    Db = psycopg.Connection[tuple[Any, ...]]

pytestmark = pytest.mark.clock

DIMS = 384
TOPICS = {"shirt": 0, "novel": 1, "drill": 2}
SIZE = 4  # items of a topic, in the order of their closeness to the first
STORE = """
    with item as (
        insert into rec.items (item_id, domain, title, attributes) values (%s, %s, %s, %s::jsonb)
        returning item_id
    )
    insert into rec.item_vectors (item_id, embedding) select item_id, %s::vector::halfvec from item
"""


class AppBase(DeclarativeBase):
    """What the application has of its own."""


class Product(AppBase):
    __tablename__ = "products"

    sku: Mapped[str] = mapped_column(primary_key=True)
    price: Mapped[int]


class Visitor(AppBase):
    __tablename__ = "visitors"

    name: Mapped[str] = mapped_column(primary_key=True)


@pytest.fixture
def shop(db: Db) -> None:
    """Three topics of four items each, `shirt0` to `drill3`, all of them encoded."""
    for topic, axis in TOPICS.items():
        for place in range(SIZE):
            values = (f"{topic}{place}", topic, f"The {topic} no. {place}", f'{{"place": {place}}}')
            db.execute(STORE, (*values, _unit(axis, tilt=0.2 * place)))
    db.execute("update rec.items set encoded_hash = content_hash")


@pytest.fixture
def client(engine: sa.Engine, shop: None) -> Client:  # noqa: ARG001  # the client's shop has items
    return Client(engine)


def _unit(axis: int, tilt: float = 0.0) -> NDArray[np.float32]:
    """Return a unit vector along `axis`, tilted towards an axis that no topic has."""
    vector = np.zeros(DIMS, np.float32)
    vector[axis] = 1
    vector[DIMS - 1] = tilt
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _ids(rows: list[Recommendation]) -> list[str]:
    return [row.item_id for row in rows]


@contextmanager
def _open_session(engine: sa.Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@contextmanager
def _open_scoped_session(engine: sa.Engine) -> Iterator[scoped_session[Session]]:
    sessions = scoped_session(sessionmaker(engine))
    yield sessions
    sessions.remove()


@contextmanager
def _open_connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize("opened", [_open_session, _open_scoped_session, _open_connection])
def test_an_open_transaction_sees_its_own_event_and_a_rollback_leaves_no_trace(
    client: Client, engine: sa.Engine, opened: Callable[[sa.Engine], Any]
) -> None:
    before = client.recommend("ada", 3)
    with opened(engine) as transaction:
        inside = Client.on(transaction)
        inside.track("ada", "shirt0")
        assert _ids(inside.recommend("ada", 3)) == ["shirt1", "shirt2", "shirt3"]
        assert client.recommend("ada", 3) == before
        transaction.rollback()
    assert client.recommend("ada", 3) == before
    assert (client.status().events, client.status().pending) == (0, 0)


def test_an_object_that_a_session_has_not_flushed_yet_counts(
    client: Client, engine: sa.Engine
) -> None:
    with Session(engine) as session:
        session.add(models.Event(user_id="ada", item_id="novel0"))
        assert _ids(Client.on(session).recommend("ada", 1)) == ["novel1"]
    assert client.status().events == 0


def test_a_committed_click_changes_the_very_next_list(client: Client) -> None:
    client.track("ada", "shirt0")
    assert _ids(client.recommend("ada", 1)) == ["shirt1"]
    client.track("ada", "drill0", kind="purchase")
    assert _ids(client.recommend("ada", 1)) == ["drill1"]


def test_a_recommendation_says_what_it_is_and_how_it_came_about(client: Client) -> None:
    client.track("ada", "shirt0")
    first = client.recommend("ada", 1)[0]
    cosine = float(_unit(0) @ _unit(0, tilt=0.2))
    assert asdict(first) == {
        "rank": 1,
        "item_id": "shirt1",
        "title": "The shirt no. 1",
        "domain": "shirt",
        "score": pytest.approx(1.5 * cosine, abs=1e-3),
        "content": pytest.approx(cosine, abs=1e-3),
        "latest": pytest.approx(cosine, abs=1e-3),
        "closest": pytest.approx(cosine, abs=1e-3),
        "transition": 0.0,
        "together": 0.0,
        "trend": 0.0,
        "newness": pytest.approx(0.5, abs=1e-3),  # in the middle of a visit
        "repeat": 0.0,
        "aversion": 0.0,
        "topic": 1,
        "path": "exact",
    }


def test_a_list_is_as_long_as_asked_and_in_order_of_rank(client: Client) -> None:
    client.track("ada", "shirt0")
    assert [row.rank for row in client.recommend("ada", 11)] == list(range(1, 12))
    assert len(client.recommend("ada", 100)) == len(TOPICS) * SIZE - 1
    assert client.recommend("ada", 0) == []


def test_another_seed_explores_other_items(client: Client, db: Db) -> None:
    db.execute("update rec.rankers set exploration = 1")
    lists = [[row.item_id for row in client.recommend("ada", 5, seed=seed)] for seed in (0, 1, 0)]
    assert lists[0] == lists[2] != lists[1]
    assert {row.path for row in client.recommend("ada", 5)} == {"explore"}
    with pytest.raises(BadInput):
        client.recommend("ada", seed=2**31)


def test_domain_filter_and_seen_items_narrow_the_list(client: Client) -> None:
    client.track("ada", "shirt0")
    assert set(_ids(client.recommend("ada", domain="novel"))) == {f"novel{i}" for i in range(SIZE)}
    assert set(_ids(client.recommend("ada", filter={"place": 2}))) == {f"{t}2" for t in TOPICS}
    assert "shirt0" not in _ids(client.recommend("ada", 12))
    assert "shirt0" in _ids(client.recommend("ada", 12, exclude_seen=False))


def test_the_shares_of_an_explanation_add_up_to_the_score(client: Client) -> None:
    clicked = client.track("ada", "shirt0", occurred_at=datetime.now(UTC) - timedelta(days=2))
    client.track("ada", "novel0")
    client.track("ada", "drill0", kind="dislike")
    scores = {row.item_id: row.score for row in client.recommend("ada", 12)}
    shares = client.explain("ada", "shirt1")
    assert sum(share.share for share in shares) == pytest.approx(scores["shirt1"], abs=1e-5)
    assert shares == sorted(shares, key=lambda share: -share.share)
    best = shares[0]
    assert (best.term, best.event_id, best.kind) == ("event", clicked, "click")
    assert (best.item_id, best.title) == ("shirt0", "The shirt no. 0")


def test_an_item_of_which_nothing_speaks_has_an_empty_explanation(client: Client) -> None:
    assert client.explain("nobody", "shirt1") == []
    with pytest.raises(UnknownItem, match="shirt9"):
        client.explain("nobody", "shirt9")


def test_interest_comes_as_arrays_now_and_as_of_the_past(client: Client) -> None:
    now = datetime.now(UTC)
    client.track("ada", "novel0", occurred_at=now - timedelta(days=1))
    client.track("ada", "shirt0")
    short, long = client.interest("ada")
    assert (short.horizon, long.horizon) == ("short", "long")
    assert (str(long.vector.dtype), long.vector.shape) == ("float32", (DIMS,))
    assert short.vector @ _unit(0) / np.linalg.norm(short.vector) > 0.99
    assert short.weight + long.weight == pytest.approx(1)
    then = client.interest("ada", as_of=now - timedelta(hours=1))
    assert [row.vector @ _unit(0) for row in then] == [0, 0]
    assert client.interest("nobody") == []


def test_similar_items_come_in_order_and_without_the_item_itself(client: Client) -> None:
    similar = client.similar_items("shirt0", 3)
    assert [(row.rank, row.item_id) for row in similar] == [
        (1, "shirt1"),
        (2, "shirt2"),
        (3, "shirt3"),
    ]
    assert similar[0].title == "The shirt no. 1"
    assert client.similar_items("shirt0", filter={"place": 3}, domain="novel")[0].domain == "novel"
    assert client.similar_items("nothing") == []


def test_popular_items_are_those_with_the_heaviest_events(client: Client, db: Db) -> None:
    client.track("ada", "shirt0")
    client.track("bob", "novel0", kind="purchase")
    db.execute("select rec.apply_pending()")
    db.execute("select rec.merge_deltas()")
    assert [(row.item_id, row.title) for row in client.popular()] == [
        ("novel0", "The novel no. 0"),
        ("shirt0", "The shirt no. 0"),
    ]
    assert client.popular(1)[0].mass == pytest.approx(3, rel=1e-3)
    assert [row.item_id for row in client.popular(domain="shirt")] == ["shirt0"]


def test_an_event_can_carry_all_that_an_event_has(client: Client, engine: sa.Engine) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    given = {"kind": "rating", "text": "fine", "value": 4.5, "dedupe_key": "k"}
    event_id = client.track("ada", "shirt0", occurred_at=moment, **given)  # type: ignore[arg-type]
    with Session(engine) as session:
        event = session.scalars(sa.select(models.Event)).one()
        assert (event.event_id, event.occurred_at, event.item_id) == (event_id, moment, "shirt0")
        assert {name: getattr(event, name) for name in given} == given


def test_a_repeated_dedupe_key_gives_the_first_event(client: Client) -> None:
    first = client.track("ada", "shirt0", dedupe_key="order-1")
    assert client.track("ada", "shirt0", dedupe_key="order-1") == first
    assert client.status().events == 1


def test_an_event_can_be_undone_once(client: Client) -> None:
    client.track("ada", "shirt0")
    before = client.recommend("ada", 3)
    event_id = client.track("ada", "drill0", kind="purchase")
    assert event_id
    assert client.recommend("ada", 3) != before
    assert client.undo("ada", event_id) is True
    assert _ids(client.recommend("ada", 3)) == _ids(before)
    assert client.undo("ada", event_id) is False


def test_a_user_can_see_everything_and_be_forgotten(client: Client) -> None:
    client.track("ada", "shirt0")
    client.track("ada", text="a warm jumper", kind="search")
    exported = client.export("ada")
    assert [event["kind"] for event in exported["events"]] == ["click", "search"]
    assert client.forget("ada") == 2
    assert client.export("ada")["events"] == []
    assert client.interest("ada") == []


def test_a_rebuilt_interest_equals_the_folded_one(client: Client, db: Db) -> None:
    for item in ("shirt0", "novel0", "shirt1"):
        client.track("ada", item)
    db.execute("select rec.apply_pending()")
    folded = client.interest("ada")
    assert client.rebuild("ada") == 3
    for before, after in zip(folded, client.interest("ada"), strict=True):
        np.testing.assert_allclose(after.vector, before.vector, atol=1e-5)


def test_the_status_counts(client: Client) -> None:
    client.track("ada", "shirt0")
    status = client.status()
    assert (status.items, status.items_to_encode, status.events, status.pending) == (12, 0, 1, 1)
    assert status.lag_seconds > 0
    assert status.encoder is None


def test_a_list_joins_with_the_applications_own_class(client: Client, engine: sa.Engine) -> None:
    AppBase.metadata.create_all(engine)
    client.track("ada", "shirt0")
    with Session(engine) as session:
        session.add_all([Product(sku="shirt1", price=20), Product(sku="shirt2", price=90)])
        listed = recommend("ada", 10)
        statement = (
            sa.select(Product, listed.c.rank)
            .join(listed, listed.c.item_id == Product.sku)
            .where(Product.price < 50)
            .order_by(listed.c.rank)
        )
        assert [(product.sku, rank) for product, rank in session.execute(statement)] == [
            ("shirt1", 1)
        ]


def test_every_selectable_joins_with_the_applications_own_class(
    client: Client, engine: sa.Engine, db: Db
) -> None:
    AppBase.metadata.create_all(engine)
    client.track("ada", "shirt0")
    db.execute("select rec.apply_pending()")
    db.execute("select rec.merge_deltas()")
    similar, trend, shares = similar_items("shirt0"), popular(), explain("ada", "shirt1")
    with Session(engine) as session:
        session.add_all([Product(sku="shirt0", price=10), Product(sku="shirt1", price=20)])
        prices = (
            sa.select(Product.price).join(similar, similar.c.item_id == Product.sku),
            sa.select(Product.price).join(trend, trend.c.item_id == Product.sku),
            sa.select(Product.price).join(shares, shares.c.item_id == Product.sku),
        )
        assert [session.scalars(statement).all() for statement in prices] == [[20], [10], [10]]


def test_a_list_can_be_had_for_every_user_of_a_statement(client: Client, engine: sa.Engine) -> None:
    AppBase.metadata.create_all(engine)
    client.track("ada", "shirt0")
    client.track("bob", "novel0")
    with Session(engine) as session:
        session.add_all([Visitor(name="ada"), Visitor(name="bob")])
        listed = recommend(Visitor.name, 1)
        statement = sa.select(Visitor.name, listed.c.item_id).join_from(Visitor, listed, sa.true())
        assert {(row.name, row.item_id) for row in session.execute(statement)} == {
            ("ada", "shirt1"),
            ("bob", "novel1"),
        }


def test_an_interest_vector_orders_items_by_the_index(client: Client, engine: sa.Engine) -> None:
    client.track("ada", "drill0")
    distance = models.ItemVector.embedding.cosine_distance(interest_vector("ada"))
    statement = sa.select(models.ItemVector.item_id).order_by(distance).limit(2)
    compiled = statement.compile(engine)
    with engine.connect() as connection:
        assert connection.scalars(statement).all() == ["drill0", "drill1"]
        connection.execute(sa.text("set local enable_seqscan = off"))
        plan = connection.exec_driver_sql(f"explain {compiled}", compiled.params).scalars().all()
    assert any("item_vectors_hnsw" in line for line in plan)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.recommend("ada", -1),
        lambda c: c.recommend("ada", 10**12),
        lambda c: c.recommend("ada", None),
        lambda c: c.recommend("ada", 2.5),
        lambda c: c.recommend("ada", diversity=1.5),
        lambda c: c.recommend("ada", diversity=float("nan")),
        lambda c: c.recommend("ada", filter=["place"]),
        lambda c: c.recommend("ada", filter={"place": object()}),
        lambda c: c.recommend("ada", filter={"place": "\0"}),
        lambda c: c.recommend("ada", filter={"place": "\ud800"}),
        lambda c: c.recommend("a\0da"),
        lambda c: c.recommend("a\ud800da"),
        lambda c: c.similar_items("shirt0", -1),
        lambda c: c.popular(-1),
        lambda c: c.interest("ada", as_of=datetime(2026, 1, 1)),  # noqa: DTZ001  # that is the point
        lambda c: c.track("ada"),
        lambda c: c.track("", "shirt0"),
        lambda c: c.track("ada", "shirt0", kind="yawn"),
        lambda c: c.track("ada", "shirt0", value=float("inf")),
        lambda c: c.track("ada", text="\0"),
        lambda c: c.track("ada", {"not": "an id"}),
        lambda c: c.undo("ada", 2**70),
    ],
)
def test_what_cannot_be_used_is_refused_as_bad_input(
    client: Client, call: Callable[[Client], object]
) -> None:
    with pytest.raises(BadInput):
        call(client)
    assert client.status().events == 0


def test_bad_input_says_in_one_line_what_is_bad(client: Client) -> None:
    with pytest.raises(
        BadInput,
        match=r"^The input cannot be used. \(unknown event kind 'yawn'. The kinds are .*; insert"
        r" one to make a new kind\)$",
    ):
        client.track("ada", "shirt0", kind="yawn")


def test_an_error_of_the_sessions_own_objects_stays_the_callers(
    client: Client, engine: sa.Engine
) -> None:
    assert client.status().items == 12
    with Session(engine) as session:
        session.add(models.Item(item_id="shirt0"))
        with pytest.raises(sa.exc.IntegrityError):
            Client.on(session).popular()


def test_a_refused_call_can_be_taken_back_to_a_savepoint(client: Client, engine: sa.Engine) -> None:
    with Session(engine) as session:
        inside = Client.on(session)
        inside.track("ada", "shirt0")
        with pytest.raises(BadInput), session.begin_nested():
            inside.track("ada", "shirt0", kind="yawn")
        session.commit()
    assert client.status().events == 1


def test_a_database_without_the_schema_is_told_from_one_of_another_version(
    database_url: str, db: Db
) -> None:
    db.execute("update rec_internal.state set sql_digest = 'another'")
    with Client(database_url) as client, pytest.raises(SchemaMismatch):
        client.status()
    db.execute("drop schema rec, rec_internal cascade")
    with Client(database_url) as client, pytest.raises(SchemaMissing):
        client.status()


def test_a_function_that_went_missing_meanwhile_is_a_missing_schema(client: Client, db: Db) -> None:
    assert client.popular() == []
    db.execute("drop schema rec cascade")
    with pytest.raises(SchemaMissing, match="pgrec migrate"):
        client.popular()


def test_the_schema_is_checked_once_per_connection(client: Client, engine: sa.Engine) -> None:
    asked: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    for _ in range(3):
        client.popular()
    assert sum("sql_digest" in statement for statement in asked) == 1
    assert sum("rec.popular" in statement for statement in asked) == 3


def test_where_no_database_answers_the_error_says_so() -> None:
    with (
        Client("postgresql://nobody@127.0.0.1:1/nothing") as client,
        pytest.raises(DatabaseUnreachable),
    ):
        client.status()


def test_a_connection_that_is_cut_is_unreachable_and_the_next_call_has_a_new_one(
    engine: sa.Engine, client: Client, db: Db
) -> None:
    with engine.connect() as connection:
        inside = Client.on(connection)
        inside.status()
        db.execute("select pg_terminate_backend(%s)", (_backend(connection),))
        with pytest.raises(DatabaseUnreachable):
            inside.status()
    assert client.status().items == 12


def test_a_client_closes_the_engine_that_it_made_and_no_other(
    database_url: str, engine: sa.Engine, db: Db
) -> None:
    url = sa.make_url(database_url).update_query_dict({"application_name": "of_url"})
    with Client(url.render_as_string(hide_password=False)) as client:
        client.status()
        assert _connections(db, "of_url") == 1
    deadline = time.monotonic() + 10
    while _connections(db, "of_url") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _connections(db, "of_url") == 0
    with engine.connect() as connection:
        backend = _backend(connection)
    with Client(engine) as client:
        client.status()
    with engine.connect() as connection:
        assert _backend(connection) == backend


def test_an_error_does_not_repeat_what_the_user_wrote(database_url: str) -> None:
    with Client(database_url) as client, pytest.raises(BadInput) as caught:
        client.track("ada", text="a private matter", kind="yawn")
    assert "private" not in f"{caught.value} {caught.value.__cause__}"


def test_it_works_on_an_async_connection(database_url: str, shop: None) -> None:  # noqa: ARG001
    pytest.importorskip("greenlet")
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415  # needs greenlet

    url = sa.make_url(database_url).set(drivername="postgresql+psycopg")

    async def recommended() -> list[str]:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            await connection.run_sync(lambda c: Client.on(c).track("ada", "shirt0"))
            rows = await connection.run_sync(lambda c: Client.on(c).recommend("ada", 1))
        await engine.dispose()
        return _ids(rows)

    assert asyncio.run(recommended()) == ["shirt1"]


def test_what_is_no_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(BadInput) as caught:
        Client("secret in the wrong place")
    assert "secret" not in str(caught.value)


def _backend(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.pg_backend_pid(type_=sa.Integer()))).scalar_one()


def _connections(db: Db, name: str) -> int:
    counted = "select count(*) from pg_stat_activity where application_name = %s"
    row = db.execute(counted, (name,)).fetchone()
    return int(row[0]) if row else 0
