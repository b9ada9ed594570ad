"""What is excluded, and that NULL excludes nothing, in every function that can exclude."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

ITEMS: Final = [f"i{number}" for number in range(9)]
DEFAULT: Final = "rec_internal.ranker('default')"
# Arguments by name and type; a new one has to be decided here.
ARGUMENTS: Final = {
    ("p_query", "vector"): "array_prepend(1, array_fill(0.1, array[383]))::vector",
    ("p_queries", "vector[]"): "array[array_prepend(1, array_fill(0.1, array[383]))::vector]",
    ("p_queries", "halfvec[]"): "array[array_prepend(1, array_fill(0.1, array[383]))::halfvec]",
    ("p_items", "text[]"): f"array{ITEMS}",
    ("p_strengths", "double precision[]"): "array_fill(0.5::double precision, array[9])",
    ("p_profile", "rec_internal.profile"): f"rec_internal.profile_of('ann', {DEFAULT})",
    ("p_ranker", "rec.rankers"): DEFAULT,
    ("p_ranker", "text"): "'default'",
    ("p_n", "integer"): "7",
    ("p_depth", "double precision"): "1",
    ("p_k", "integer"): "7",
    ("p_domain", "text"): "null",
    ("p_filter", "jsonb"): "'{}'",
    ("p_as_of", "timestamp with time zone"): "null",
}
NOTHING: Final = ("null", "'{NULL}'", "'{{NULL},{NULL}}'", "'{NULL,nobody}'")


@pytest.fixture
def shop(db: Connection) -> Connection:
    """Nine items, each popular, a candidate by content, and a step from the others."""
    db.execute("insert into rec.items (item_id) select unnest(%s::text[])", [ITEMS])
    db.execute(
        "insert into rec.item_vectors select item_id,"
        " array_prepend(1, array_fill(random() / 9, array[383]))::vector::halfvec from rec.items"
    )
    for user in ("bob", "cid"):
        db.execute("select rec.track(%s, unnest(%s::text[]))", [user, ITEMS])
    db.execute("select rec.track('ann', 'i0')")
    db.execute("select rec.apply_pending()")
    db.execute("select rec.merge_deltas()")
    db.execute("update rec.rankers set together_weight = 0.5")
    return db


def calls(db: Connection) -> dict[str, str]:
    """A call of each function with an argument p_exclude, of which `{}` is the value."""
    rows = db.execute(
        "select p.oid::regproc::text, p.proretset, array_agg(a.name order by a.place),"
        " array_agg(format_type(a.type, null) order by a.place)"
        " from pg_proc p cross join lateral unnest(p.proargnames, p.proargtypes::oid[])"
        " with ordinality as a (name, type, place)"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
        " and 'p_exclude' = any(p.proargnames) and a.place <= p.pronargs group by p.oid"
    )
    found = {}
    for function, is_table, names, types in rows:
        values = [
            "p_exclude => {}"
            if name == "p_exclude"
            else f"{name} => {ARGUMENTS[name, kind].replace('{', '{{').replace('}', '}}')}"
            for name, kind in zip(names, types, strict=True)
        ]
        call = f"{function}({', '.join(values)})"
        found[function] = f"select item_id from {call}" if is_table else f"select unnest({call})"
    return found


def test_null_excludes_nothing_whoever_is_asked(shop: Connection) -> None:
    asked = calls(shop)
    assert {"rec.popular", "rec.nearest", "rec.next_items", "rec.companion_items"} <= set(asked)
    for function, call in asked.items():
        listed = sorted(shop.execute(call.format("'{}'")))
        assert len(listed) >= 7, function
        for excluded in NOTHING:
            assert sorted(shop.execute(call.format(excluded))) == listed, (function, excluded)


def test_what_is_excluded_beside_a_null_is_left_out_whoever_is_asked(shop: Connection) -> None:
    for function, call in calls(shop).items():
        (first,) = min(shop.execute(call.format("'{}'")))
        rest = shop.execute(call.format(f"array[null, '{first}']")).fetchall()
        assert rest, function
        assert (first,) not in rest, function
