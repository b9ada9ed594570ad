"""What a function sets for the plans of its statements stays inside of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

# They set what the functions that call them have SET clauses for.
SETTERS: Final = ("plan_for",)
CALLS: Final = (
    "select * from rec.recommend('ann')",
    "select * from rec.recommend('ann', p_filter => '{\"a\": 1}')",
    "select * from rec.nearest(array_fill(1, array[384])::vector)",
    "select * from rec.nearest(array_fill(1, array[384])::vector, p_domain => 'default')",
    "select * from rec.similar_items('i1')",
    "select * from rec.popular()",
    "select * from rec.popular(p_domain => 'default')",
    "select * from rec.next_items('{i1}')",
    "select * from rec.companion_items('{i1}')",
    "select * from rec.topics('ann')",
    "select * from rec.explain('ann', 'i1')",
)


def functions(db: Connection) -> dict[str, tuple[str, list[str]]]:
    """Source and SET clauses of each function."""
    rows = db.execute(
        "select p.proname, coalesce(p.prosrc, '') || coalesce(pg_get_function_sqlbody(p.oid), ''),"
        " coalesce(p.proconfig, '{}') from pg_proc p"
        " where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)"
    )
    return {name: (source, config) for name, source, config in rows}


def test_whoever_has_searches_planned_has_a_set_clause_for_all_that_this_sets(
    db: Connection,
) -> None:
    """Without one the setting would stay for the rest of the caller's transaction."""
    found = functions(db)

    def leaves(name: str) -> set[str]:
        source, config = found[name]
        touched = set(re.findall(r"set_config\(\s*'([\w.]+)'", source))
        for setter in SETTERS:
            if setter != name and re.search(rf"\b{setter}\s*\(", source):
                touched |= leaves(setter)
        return touched - {setting.partition("=")[0] for setting in config}

    assert leaves("plan_for") == {"plan_cache_mode", "enable_sort"}
    callers = {
        name
        for name, (source, _) in found.items()
        if name not in SETTERS and any(re.search(rf"\b{s}\s*\(", source) for s in SETTERS)
    }
    assert callers >= {"neighbours", "indexed_neighbours", "popular", "matches_few"}
    assert {name: left for name in callers if (left := leaves(name))} == {}


def test_whoever_sets_the_depth_of_searches_restores_it(db: Connection) -> None:
    """Not by a SET clause, which an owner who is no superuser could not restore from a dump."""
    found = functions(db)
    setters = {name for name, (source, _) in found.items() if "set_depth(" in source}
    assert setters == {"indexed_neighbours"}
    assert all("restore_depth(" in found[name][0] for name in setters)
    assert not [name for name, (_, config) in found.items() if any("hnsw" in s for s in config)]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_every_setting_as_it_was(db: Connection, call: str) -> None:
    db.execute("insert into rec.items (item_id) select 'i' || n from generate_series(1, 5) n")
    db.execute(
        "insert into rec.item_vectors"
        " select item_id, array_fill(1, array[384])::halfvec from rec.items"
    )
    db.execute("select rec.track('ann', 'i1')")
    db.execute("update rec.rankers set exact_limit = 2")
    settings = "select name, setting from pg_settings order by name"
    with db.transaction():
        db.execute("select '[1]'::vector <-> '[1]'::vector")  # or the first search loads pgvector
        before = db.execute(settings).fetchall()
        db.execute(call)
        assert db.execute(settings).fetchall() == before
