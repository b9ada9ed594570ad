"""The Python client, called with whatever Python can make: an answer, or an error of ours."""

from __future__ import annotations

import inspect
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from rec_pkg import Client, queries
from rec_pkg.errors import BadInput, RecError
from tests.support.hostile_input import ITEMS, USERS, beyond_text, contents, hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypothesis.strategies import SearchStrategy

    from tests.support.hostile_input import Connection

CIRCLE: Final[dict[str, Any]] = {}
CIRCLE["again"] = CIRCLE
WELL: Final[dict[str, Any]] = {}
for _ in range(5000):
    WELL = {"deeper": WELL}  # type: ignore[misc]
ANYTHING: Final = st.one_of(
    st.none(),
    beyond_text,
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.sampled_from(
        [b"bytes", Decimal("NaN"), Decimal("1e400"), UUID(int=1), object(), {1, 2}, (), date.min]
    ),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(beyond_text, beyond_text, max_size=2),
    st.datetimes(),
)
MOMENTS: Final = st.one_of(
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from(
        [
            datetime.min.replace(tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
            datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        ]
    ),
)
LIKELY: Final[dict[str, SearchStrategy[Any]]] = {
    "user_id": st.sampled_from(USERS),
    "item_id": st.sampled_from(ITEMS),
    "item_ids": st.lists(st.sampled_from(ITEMS) | beyond_text, max_size=3),
    "ranker": st.sampled_from(["default", "nobody's"]),
    "kind": st.sampled_from(["click", "rating"]),
    "text": beyond_text,
    "value": st.floats(),
    "dedupe_key": beyond_text,
    "event_id": st.integers(0, 50),
    "k": st.integers(-1, 20) | st.just(10**6),
    "domain": st.sampled_from(["d0", "d1"]),
    "filter": st.sampled_from([{}, {"brand": "Nord"}, {"n": float("nan")}, {1: 2}, CIRCLE, WELL]),
    "exclude_seen": st.booleans(),
    "full": st.booleans(),
    "patience_s": st.just(0.0),
    "diversity": st.floats(0, 1) | st.floats(),
    "seed": st.integers(),
    "occurred_at": MOMENTS,
    "as_of": MOMENTS,
}
CALLS: Final = [
    name
    for name, method in vars(Client).items()
    if inspect.isfunction(method) and not name.startswith("_") and name != "close"
]


@pytest.fixture(scope="module")
def engine(db: Connection) -> Iterator[sa.Engine]:
    url = sa.make_url("postgresql+psycopg://").update_query_dict(
        {"host": db.info.host, "dbname": db.info.dbname, "user": db.info.user}
    )
    engine = sa.create_engine(url.set(port=db.info.port))
    yield engine
    engine.dispose()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_answers_or_raises_an_error_of_ours_and_then_writes_nothing(
    engine: sa.Engine, db: Connection, pytestconfig: pytest.Config, name: str
) -> None:
    parameters = [*inspect.signature(getattr(Client, name)).parameters.values()][1:]
    before = contents(db)

    def keeps_to_our_errors(arguments: dict[str, Any]) -> None:
        with Session(engine) as session:
            try:
                getattr(Client.on(session), name)(**arguments)
            except RecError:
                session.rollback()
                return
            assert session.in_transaction()
            session.rollback()

    hold(pytestconfig, keeps_to_our_errors, calls(parameters), quick=40, full=600)
    assert contents(db) == before


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.recommend(b"u0"),
        lambda c: c.recommend(["u0"]),
        lambda c: c.recommend(7),
        lambda c: c.recommend("u0", filter=CIRCLE),
        lambda c: c.recommend("u0", filter=WELL),
        lambda c: c.recommend("u0", filter={"a": "\0"}),
        lambda c: c.recommend("u0", filter={"a": float("nan")}),
        lambda c: c.recommend("u0", 2.5),
        lambda c: c.recommend("u0", as_of="yesterday"),
        lambda c: c.recommend("u0", as_of=date(2026, 1, 1)),
        lambda c: c.recommend("u0", diversity="much"),
        lambda c: c.recommend("u0", seed=2**40),
        lambda c: c.track("u0", "i1", kind="x" * 2000),
        lambda c: c.track("u0", "i1", value="five"),
        lambda c: c.track("u0", "x" * 2000),
        lambda c: c.track("u0", text=7),
        lambda c: c.undo("u0", "first"),
        lambda c: c.undo("u0", Decimal("NaN")),
        lambda c: c.undo("u0", event_id=True),
        lambda c: c.popular(domain=object()),
    ],
)
def test_what_is_of_the_wrong_type_is_bad_input_before_it_is_sent(
    engine: sa.Engine, call: Callable[[Client], object]
) -> None:
    with pytest.raises(BadInput) as refused:
        call(Client(engine))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("exclude", [7, "i1", b"i1", [7], [None]])
def test_what_is_excluded_is_a_list_of_ids(exclude: Any) -> None:  # noqa: ANN401  # the point
    with pytest.raises(BadInput):
        queries.popular(exclude=exclude)


def calls(parameters: list[inspect.Parameter]) -> SearchStrategy[dict[str, Any]]:
    """Arguments of a call, two thirds of them likely ones; those with a default may be left out."""
    needed: dict[str, SearchStrategy[Any]] = {}
    optional: dict[str, SearchStrategy[Any]] = {}
    for parameter in parameters:
        values = st.one_of(LIKELY[parameter.name], LIKELY[parameter.name], ANYTHING)
        is_optional = parameter.default is not parameter.empty
        (optional if is_optional else needed)[parameter.name] = values
    return st.fixed_dictionaries(needed, optional=optional)
