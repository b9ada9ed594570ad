"""The catalogue's own calibration: vectors and interests move together, nobody is in the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from rec_pkg.encoder.calibration import Calibration, fit_calibration
from rec_pkg.errors import BadInput, CalibrationRefused
from rec_pkg.operations.calibrating import calibrate, uncalibrate
from tests.support.programs import dump
from tests.support.shops import add_items

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Connection = psycopg.Connection[tuple[Any, ...]]

DIMS = 384
ITEMS = 800
TEXTS = ("sea stories", "soup recipes", "blue jeans")
BASE = "a" * 64
EVENTS = 300


def unit_vectors(count: int, seed: int) -> Vectors:
    """Vectors with a large common part, wider along some axes, as a halfvec."""
    common = np.random.default_rng(0).normal(size=DIMS) * 2
    random = np.random.default_rng(seed)
    spread = random.normal(size=(count, DIMS)) * np.geomspace(1, 0.2, DIMS)
    vectors = spread + common
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit, np.float16).astype(np.float32)


@pytest.fixture
def shop(db: Connection) -> Connection:
    """Eight hundred items, three texts, twenty users whose events are folded but for the last."""
    db.execute(
        "select rec_internal.register_encoder(%s, 'made up', '{\"a\": 1}', %s)", [BASE, DIMS]
    )
    fill(db, ITEMS)
    for number in range(EVENTS):
        text = TEXTS[number % 7] if number % 7 < len(TEXTS) else None
        item = None if number % 21 == 0 else f"i{number * 37 % ITEMS:03}"
        db.execute(
            "insert into rec.events (user_id, item_id, kind, text, occurred_at)"
            " values (%s, %s, %s, %s, now() - make_interval(mins => %s))",
            [
                f"user {number % 20:02}",
                item,
                "dislike" if number % 9 == 0 else "click",
                text,
                number,
            ],
        )
    db.execute(
        "select rec_internal.store_texts(%s, array_agg(rec_internal.content_hash(n.text)), %s)"
        " from unnest(%s::text[]) as n (text)",
        [BASE, [HalfVector(vector) for vector in unit_vectors(len(TEXTS), 2)], list(TEXTS)],
    )
    assert db.execute("select rec.apply_pending(10000)").fetchone() == (EVENTS,)
    db.execute("select rec.track('user 00', 'i007')")
    return db


def fill(db: Connection, count: int) -> None:
    vectors = {f"i{number:03}": vector for number, vector in enumerate(unit_vectors(count, 1))}
    add_items(db, vectors, title=[f"thing {number}" for number in range(count)])


def stored(db: Connection, query: str) -> Vectors:
    return np.array([row[0].to_numpy() for row in db.execute(query)], np.float32)


def items(db: Connection) -> Vectors:
    return stored(db, "select embedding from rec.item_vectors order by item_id")


def texts(db: Connection) -> Vectors:
    query = (
        "select embedding from unnest(%s::text[]) with ordinality n (text, place)"
        " join rec_internal.texts on text_hash = rec_internal.content_hash(n.text) order by place"
    )
    rows = db.execute(query, [list(TEXTS)])
    return np.array([row[0].to_numpy() for row in rows], np.float32)


def cosines(one: Vectors, other: Vectors) -> Vectors:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths)


def largest_difference(db: Connection) -> float:
    """How far any stored interest is from the replay of what is folded, in units of its mass."""
    row = db.execute(
        "select max((u.interest <-> r.interest) / u.mass + abs(u.mass - r.mass)),"
        " count(*), count(r.horizon)"
        " from rec.user_interests u"
        " left join lateral rec_internal.replay(u.user_id, p_pending => false) r"
        " on r.horizon = u.horizon"
    ).fetchone()
    assert row
    assert row[1] == row[2] > 0
    return float(row[0])


def active(db: Connection) -> tuple[Any, ...]:
    """Fingerprint, base and calibration of the one active encoder."""
    query = "select fingerprint, base, calibration from rec_internal.encoders where active"
    (row,) = db.execute(query).fetchall()
    return row


def at(stage: str, act: Callable[[], object]) -> Callable[[str, int, int], None]:
    """An on_progress that acts once, when the calibration begins with `stage`."""

    def on_progress(what: str, done: int, total: int) -> None:
        del total
        if what == stage and done == 0:
            act()

    return on_progress


def test_stored_vectors_are_those_of_the_map_that_was_fitted_on_the_items(shop: Connection) -> None:
    calibrate(shop, 0.1)
    fitted = fit_calibration(unit_vectors(ITEMS, 1), 0.1)
    assert np.allclose(items(shop), fitted.apply(unit_vectors(ITEMS, 1)), atol=1e-3)
    assert np.allclose(texts(shop), fitted.apply(unit_vectors(len(TEXTS), 2)), atol=1e-3)
    kept = Calibration.from_bytes(active(shop)[2], DIMS)
    assert np.allclose(kept.matrix, fitted.matrix, rtol=1e-3, atol=1e-3)


def test_the_fingerprint_tells_the_encoder_and_the_calibration(shop: Connection) -> None:
    fingerprint = calibrate(shop)
    assert active(shop)[:2] == (fingerprint, BASE)
    assert fingerprint == sha256(BASE.encode() + active(shop)[2]).hexdigest()
    row = shop.execute(
        "select name, record, dims from rec_internal.encoders where active"
    ).fetchone()
    assert row == ("made up, calibrated on the catalogue", {"a": 1}, DIMS)


def test_stored_interests_are_those_of_a_replay_and_what_waits_still_waits(
    shop: Connection,
) -> None:
    before = stored(shop, "select interest from rec.user_interests order by user_id, horizon")
    calibrate(shop)
    assert largest_difference(shop) < 1e-4
    after = stored(shop, "select interest from rec.user_interests order by user_id, horizon")
    assert len(after) == len(before) == 40
    assert (cosines(before, after) < 0.9).all()
    assert shop.execute("select pending, parked from rec.status").fetchone() == (1, 0)
    assert shop.execute("select rec.apply_pending()").fetchone() == (1,)
    assert largest_difference(shop) < 1e-4


def test_neighbours_come_from_the_index_of_the_moved_vectors(shop: Connection) -> None:
    shop.execute("update rec.rankers set exact_limit = 0")
    calibrate(shop)
    vectors = items(shop)
    nearest = np.argsort(-vectors @ vectors[7])[1:4]
    rows = shop.execute("select item_id, path from rec.similar_items('i007', 3)").fetchall()
    assert rows == [(f"i{place:03}", "hnsw") for place in nearest]


@pytest.mark.parametrize("stage", ["items", "texts", "index", "users", "swap"])
def test_lists_go_on_as_before_while_vectors_are_moved(
    shop: Connection, database_url: str, stage: str
) -> None:
    query = "select item_id, score from rec.recommend('user 01', p_as_of => '2100-01-01')"
    before = shop.execute(query).fetchall()
    during: list[list[tuple[Any, ...]]] = []

    def read() -> None:
        with psycopg.connect(database_url, autocommit=True) as reader:
            reader.execute("set lock_timeout = '1s'")
            during.append(reader.execute(query).fetchall())
            reader.execute("select rec.track('user 02', 'i001')")
            reader.execute("update rec.items set available = true where item_id = 'i001'")

    calibrate(shop, on_progress=at(stage, read))
    assert during == [before]
    assert len(before) == 10


def test_nothing_is_stored_or_folded_while_vectors_are_moved(
    shop: Connection, database_url: str
) -> None:
    def store() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            assert other.execute("select rec.apply_pending()").fetchone() == (0,)
            with pytest.raises(psycopg.errors.LockNotAvailable, match="being moved"):
                other.execute("select rec_internal.store_texts(%s, '{}', '{}')", [BASE])
            with pytest.raises(psycopg.errors.LockNotAvailable, match="being moved"):
                other.execute("select rec_internal.store_items(%s, '{}', '{}', '{}')", [BASE])

    calibrate(shop, on_progress=at("users", store))
    assert shop.execute("select pending from rec.status").fetchone() == (1,)


@pytest.mark.parametrize(
    "call",
    [
        "rec.rebuild_user('user 01')",
        "rec.forget_user('user 01')",
        "rec.undo_event('user 01', min(event_id)) from rec.events where user_id = 'user 01'",
    ],
)
def test_what_changes_an_interest_waits_until_the_vectors_have_moved(
    shop: Connection, database_url: str, call: str
) -> None:
    def change() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute(f"select {call}")

    with ThreadPoolExecutor(1) as pool:
        calibrate(shop, on_progress=at("users", lambda: pool.submit(change)))
    assert largest_difference(shop) < 1e-4


def test_what_is_deleted_meanwhile_stays_deleted(shop: Connection, database_url: str) -> None:
    def delete() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("set lock_timeout = '1s'")
            other.execute("delete from rec.items where item_id = 'i005'")

    calibrate(shop, on_progress=at("users", delete))
    assert len(items(shop)) == ITEMS - 1
    shop.execute("delete from rec.items where item_id = 'i006'")
    assert len(items(shop)) == ITEMS - 2


def test_an_open_transaction_of_readers_holds_up_the_swap_and_nobody_else(
    shop: Connection, database_url: str
) -> None:
    def swapping() -> bool:
        query = (
            "select true from pg_stat_activity where query = 'select rec_internal.swap_vectors()'"
        )
        return shop.execute(query).fetchone() is not None

    def calibrate_apart() -> None:
        with psycopg.connect(database_url) as other:
            calibrate(other)

    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as application:
        application.execute("select * from rec.recommend('user 01')")
        apart = pool.submit(calibrate_apart)
        while not swapping():
            assert not apart.done()
        for _ in range(20):
            assert shop.execute("select * from rec.recommend('user 01')").fetchone()
        application.execute("update rec.items set title = 'renamed' where item_id = 'i003'")
        application.execute("insert into rec.events (user_id, item_id) values ('user 01', 'i003')")
        assert not apart.done()
        application.commit()
        apart.result()
    assert active(shop)[1] == BASE


def test_off_gives_the_vectors_of_the_encoder_back(shop: Connection) -> None:
    calibrate(shop)
    assert (cosines(items(shop), unit_vectors(ITEMS, 1)) < 0.9).all()
    assert uncalibrate(shop) == BASE
    assert active(shop) == (BASE, None, None)
    assert (cosines(items(shop), unit_vectors(ITEMS, 1)) >= 0.999).all()
    assert (cosines(texts(shop), unit_vectors(len(TEXTS), 2)) >= 0.999).all()
    assert largest_difference(shop) < 1e-4


def test_off_does_nothing_where_nothing_is_calibrated(shop: Connection) -> None:
    seen: list[str] = []
    assert uncalibrate(shop, lambda what, *_: seen.append(what)) == BASE
    assert seen == []


def test_calibrating_again_starts_from_the_vectors_of_the_encoder(shop: Connection) -> None:
    calibrate(shop)
    once = items(shop)
    for ridge in (5, 0.1):
        calibrate(shop, ridge)
        assert active(shop)[1] == BASE
    assert (cosines(items(shop), once) >= 0.999).all()
    assert largest_difference(shop) < 1e-4


def test_vectors_of_the_encoder_beneath_are_refused_afterwards(shop: Connection) -> None:
    calibrate(shop)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="another encoder"):
        shop.execute("select rec_internal.store_items(%s, '{}', '{}', '{}')", [BASE])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="another encoder"):
        shop.execute("select rec_internal.store_texts(%s, '{}', '{}')", [BASE])
    shop.execute("select rec_internal.store_texts(%s, '{}', '{}')", [active(shop)[0]])


def test_the_schema_is_the_same_afterwards_with_what_others_added(
    shop: Connection, database_url: str
) -> None:
    shop.execute("grant select, insert on rec.item_vectors to pg_monitor with grant option")
    shop.execute("grant select on rec.item_vectors to public")
    shop.execute("grant select (text_hash) on rec_internal.texts to public")
    shop.execute("revoke insert on rec_internal.texts from current_user")
    shop.execute("alter table rec.item_vectors set (autovacuum_vacuum_threshold = 77)")
    shop.execute("create index odd on rec.item_vectors (length(item_id)) where item_id <> 'x'")
    shop.execute(
        'create view public."Own view" with (security_barrier = true) as'
        " select item_id, text_hash from rec.item_vectors cross join rec_internal.texts"
    )
    shop.execute("alter default privileges in schema rec grant delete on tables to public")
    before = dump(database_url)
    calibrate(shop)
    assert dump(database_url) == before
    assert shop.execute('select count(*) from "Own view"').fetchone() == (ITEMS * len(TEXTS),)
    uncalibrate(shop)
    assert dump(database_url) == before


def test_row_level_policies_are_the_same_afterwards(shop: Connection, database_url: str) -> None:
    shop.execute(
        "create policy own on rec.item_vectors to rec_app using ("
        "(select true from rec.items i where i.item_id = item_vectors.item_id and i.available)"
        " and exists (select from rec.items j where j.item_id = item_vectors.item_id))"
    )
    shop.execute("comment on policy own on rec.item_vectors is 'what is ''shown'''")
    shop.execute(
        'create policy "Odd "" one" on rec_internal.texts as restrictive for update'
        " to rec_app, public using (length(text_hash) > 1) with check (texts.text_hash <> '')"
    )
    shop.execute("create policy added on rec_internal.texts for insert with check (true)")
    shop.execute("create policy mine on rec.user_interests to rec_app using (user_id = 'user 03')")
    for table in ("rec.item_vectors", "rec_internal.texts", "rec.user_interests"):
        shop.execute(f"alter table {table} enable row level security")
    shop.execute("alter table rec_internal.texts force row level security")
    before = dump(database_url)
    calibrate(shop)
    assert dump(database_url) == before
    assert largest_difference(shop) < 1e-3
    with shop.transaction(force_rollback=True):
        shop.execute("set role rec_app")
        assert shop.execute("select count(*) from rec.user_interests").fetchone() == (2,)


def test_a_table_that_others_hang_on_is_not_replaced(shop: Connection) -> None:
    shop.execute(
        "create policy own on rec.items using"
        " (exists (select from rec.item_vectors v where v.item_id = items.item_id))"
    )
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="policy own"):
        calibrate(shop)
    shop.execute("drop policy own on rec.items")
    shop.execute("create materialized view public.own as select item_id from rec.item_vectors")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="materialized view"):
        calibrate(shop)


@pytest.mark.parametrize("stage", ["texts", "users"])
def test_an_interrupted_calibration_leaves_everything_as_it_was(
    shop: Connection, database_url: str, stage: str
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before, schema, interests = items(shop), dump(database_url), largest_difference(shop)
    with pytest.raises(KeyboardInterrupt):
        calibrate(shop, on_progress=at(stage, interrupt))
    assert active(shop) == (BASE, None, None)
    assert np.array_equal(items(shop), before)
    assert largest_difference(shop) == interests
    assert dump(database_url) == schema
    assert shop.execute("select rec.apply_pending()").fetchone() == (1,)


def test_a_connection_without_autocommit_is_committed(shop: Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        fingerprint = calibrate(other)
        assert active(shop)[0] == fingerprint


def test_a_database_without_an_encoder_is_refused(db: Connection) -> None:
    for change in (calibrate, uncalibrate):
        with pytest.raises(CalibrationRefused, match="pgrec worker"):
            change(db)


def test_items_that_wait_for_a_vector_are_awaited(shop: Connection) -> None:
    shop.execute("insert into rec.items (item_id) values ('new')")
    with pytest.raises(CalibrationRefused, match="1 items wait for a vector; run `pgrec worker"):
        calibrate(shop)


def test_too_few_items_are_refused(shop: Connection) -> None:
    shop.execute("delete from rec.items where item_id >= 'i767'")
    with pytest.raises(CalibrationRefused, match=r"767 items.*fewer than 768"):
        calibrate(shop)


@pytest.mark.parametrize("ridge", [0, -1, float("nan")])
def test_a_ridge_must_be_positive(shop: Connection, ridge: float) -> None:
    with pytest.raises(BadInput, match="ridge"):
        calibrate(shop, ridge)


def test_a_caller_may_roll_it_back(shop: Connection) -> None:
    before = items(shop)
    with shop.transaction(force_rollback=True):
        calibrate(shop)
        register_vector(shop)
        assert not np.array_equal(items(shop), before)
    assert np.array_equal(items(shop), before)


def test_a_member_of_the_owner_calibrates(shop: Connection, database_url: str) -> None:
    before = dump(database_url)
    shop.execute("set role rec_owner")
    fingerprint = calibrate(shop)
    shop.execute("reset role")
    assert active(shop)[0] == fingerprint
    assert dump(database_url) == before


def test_a_role_of_any_name_keeps_its_rights(shop: Connection) -> None:
    shop.execute('create role "Some ""Role"')
    try:
        named = "select rec_internal.role_name(oid) from pg_roles where rolname = %s"
        assert shop.execute(named, ['Some "Role']).fetchone() == ('"Some ""Role"',)
    finally:
        shop.execute('drop role "Some ""Role"')
