"""Every function of both schemas, called with whatever its arguments' types can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import strategies as st

from tests.support.hostile_input import LITERALS, NOT_A_NUMBER, answer, contents, hold

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from tests.support.hostile_input import Connection, Literal

STEP_OF_A_SWAP: Final = "a step of a calibration, in its order and by the owner; test_calibrate.py"
STEP_OF_A_LOAD: Final = "a step of a load, reads a table of the session; test_files.py"
ON_OWN_SUMS: Final = "arithmetic of sums, of a domain that CHECKs hold; test_times.py"
STEP_OF_A_LIST: Final = "a step of rec.recommend, on arrays that it has made"
OF_A_ROLE: Final = "asked by pgrec migrate of the role that it is; test_role_creation.py"
TRIGGER: Final = "a trigger; test_tables.py"
STEP_OF_A_FOLD: Final = "a step of rec.apply_users, on what it has read of claimed events"
LEFT_OUT: Final = {
    "add_deltas": STEP_OF_A_FOLD,
    "add_mass": ON_OWN_SUMS,
    "add_shares": STEP_OF_A_FOLD,
    "admit": TRIGGER,
    "admit_some": TRIGGER,
    "can_own": OF_A_ROLE,
    "copy_privileges": STEP_OF_A_SWAP,
    "decayed_mass": ON_OWN_SUMS,
    "decayed_sum": ON_OWN_SUMS,
    "diversify": STEP_OF_A_LIST,
    "drop_previous": STEP_OF_A_SWAP,
    "enqueue": TRIGGER,
    "event_weight": ON_OWN_SUMS,
    "explore": STEP_OF_A_LIST,
    "forget_visible": TRIGGER,
    "index_next_vectors": STEP_OF_A_SWAP,
    "keep_unread": TRIGGER,
    "log_mass": ON_OWN_SUMS,
    "make_next_vectors": STEP_OF_A_SWAP,
    "merge_changes": ON_OWN_SUMS,
    "merge_events": STEP_OF_A_LOAD,
    "merge_items": STEP_OF_A_LOAD,
    "merge_vectors": STEP_OF_A_LOAD,
    "move_interests": STEP_OF_A_SWAP,
    "refuse_parking": TRIGGER,
    "refuse_rewrite": TRIGGER,
    "rerank": STEP_OF_A_LIST,
    "role_advice": OF_A_ROLE,
    "role_name": STEP_OF_A_SWAP,
    "scaled": ON_OWN_SUMS,
    "settle_items": STEP_OF_A_LOAD,
    "share": ON_OWN_SUMS,
    "share_mass": ON_OWN_SUMS,
    "start_over": TRIGGER,
    "swap_vectors": STEP_OF_A_SWAP,
    "take_place": STEP_OF_A_SWAP,
    "undo_visible": TRIGGER,
    "unqueue": TRIGGER,
}
"""Functions that no hostile caller reaches with arguments of his own, and why."""

ROWS: Final = {
    "rec.rankers": "select r::text from rec.rankers r",
    "rec.items": "select i::text from rec.items i order by i.item_id",
    "rec_internal.pending": "select p::text from rec_internal.pending p order by p.event_id",
    "rec_internal.profile": (
        "select rec_internal.profile_of(u.user_id, r)::text"
        " from rec.rankers r, unnest('{u0,u1,nobody}'::text[]) as u (user_id)"
    ),
}
"""For each composite type of an argument, the rows that it gets; NULL is none of them."""

SIGNATURES: Final = (
    "select p.pronamespace::regnamespace::text, p.proname,"
    " array(select t::regtype::text from unnest(p.proargtypes) t)"
    " from pg_proc p where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
    " order by p.oid::regprocedure::text"
)


def test_what_is_left_out_is_there(db: Connection) -> None:
    assert set(LEFT_OUT) <= {name for _, name, _ in db.execute(SIGNATURES)}


def test_whatever_a_function_is_given_it_answers_or_says_what_is_wrong(
    db: Connection, pytestconfig: pytest.Config
) -> None:
    before = contents(db)
    literals = LITERALS | {
        kind: st.sampled_from([row for (row,) in db.execute(query)]) for kind, query in ROWS.items()
    }
    for schema, name, types in db.execute(SIGNATURES).fetchall():
        if name in LEFT_OUT:
            continue
        places = ", ".join(f"%s::{kind}" for kind in types)
        call = f"select t::text from {schema}.{name}({places}) t"
        numbers = {"quick": 9, "full": 150} if types else {"quick": 1, "full": 1}
        arguments = st.tuples(
            *(literals[kind] if kind in ROWS else argument(literals[kind]) for kind in types)
        )
        hold(pytestconfig, answers(db, call), arguments, **numbers)
        assert contents(db) == before, name


@pytest.mark.parametrize(
    "call",
    [
        "rec.popular(20{})",
        "rec.nearest('[1,0,0,0]', 20{})",
        "rec.next_items('{{i1}}', 20{})",
        "rec.companion_items('{{i1}}', 20{})",
    ],
)
@pytest.mark.parametrize("excluded", ["null", "'{NULL}'", "'{{NULL},{NULL}}'"])
def test_an_exclusion_of_nothing_excludes_nothing(db: Connection, call: str, excluded: str) -> None:
    listed = f"select item_id from {call} order by 1"
    everything = answer(db, listed.format(""))
    assert everything
    assert answer(db, listed.format(f", p_exclude => {excluded}")) == everything
    without = listed.format(f", p_exclude => array[null, '{everything[0]}']")
    assert answer(db, without) == everything[1:]


def test_a_list_of_a_million_is_all_that_there_is(db: Connection) -> None:
    for k in ("1000000", "2147483647"):
        rows = answer(db, f"select item_id from rec.recommend('u0', {k}, p_exclude_seen => false)")
        assert rows is not None
        assert sorted(rows) == sorted(f"i{number}" for number in range(12))


def answers(db: Connection, call: str) -> Callable[[tuple[Literal, ...]], None]:
    """Return the promise that a call answers; no number is none, unless it was given as one."""

    def promise(arguments: tuple[Literal, ...]) -> None:
        rows = answer(db, call, arguments)
        given_one = any("NaN" in str(value) for value in arguments)
        assert given_one or not any(map(NOT_A_NUMBER.search, rows or ())), (call, arguments)

    return promise


def argument(literals: SearchStrategy[Literal]) -> SearchStrategy[Literal]:
    """Values of an argument, mostly those of its type."""
    return st.one_of(literals, literals, literals, st.none())
