"""Why the items of a list have their scores, all of them at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa

from rec_pkg import queries
from rec_pkg.client import Client
from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.engine import Engine

    Connection = psycopg.Connection[tuple[Any, ...]]

ITEMS: Final = ["n", "c", "a", "x", "d", "b"]
MOMENTS: Final = ["null", "now() - interval '35 minutes'", "now() - interval '45 minutes'"]
SHARE: Final = "term, share, event_id, occurred_at, kind, item_id, title, text"


@pytest.fixture(params=["default", "even"])
def ranker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shop(varied: Connection) -> Connection:
    """The varied shop; ann said something, too, and has an event that is not folded."""
    varied.execute(
        "insert into rec.events (user_id, kind, text, occurred_at)"
        " values ('ann', 'search', 'sea', now() - interval '50 minutes')"
    )
    varied.execute(
        "insert into rec_internal.texts values (rec_internal.content_hash('sea'),"
        " array_prepend(0.5, array_fill(-0.02, array[383]))::vector::halfvec)"
    )
    return varied


@pytest.mark.parametrize("as_of", MOMENTS)
def test_it_is_what_rec_explain_says_of_each_item(
    shop: Connection, ranker: str, as_of: str
) -> None:
    with shop.transaction():  # in which now() stands still
        together = shop.execute(
            f"select explained_item, {SHARE} from rec.explain_list('ann', %s, {as_of}, %s)",
            [ITEMS, ranker],
        ).fetchall()
        for item in ITEMS:
            alone = shop.execute(
                f"select {SHARE} from rec.explain('ann', %s, {as_of}, %s)", [item, ranker]
            ).fetchall()
            assert [row[1] for row in alone] == sorted((row[1] for row in alone), reverse=True)
            found = [row[1:] for row in together if row[0] == item]
            assert by_cause(found) == by_cause(alone), item
    assert [row[0] for row in together] == sorted(row[0] for row in together)


def by_cause(shares: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], Any]:
    """Shares by all else that is told of them."""
    found = {(term, *cause): pytest.approx(share) for term, share, *cause in shares}
    assert len(found) == len(shares)
    return found


@pytest.mark.parametrize("as_of", MOMENTS)
def test_the_shares_of_an_item_add_up_to_its_score(
    shop: Connection, ranker: str, as_of: str
) -> None:
    rows = shop.execute(
        "select s.item_id, s.score, coalesce(e.total, 0), e.shares"
        f" from rec.score('ann', %(items)s, {as_of}, %(ranker)s) s left join ("
        "  select explained_item, sum(share) as total, count(*) as shares"
        f"  from rec.explain_list('ann', %(items)s, {as_of}, %(ranker)s) group by 1"
        " ) e on e.explained_item = s.item_id",
        {"items": ITEMS, "ranker": ranker},
    ).fetchall()
    assert len(rows) == len(ITEMS)
    assert [row[2] for row in rows] == pytest.approx([row[1] for row in rows], abs=1e-5)
    assert max(row[3] or 0 for row in rows) > 3


def test_an_item_without_a_vector_has_the_shares_that_need_none(shop: Connection) -> None:
    shop.execute("select rec.track('bob', 'x')")
    call = "select distinct term from rec.explain_list('ann', '{x}', p_ranker => 'even')"
    assert shop.execute(call).fetchall() == [("newness",)]


def test_what_is_unknown_null_or_twice_in_the_list_does_no_harm(shop: Connection) -> None:
    call = "select explained_item, term, share from rec.explain_list('ann', %s) order by 1, 2, 3"
    with shop.transaction():
        once = shop.execute(call, [["a", "c"]]).fetchall()
        assert once
        odd = ["c", "a", "a", None, "nowhere", "c", None]
        assert shop.execute(call, [odd]).fetchall() == once
    for nothing in ([], [None], ["nowhere"], None):
        assert shop.execute(call, [nothing]).fetchall() == []


def test_nothing_speaks_for_a_stranger_but_what_is_common(shop: Connection) -> None:
    call = "select distinct term from rec.explain_list('a stranger', %s, p_ranker => 'even')"
    assert set(shop.execute(call, [ITEMS]).fetchall()) == {("trend",), ("newness",)}


def test_the_client_explains_a_list(shop: Connection, database_url: str) -> None:
    del shop
    items = ["c", "a", "nowhere"]
    with Client(database_url) as client:
        told = client.explain_list("ann", items)
        assert list(told) == items, "in the order in which they were asked for"
        assert told["nowhere"] == []
        for item in ("a", "c"):
            alone = client.explain("ann", item)
            assert [s.share for s in told[item]] == pytest.approx(
                [s.share for s in alone], abs=1e-4
            )
            assert [s.event_id for s in told[item]] == [s.event_id for s in alone]
        then = datetime.now(UTC) - timedelta(minutes=35)
        assert client.explain_list("ann", ["c"], then)["c"] != told["c"]
        for wrong in ("c", [7], 7):
            with pytest.raises(BadInput):
                client.explain_list("ann", wrong)  # type: ignore[arg-type]  # the point


def test_the_shares_of_a_list_are_a_selectable(shop: Connection, engine: Engine) -> None:
    del shop
    shares = queries.explain_list("ann", ["a", "c"])
    totals = sa.select(shares.c.explained_item, sa.func.sum(shares.c.share)).group_by(
        shares.c.explained_item
    )
    with engine.connect() as connection:
        rows = connection.execute(totals).all()
        assert {row[0] for row in rows} == {"a", "c"}
