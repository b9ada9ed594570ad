"""What is written into the tables by hand: refused by name, or harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from hypothesis import strategies as st

from tests.support.hostile_input import (
    LITERALS,
    MEGABYTE,
    NOT_A_NUMBER,
    answer,
    contents,
    hold,
    integers,
    is_named,
    json_texts,
    numbers,
    texts,
    times,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypothesis.strategies import SearchStrategy

    from tests.support.hostile_input import Connection, Literal

WRONG: Final = st.sampled_from(["soon", "{", "[1, 2", "'", "maybe", "1e999", "2026-02-30"])
COLUMNS: Final[Mapping[str, Mapping[str, SearchStrategy[Literal]]]] = {
    "items": {
        "item_id": texts,
        "domain": texts,
        "title": texts,
        "body": texts,
        "attributes": json_texts,
        "tags": LITERALS["text[]"],
        "available": LITERALS["boolean"],
        "created_at": times,
        "encode_error": texts,
    },
    "events": {
        "user_id": texts,
        "item_id": texts,
        "kind": st.sampled_from(["click", "rating", "dislike", "", "x" * MEGABYTE]) | texts,
        "text": texts,
        "value": numbers,
        "dedupe_key": texts,
        "occurred_at": times,
        "received_at": times,
    },
    "event_kinds": {
        "kind": texts,
        "weight": numbers,
        "marks_seen": LITERALS["boolean"],
        "neutral": numbers,
        "scale": numbers,
    },
    "horizons": {"horizon": texts, "half_life": LITERALS["interval"], "weight": numbers},
}
READERS: Final = (
    "select t::text from rec.recommend('u0', 5) t",
    "select t::text from rec.explain('u0', 'i3') t",
    "select t::text from rec.popular() t",
    "select rec.apply_pending()::text",
    "select rec.merge_deltas()::text",
    "select rec.export_user('u0')::text",
    "select t::text from rec_internal.claim_items(9) t",
    "select t::text from rec_internal.claim_texts(9) t",
    "select t::text from rec.status t",
    "select t::text from rec_internal.tuning_log(9) t",
)
FOLDED: Final = "user_id = 'u0' and item_id = 'i4'"


@pytest.mark.parametrize("table", COLUMNS)
def test_a_row_is_refused_by_name_or_harms_nothing(
    db: Connection, pytestconfig: pytest.Config, table: str
) -> None:
    def is_harmless(row: dict[str, Literal]) -> None:
        names, places = ", ".join(row), ", ".join(["%s"] * len(row))
        with db.transaction(force_rollback=True):
            if written(db, f"insert into rec.{table} ({names}) values ({places})", row):
                read_all(db, named=calls_something_nan(table, row))

    hold(pytestconfig, is_harmless, rows(COLUMNS[table], 2), quick=30, full=600)


@pytest.mark.parametrize("table", ["items", "event_kinds", "horizons"])
def test_a_change_is_refused_by_name_or_harms_nothing(
    db: Connection, pytestconfig: pytest.Config, table: str
) -> None:
    def is_harmless(row: dict[str, Literal]) -> None:
        changes = ", ".join(f"{name} = %s" for name in row)
        some = "where item_id in ('i3', 'i4')" if table == "items" else ""
        with db.transaction(force_rollback=True):
            if written(db, f"update rec.{table} set {changes} {some}", row):
                read_all(db, named=calls_something_nan(table, row))

    hold(pytestconfig, is_harmless, rows(COLUMNS[table], 1), quick=20, full=400)


@pytest.mark.parametrize("table", ["rec.settings", "rec.rankers"])
def test_a_setting_is_refused_by_name_or_harms_nothing(
    db: Connection, pytestconfig: pytest.Config, table: str
) -> None:
    described = db.execute(
        "select attname, atttypid::regtype::text from pg_attribute where attnum > 0"
        " and attrelid = %s::regclass and not attisdropped",
        [table],
    ).fetchall()
    columns = {name: LITERALS.get(kind, integers) for name, kind in described}
    columns.pop("ranker", None)  # a name; `pgrec doctor` tells if the default is missing

    def is_harmless(row: dict[str, Literal]) -> None:
        changes = ", ".join(f"{name} = %s" for name in row)
        with db.transaction(force_rollback=True):
            if written(db, f"update {table} set {changes}", row):
                read_all(db)

    hold(pytestconfig, is_harmless, rows(columns, 1), quick=40, full=1500)


def test_a_copy_is_refused_whole_or_harms_nothing(
    db: Connection, pytestconfig: pytest.Config
) -> None:
    def is_harmless(copied: list[tuple[str, str, str, str, str]]) -> None:
        before = contents(db)
        try:
            with db.transaction(force_rollback=True):
                with (
                    db.cursor() as cursor,
                    cursor.copy(
                        "copy rec.events (user_id, item_id, kind, value, occurred_at) from stdin"
                    ) as copy,
                ):
                    for row in copied:
                        copy.write_row(row)
                read_all(db)
        except psycopg.Error as error:
            assert is_named(error), error  # noqa: PT017  # either is right
            assert contents(db) == before

    row = st.tuples(texts, texts, st.sampled_from(["click", "rating"]), numbers, times)
    hold(pytestconfig, is_harmless, st.lists(row, min_size=1, max_size=3), quick=30, full=600)


@pytest.mark.parametrize(
    "change",
    [
        "user_id = 'u9'",
        "item_id = 'i3'",
        "kind = 'dislike'",
        "value = 5",
        "text = 'another'",
        "text_hash = sha256('another')",
        "occurred_at = '2020-01-01'",
        "received_at = '2020-01-01'",
    ],
)
def test_an_event_does_not_change(db: Connection, change: str) -> None:
    before = contents(db)
    with pytest.raises(psycopg.errors.RestrictViolation, match="cannot be changed") as refused:
        db.execute(f"update rec.events set {change} where {FOLDED}")
    assert "rec.undo_event" in (refused.value.diag.message_hint or "")
    upserted = db.execute(
        "insert into rec.events (user_id, item_id, dedupe_key, occurred_at) select user_id,"
        " item_id, dedupe_key, occurred_at from rec.events where dedupe_key = 'k'"
        " on conflict (user_id, dedupe_key, occurred_at) where dedupe_key is not null"
        f" do update set {change}"
    )
    assert upserted.rowcount == 0, "a known dedupe key ends an INSERT before it becomes an UPDATE"
    assert contents(db) == before


def test_the_text_of_an_event_may_be_dropped_and_nothing_else(db: Connection) -> None:
    with db.transaction(force_rollback=True):
        kept = db.execute(
            "update rec.events set text = null where text = 'a wish'"
            " returning text, text_hash is null"
        )
        assert kept.fetchall() == [(None, False)]
    with pytest.raises(psycopg.errors.RestrictViolation, match="cannot be changed"):
        db.execute("update rec.events set dedupe_key = 'new' where dedupe_key = 'k'")


def test_the_text_of_an_event_that_is_still_to_be_encoded_stays(db: Connection) -> None:
    with db.transaction(force_rollback=True):
        db.execute("insert into rec.events (user_id, text) values ('u0', 'never read')")
        with pytest.raises(psycopg.errors.RestrictViolation, match="not encoded yet") as refused:
            db.execute("update rec.events set text = null where text = 'never read'")
        assert "rec.undo_event" in (refused.value.diag.message_hint or "")


def test_a_folded_event_is_not_deleted_and_a_waiting_one_leaves_the_queue(db: Connection) -> None:
    before = contents(db)
    with pytest.raises(psycopg.errors.RestrictViolation, match="cannot be deleted") as refused:
        db.execute(f"delete from rec.events where {FOLDED}")
    assert "rec.forget_user" in (refused.value.diag.message_hint or "")
    assert contents(db) == before
    with db.transaction(force_rollback=True):
        assert db.execute("delete from rec.events where dedupe_key = 'k'").rowcount == 1
        assert db.execute("select from rec_internal.pending where user_id = 'u0'").rowcount == 0
        assert db.execute("delete from rec.events where item_id = 'nowhere'").rowcount == 1
        assert db.execute("select from rec.parked").rowcount == 0


@pytest.mark.clock
def test_undoing_and_forgetting_leave_the_log_guarded(db: Connection) -> None:
    with db.transaction(force_rollback=True):
        db.execute(f"select rec.undo_event(user_id, event_id) from rec.events where {FOLDED}")
        db.execute("select rec.forget_user('u1')")
        db.execute("select rec.make_partitions(3)")  # a month may have ended since the migration
        assert db.execute("select rec.make_partitions(9)").fetchone() == (6,)
        assert db.execute("select from rec.events where user_id = 'u1'").rowcount == 0
        assert answer(db, "delete from rec.events where user_id = 'u2' returning event_id") is None


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("update rec.horizons set half_life = '0'", "half_life"),
        ("update rec.horizons set half_life = '-1 day'", "half_life"),
        ("update rec.horizons set half_life = 'infinity'", "half_life"),
        ("update rec.horizons set half_life = '100000 years'", "half_life"),
        ("update rec.horizons set weight = 'NaN'", "weight"),
        ("update rec.horizons set weight = 1e300", "weight"),
        ("update rec.event_kinds set weight = 'NaN'", "weight"),
        ("update rec.event_kinds set weight = 1e-300", "weight"),
        ("update rec.event_kinds set neutral = 'NaN', scale = 1", "neutral"),
        ("update rec.event_kinds set neutral = 'infinity', scale = 1", "neutral"),
        ("update rec.event_kinds set neutral = 0, scale = 'NaN'", "scale"),
        ("update rec.event_kinds set neutral = 0, scale = 1e-300", "scale"),
        ("update rec.event_kinds set neutral = 0, scale = 0", "scale"),
        ("update rec.rankers set trend_weight = 'NaN'", "trend_weight"),
        ("update rec.rankers set trend_weight = 1e-300", "trend_weight"),
        ("update rec.rankers set diversity = 1e-300", "diversity"),
        ("update rec.settings set popularity_half_life = '0'", "half_li"),
        ("update rec.settings set transition_half_life = 'infinity'", "half_li"),
        ("insert into rec.items (item_id, domain) values ('x', repeat('d', 1001))", "domain"),
        ("insert into rec.event_kinds values (repeat('k', 201), 1)", "kind"),
    ],
)
def test_the_constraint_that_refuses_is_called_after_what_is_wrong(
    db: Connection, statement: str, constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        db.execute(statement)
    assert constraint in (refused.value.diag.constraint_name or "")


def test_what_the_settings_mean_is_said_where_they_are(db: Connection) -> None:
    bare = db.execute(
        "select attrelid::regclass::text, attname from pg_attribute"
        " where attrelid in ('rec.settings'::regclass, 'rec.rankers'::regclass)"
        " and attnum > 0 and not attisdropped"
        " and col_description(attrelid, attnum) is null"
    ).fetchall()
    assert bare == []


def rows(
    columns: Mapping[str, SearchStrategy[Literal]], fewest: int
) -> SearchStrategy[dict[str, Literal]]:
    """Values for some of the columns; one in a dozen is NULL or of no such type."""
    kinds = {name: st.one_of(*[values] * 11, st.none(), WRONG) for name, values in columns.items()}
    return st.lists(
        st.sampled_from(sorted(kinds)), min_size=fewest, max_size=len(kinds), unique=True
    ).flatmap(lambda names: st.fixed_dictionaries({name: kinds[name] for name in names}))


def written(db: Connection, statement: str, row: Mapping[str, Literal]) -> bool:
    """Return whether the statement went through; a refusal must be one by name."""
    try:
        with db.transaction():
            db.execute(statement, list(row.values()))
    except psycopg.Error as error:
        if not is_named(error):
            pytest.fail(f"{error.sqlstate} {error} at {statement} with {row!r:.500}")
        return False
    return True


def calls_something_nan(table: str, row: Mapping[str, Literal]) -> bool:
    kinds = COLUMNS[table]
    return any("NaN" in str(value) for name, value in row.items() if kinds[name] is not numbers)


def read_all(db: Connection, *, named: bool = False) -> None:
    """Everything can be read, and none of it is no number, unless something is `named` NaN."""
    for reader in READERS:
        found = answer(db, reader)
        assert found is not None, reader
        assert named or not any(map(NOT_A_NUMBER.search, found)), reader
