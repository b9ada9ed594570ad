"""What a list promises: it follows the last event, it is full, it is diverse, and it says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector

from tests.support.shops import fold

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.clock

Connection = psycopg.Connection[tuple[Any, ...]]

DIMS = 384
TOPICS = ("jazz", "chess", "bread", "ferns")
PER_TOPIC = 30


def centre(topic: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    vector = np.zeros(DIMS)
    vector[TOPICS.index(topic)] = 1
    return vector


def add_item(db: Connection, item_id: str, topic: str, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=DIMS) / np.sqrt(DIMS)
    vector = centre(topic) + 0.6 * noise
    db.execute(
        "insert into rec.items (item_id, domain, title, attributes)"
        " values (%s, %s, %s, jsonb_build_object('topic', %s::text, 'even', %s::boolean))",
        [item_id, "odd" if seed % 2 else "even", f"{topic} {seed}", topic, seed % 2 == 0],
    )
    db.execute(
        "insert into rec.item_vectors values (%s, %s)",
        [item_id, HalfVector(vector / np.linalg.norm(vector))],
    )


@pytest.fixture
def shop(db: Connection) -> Connection:
    """Four topics of thirty items each, all encoded: jazz-0 ... ferns-29."""
    for topic in TOPICS:
        for number in range(PER_TOPIC):
            add_item(db, f"{topic}-{number}", topic, TOPICS.index(topic) * 100 + number)
    db.execute("update rec.items set encoded_hash = content_hash")
    return db


def recommend(db: Connection, user: str = "ann", k: int = 10, **options: object) -> list[str]:
    arguments = "".join(f", p_{name} => %({name})s" for name in options)
    rows = db.execute(
        f"select item_id from rec.recommend(%(user)s, %(k)s{arguments}) order by rank",
        {"user": user, "k": k, **options},
    )
    return [row[0] for row in rows]


def click(db: Connection, items: Iterable[str], user: str = "ann", kind: str = "click") -> None:
    for item in items:
        db.execute("select rec.track(%s, %s, %s)", [user, item, kind])


def topics(items: Iterable[str]) -> list[str]:
    return [item.split("-")[0] for item in items]


def test_the_very_next_list_follows_a_click(shop: Connection) -> None:
    click(shop, ["jazz-1"])
    assert topics(recommend(shop, k=5)) == ["jazz"] * 5


def test_a_list_in_the_same_open_transaction_reflects_the_event(
    shop: Connection, database_url: str
) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("select rec.track('ann', 'chess-3')")
        assert topics(recommend(other, k=5)) == ["chess"] * 5
        assert shop.execute("select count(*) from rec.events").fetchone() == (0,)
        other.rollback()


def test_after_a_rollback_nothing_is_left(shop: Connection, database_url: str) -> None:
    before = recommend(shop)
    with psycopg.connect(database_url) as other:
        other.execute("select rec.track('ann', 'chess-3', p_text => 'openings')")
        other.rollback()
        assert recommend(other) == before
    engine = ("rec_internal.pending", "rec_internal.item_deltas", "rec_internal.texts")
    for table in ("rec.events", "rec.user_interests", *engine):
        assert shop.execute(f"select count(*) from {table}").fetchone() == (0,)


def test_folding_does_not_change_the_list(shop: Connection) -> None:
    click(shop, ["jazz-1", "jazz-2", "ferns-5"])
    shop.execute("update rec.rankers set transition_weight = 0, trend_weight = 0")
    pending = recommend(shop)
    fold(shop)
    assert recommend(shop) == pending


def test_seen_items_are_left_out_unless_asked_for(shop: Connection) -> None:
    click(shop, ["jazz-1", "jazz-2"])
    assert not {"jazz-1", "jazz-2"} & set(recommend(shop, k=PER_TOPIC))
    assert {"jazz-1", "jazz-2"} <= set(recommend(shop, k=PER_TOPIC, exclude_seen=False))


def test_a_kind_that_does_not_mark_as_seen_leaves_the_item_in(shop: Connection) -> None:
    shop.execute("insert into rec.event_kinds values ('glance', 1, false)")
    click(shop, ["jazz-1"], kind="glance")
    assert "jazz-1" in recommend(shop)


def test_unavailable_items_do_not_appear(shop: Connection) -> None:
    click(shop, ["jazz-1"])
    first = recommend(shop)[0]
    shop.execute("update rec.items set available = false where item_id = %s", [first])
    assert first not in recommend(shop, k=200)


def test_filters_hold(shop: Connection) -> None:
    click(shop, ["jazz-1"])
    assert all(int(i.split("-")[1]) % 2 == 1 for i in recommend(shop, k=20, domain="odd"))
    listed = recommend(shop, k=20, filter='{"topic": "ferns"}')
    assert topics(listed) == ["ferns"] * 20
    assert recommend(shop, domain="none") == []


@pytest.mark.parametrize("exact_limit", [0, 1000])
@pytest.mark.parametrize("k", [1, 10, 100, 119, 1000])
def test_k_items_come_back_if_k_items_qualify(shop: Connection, k: int, exact_limit: int) -> None:
    shop.execute("update rec.rankers set exact_limit = %s", [exact_limit])
    click(shop, ["jazz-1"])
    listed = recommend(shop, k=k)
    assert len(listed) == len(set(listed)) == min(k, len(TOPICS) * PER_TOPIC - 1)


def test_a_filter_that_leaves_few_items_is_filled_from_all_of_them(shop: Connection) -> None:
    click(shop, ["jazz-1"])
    shop.execute("update rec.rankers set exact_limit = 0, ef_search = 1, candidates = 5")
    shop.execute(
        "update rec.items set attributes = '{\"rare\": true}'"
        " where item_id in ('ferns-1', 'ferns-2')"
    )
    assert set(recommend(shop, filter='{"rare": true}')) == {"ferns-1", "ferns-2"}


def test_the_path_tells_how_an_item_was_found(shop: Connection) -> None:
    click(shop, ["jazz-1"])
    paths = "select distinct path from rec.recommend('ann', 3)"
    assert shop.execute(paths).fetchall() == [("exact",)]
    shop.execute("update rec.rankers set exact_limit = 0")
    assert shop.execute(paths).fetchall() == [("hnsw",)]


def test_three_unrelated_tastes_all_find_their_place(shop: Connection) -> None:
    click(shop, ["jazz-1", "jazz-2", "jazz-3", "chess-1", "chess-2", "bread-1"])
    assert set(topics(recommend(shop, k=12))) == {"jazz", "chess", "bread"}


def test_the_long_interest_stays_visible_beside_the_new_one(shop: Connection) -> None:
    for number in range(4):
        shop.execute(
            "select rec.track('ann', %s, p_occurred_at => now() - interval '10 days')",
            [f"jazz-{number}"],
        )
    fold(shop)
    click(shop, ["bread-1", "bread-2"])
    listed = topics(recommend(shop, k=10))
    assert {"jazz", "bread"} <= set(listed)
    assert listed.count("bread") > listed.count("jazz")


def test_a_dislike_pushes_its_topic_away(shop: Connection) -> None:
    click(shop, ["jazz-1", "bread-1"])
    before = topics(recommend(shop, k=10))
    click(shop, ["bread-2"], kind="dislike")
    after = topics(recommend(shop, k=10))
    assert before.count("bread") > 0
    assert after.count("bread") < before.count("bread")
    assert after[0] == "jazz"


def test_diversity_spreads_the_list(shop: Connection) -> None:
    click(shop, ["jazz-1"])

    def spread(diversity: float) -> float:
        row = shop.execute(
            "with l as (select v.item_id, v.embedding from rec.recommend('ann', 10,"
            " p_diversity => %s) join rec.item_vectors v using (item_id))"
            " select avg(a.embedding <=> b.embedding) from l a join l b on a.item_id < b.item_id",
            [diversity],
        ).fetchone()
        assert row
        return float(row[0])

    assert spread(0) < spread(0.5) < spread(1)


def test_a_new_user_gets_what_is_trending(shop: Connection) -> None:
    for number in range(5):
        click(shop, ["ferns-7"], user=f"user {number}")
    click(shop, ["chess-7"], user="another")
    fold(shop)
    rows = shop.execute("select item_id, path from rec.recommend('stranger', 3)").fetchall()
    assert rows[0] == ("ferns-7", "trend")
    assert ("chess-7", "trend") in rows
    assert len(rows) == 3


def test_without_any_event_the_newest_items_come(shop: Connection) -> None:
    shop.execute(
        "update rec.items set created_at = now() + interval '1 s' where item_id = 'jazz-9'"
    )
    rows = shop.execute("select item_id, path from rec.recommend('stranger', 2)").fetchall()
    assert len(rows) == 2
    assert ("jazz-9", "newest") in rows


def test_an_item_without_a_vector_can_still_be_trending(shop: Connection) -> None:
    shop.execute("insert into rec.items (item_id) values ('bare')")
    assert "bare" in recommend(shop, "stranger", k=200)


def test_what_people_went_on_to_is_found(shop: Connection) -> None:
    for number in range(8):
        click(shop, ["jazz-4", "ferns-4"], user=f"user {number}")
    fold(shop)
    shop.execute("update rec.rankers set transition_weight = 5")
    click(shop, ["jazz-4"])
    assert recommend(shop)[0] == "ferns-4"
    row = shop.execute("select transition from rec.recommend('ann', 1)").fetchone()
    often = (8 / (8 + 5)) ** 0.5  # eight times, prior five
    assert row == (pytest.approx(often * (1 + 0.5), abs=1e-3),)


@pytest.mark.parametrize(("away", "left"), [("0 s", 1), ("24 hours", 1 / 2), ("72 hours", 1 / 8)])
def test_in_a_visit_what_follows_counts_more_and_what_is_popular_less(
    shop: Connection, away: str, left: float
) -> None:
    for number in range(8):
        click(shop, ["jazz-4", "ferns-4"], user=f"user {number}")
    fold(shop)
    click(shop, ["jazz-4"])
    moment = "(select max(occurred_at) from rec.events) + %s::interval"
    asked = f"select transition, trend from rec.score('ann', array['ferns-4'], {moment})"

    visiting = shop.execute(asked, [away]).fetchone()
    shop.execute("update rec.rankers set session_weight = 0")
    usual = shop.execute(asked, [away]).fetchone()

    assert visiting is not None
    assert usual is not None
    assert visiting[0] / usual[0] == pytest.approx(1 + 0.5 * left, abs=1e-3)
    assert visiting[1] / usual[1] == pytest.approx(1 - 0.5 * left, abs=1e-3)


def test_similar_items_are_of_the_same_kind_and_not_the_item_itself(shop: Connection) -> None:
    rows = shop.execute("select rank, item_id from rec.similar_items('chess-3', 5)").fetchall()
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    assert topics(row[1] for row in rows) == ["chess"] * 5
    assert "chess-3" not in [row[1] for row in rows]


def test_the_shares_of_past_events_add_up_to_the_score(shop: Connection) -> None:
    click(shop, ["jazz-1", "chess-1"])
    click(shop, ["bread-1"], kind="dislike")
    click(shop, ["jazz-1", "jazz-8"], user="bob")
    fold(shop)
    click(shop, ["jazz-2"])
    for item_id, score in shop.execute("select item_id, score from rec.recommend('ann', 20)"):
        shares = shop.execute(
            "select share, title from rec.explain('ann', %s)", [item_id]
        ).fetchall()
        assert sum(share for share, _ in shares) == pytest.approx(score, abs=1e-5)
        assert shares == sorted(shares, key=lambda row: -row[0])


def test_the_list_can_be_joined_and_filtered(shop: Connection) -> None:
    click(shop, ["jazz-1"])
    rows = shop.execute(
        "select i.title from rec.recommend('ann', 50) r join rec.items i using (item_id)"
        " where i.title like 'jazz%' order by r.rank limit 3"
    ).fetchall()
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("recommend('ann', -1)", "k must not be negative"),
        ("recommend('ann', null)", "k must not be negative"),
        ("recommend('ann', 5, p_filter => '[1]')", "must be a JSON object"),
        ("recommend('ann', 5, p_diversity => 1.5)", "between 0 and 1"),
        ("recommend('ann', 5, p_diversity => 'NaN')", "between 0 and 1"),
        ("similar_items('jazz-1', -1)", "k must not be negative"),
        ("similar_items('jazz-1', 5, p_filter => '1')", "must be a JSON object"),
        ("popular(-1)", "k must not be negative"),
        ("popular(5, p_filter => '[]')", "must be a JSON object"),
    ],
)
def test_bad_arguments_are_named(shop: Connection, call: str, message: str) -> None:
    click(shop, ["jazz-1"])
    fold(shop)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        shop.execute(f"select * from rec.{call}")


@pytest.mark.parametrize(
    "function", ["recommend('ann', 5", "similar_items('jazz-1', 5", "popular(1"]
)
def test_a_missing_filter_is_no_filter(shop: Connection, function: str) -> None:
    click(shop, ["jazz-1"])
    fold(shop)
    call = f"select count(*) from rec.{function}, p_filter => %s)"
    assert shop.execute(call, [None]).fetchone() == shop.execute(call, ["{}"]).fetchone() != (0,)


def test_an_unknown_or_missing_user_is_a_new_user(shop: Connection) -> None:
    assert len(recommend(shop, "nobody")) == 10
    assert shop.execute("select count(*) from rec.recommend(null)").fetchone() == (10,)
    assert recommend(shop, k=0) == []


def test_a_past_moment_gives_the_list_of_that_moment(shop: Connection) -> None:
    shop.execute("select rec.track('ann', 'jazz-1', p_occurred_at => now() - interval '2 days')")
    shop.execute("update rec.rankers set trend_weight = 0, transition_weight = 0")
    then = shop.execute("select item_id from rec.recommend('ann', 5)").fetchall()
    click(shop, ["bread-1", "bread-2"])
    click(shop, ["jazz-3"], kind="dislike")
    as_of = "p_as_of => now() - interval '1 day'"
    assert shop.execute(f"select item_id from rec.recommend('ann', 5, {as_of})").fetchall() == then
    past = shop.execute(f"select sum(share) from rec.explain('ann', 'jazz-2', {as_of})").fetchone()
    score = f"select score from rec.score('ann', array['jazz-2'], {as_of})"
    assert past == (pytest.approx(shop.execute(score).fetchone()[0], abs=1e-5),)  # type: ignore[index]
    before = "p_as_of => now() - interval '3 days'"
    assert shop.execute(
        f"select distinct topic from rec.recommend('ann', 5, {before})"
    ).fetchall() == [(None,)]


def test_reading_needs_no_write(shop: Connection) -> None:
    click(shop, ["jazz-1"])
    shop.execute("set default_transaction_read_only = on")
    assert len(recommend(shop)) == 10
    assert shop.execute("select count(*) > 0 from rec.explain('ann', 'jazz-2')").fetchone() == (
        True,
    )


def test_counts_made_anew_from_the_log_are_the_same(shop: Connection) -> None:
    counts = (
        "select '' as a, item_id as b, log_mass from rec_internal.popularity"
        " union all table rec_internal.item_transitions order by 1, 2"
    )
    click(shop, ["jazz-1", "jazz-2", "bread-3", "jazz-1"])
    click(shop, ["jazz-2", "jazz-1"], user="bob")
    fold(shop)
    before = shop.execute(counts).fetchall()
    assert shop.execute("select rec.rebuild_collaborative()").fetchone() == (len(before),)
    after = shop.execute(counts).fetchall()
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert [row[2] for row in after] == pytest.approx([row[2] for row in before])


def test_a_forgotten_user_leaves_nothing(shop: Connection) -> None:
    click(shop, ["jazz-1", "jazz-2"], user="bob")
    fold(shop)
    counts = (
        "select '' as a, item_id as b, log_mass from rec_internal.popularity"
        " union all table rec_internal.item_transitions order by 1, 2"
    )
    before = shop.execute(counts).fetchall()
    click(shop, ["jazz-1", "chess-2", "jazz-2"])
    fold(shop)
    click(shop, ["bread-2"])
    shop.execute("select rec.track('ann', p_kind => 'search', p_text => 'rye')")
    assert shop.execute("select rec.forget_user('ann')").fetchone() == (5,)
    after = shop.execute(counts).fetchall()
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert [row[2] for row in after] == pytest.approx([row[2] for row in before])
    engine = ("rec_internal.pending", "rec_internal.item_deltas")
    for table in ("rec.events", "rec.user_interests", *engine):
        query = f"select count(*) from {table} where user_id = 'ann'"
        assert shop.execute(query).fetchone() == (0,)
