"""A term of the score is declared in `rec_pkg.terms`, and is in every other place that it needs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from typer.testing import CliRunner

from rec_pkg import models, queries
from rec_pkg.cli import app
from rec_pkg.terms import NAMES, TERMS
from rec_pkg.tuning.terms import LIFTED, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

ROOT: Final = Path(__file__).parents[2]
ITEMS: Final = ["a", "b", "c", "d", "n", "x"]
# Weights that are no term's.
OTHERS: Final = {"session"}


def columns_of(call: str) -> Callable[[Connection], set[str]]:
    def find(db: Connection) -> set[str]:
        others = {"rank", "item_id", "score", "topic", "path", "place", "mass"}
        return {column.name for column in db.execute(call).description or ()} - others

    return find


def weights(names: object) -> set[str]:
    found = re.findall(r"\b(\w+)_weight\b", str(names))
    return set(found) - OTHERS


def commented(db: Connection) -> set[str]:
    rows = db.execute(
        "select a.attname from pg_attribute a where a.attrelid = 'rec.rankers'::regclass"
        " and col_description(a.attrelid, a.attnum)"
        " like 'Weight of ' || replace(a.attname, '_weight', '%')"
    )
    return weights(rows.fetchall())


def tunable(db: Connection) -> set[str]:
    return weights(db.execute("select rec_internal.tunable_settings('default')").fetchone())


def changeable(db: Connection) -> set[str]:
    """Terms of which tuning can change the weight."""
    found = set()
    for name in NAMES:
        with db.transaction(force_rollback=True):
            change = f'{{"{name}_weight": 0.0625}}'
            db.execute("select rec_internal.change_settings('default', %s)", [change])
            new = f"select from rec.rankers where ranker = 'default' and {name}_weight = 0.0625"
            if db.execute(new).rowcount:
                found.add(name)
    return found


def weighed(db: Connection) -> set[str]:
    """Terms whose weight counts in the score."""
    query = "select score from rec.score('ann', %s, p_ranker => 'even')"
    before = db.execute(query, [ITEMS]).fetchall()
    found = set()
    for name in NAMES:
        with db.transaction(force_rollback=True):
            db.execute(f"update rec.rankers set {name}_weight = 2 where ranker = 'even'")
            if db.execute(query, [ITEMS]).fetchall() != before:
                found.add(name)
    return found


def explained(db: Connection) -> set[str]:
    """Terms with a share of their own, beside those that events have shares of."""
    rows = db.execute(
        "select distinct term from rec.explain_list('ann', %s, p_ranker => 'even')"
        " where event_id is null",
        [ITEMS],
    )
    return {name for (name,) in rows} | {term.name for term in TERMS if term.of_events}


def helped(_db: Connection) -> set[str]:
    told = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["recommend", "--help"]).output
    return set(NAMES) & set(re.findall(r"\w+", told))


PLACES: Final[dict[str, Callable[[Connection], set[str]]]] = {
    "the columns of rec.score": columns_of("select * from rec.score('ann', '{a}')"),
    "the columns of rec.recommend": columns_of("select * from rec.recommend('ann')"),
    "the columns of rec_internal.terms": columns_of(
        "select t.* from rec_internal.ranker('default') r cross join"
        " rec_internal.profile_of('ann', r) p cross join rec_internal.terms('{a}', p, r) t"
    ),
    "the weights of rec.rankers": lambda db: weights(
        [column.name for column in db.execute("table rec.rankers").description or ()]
    ),
    "the comments on these": commented,
    "the sum in rec.score": weighed,
    "the shares of rec.explain_list": explained,
    "rec_internal.tunable_settings": tunable,
    "rec_internal.change_settings": changeable,
    "rec_pkg.models.Ranker": lambda _: weights(list(models.Ranker.__table__.columns.keys())),
    "rec_pkg.queries.Recommendation": lambda _: (
        {field.name for field in dataclasses.fields(queries.Recommendation)}
        - {"rank", "item_id", "title", "domain", "score", "topic", "path"}
    ),
    "rec_pkg.queries.Recommendations": lambda _: (
        set(queries.Recommendations.__annotations__) - {"rank", "item_id", "score", "topic", "path"}
    ),
    "the columns of rec_pkg.tuning": lambda _: {
        term for term, _ in Shape(decays=(0.5,), half_lives_s=(1.0,)).columns
    },
    "what a visit lifts in rec_pkg.tuning": lambda _: set(LIFTED),
    "pgrec recommend --help": helped,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_term_is_in_every_place_and_no_other(varied: Connection, place: str) -> None:
    found = PLACES[place](varied)
    assert set(NAMES) - found == set(), f"missing in {place}"
    assert found - set(NAMES) == set(), f"only in {place}"


def test_every_term_is_told_of_in_the_document_on_ranking() -> None:
    document = ROOT / "docs" / "ranking.md"
    if not document.exists():
        pytest.skip("docs/ranking.md is not written yet")
    told = document.read_text(encoding="utf-8")
    assert [name for name in NAMES if not re.search(rf"\b{name}\b", told)] == []


def test_each_term_of_a_score_is_not_0_for_some_item(varied: Connection) -> None:
    """Or the tests above would not tell one term from none."""
    totals = ", ".join(f"max(abs({name}))" for name in NAMES)
    row = varied.execute(
        f"select {totals} from rec.score('ann', %s, p_ranker => 'even')", [ITEMS]
    ).fetchone()
    assert row
    assert [name for name, total in zip(NAMES, row, strict=True) if not total] == []


def test_a_score_is_the_sum_of_its_terms_by_weight_and_sign(varied: Connection) -> None:
    total = " + ".join(f"{term.sign} * r.{term.weight} * s.{term.name}" for term in TERMS)
    for ranker in ("default", "even"):
        rows = varied.execute(
            f"select s.score, {total} from rec.score('ann', %s, p_ranker => %s) s"
            " join rec.rankers r on r.ranker = %s",
            [ITEMS, ranker, ranker],
        ).fetchall()
        assert len(rows) == len(ITEMS)
        assert [row[0] for row in rows] == pytest.approx([row[1] for row in rows])
