"""What analysts see: no small numbers, and released ones with noise within a budget."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import exp, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from rec_pkg.cli import app
from rec_pkg.errors import BadInput, BudgetSpent
from rec_pkg.operations.releasing import Question, release, with_noise

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.clock

Connection = psycopg.Connection[tuple[Any, ...]]

DAY = datetime(2026, 3, 1, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)
DRAWS = 4000
BOUND = 5.2
"""In standard errors: by chance it is passed once in five million times."""


@pytest.fixture
def town(db: Connection) -> Connection:
    """Twelve users click on item a, of whom nine buy b as well; one of another kind, elsewhere."""
    db.execute("insert into rec.items (item_id, domain) values ('a', 'shop'), ('b', 'shop')")
    db.execute("insert into rec.items (item_id, domain) values ('rare', 'attic')")
    db.execute(
        "insert into rec.events (user_id, item_id, kind, occurred_at)"
        " select 'user ' || n, 'a', 'click', %(at)s from generate_series(1, 12) n"
        " union all select 'user ' || n, 'b', 'purchase', %(at)s from generate_series(1, 9) n"
        " union all select 'user 1', 'rare', 'like', %(at)s from generate_series(1, 50) n",
        {"at": DAY + timedelta(hours=5)},
    )
    return db


@pytest.fixture
def analyst(town: Connection) -> Iterator[Connection]:
    """The same as a role that may read the views and nothing else."""
    role = f"analyst_{town.info.dbname}"
    town.execute(f"create role {role}")
    town.execute(f"grant usage on schema rec to {role}")
    town.execute(f"grant select on rec.daily_counts, rec.item_counts to {role}")
    town.execute(f"grant create on schema public to {role}")
    town.execute(f"set role {role}")
    try:
        yield town
    finally:
        town.execute("reset role")
        town.execute(f"drop owned by {role}")
        town.execute(f"drop role {role}")


def test_counts_of_few_users_are_left_out_however_many_events_they_have(town: Connection) -> None:
    daily = "select domain, kind, events, users from rec.daily_counts order by kind"
    assert town.execute(daily).fetchall() == [("shop", "click", 12, 12)]
    assert town.execute("select * from rec.item_counts").fetchall() == [("a", 12, 12)]
    town.execute("update rec.settings set minimum_cohort = 9")
    assert town.execute(daily).fetchall() == [("shop", "click", 12, 12), ("shop", "purchase", 9, 9)]


def test_an_analyst_reads_the_views_and_no_table(analyst: Connection) -> None:
    assert analyst.execute("select users from rec.daily_counts").fetchall() == [(12,)]
    engine = ("rec_internal.pending", "rec_internal.popularity")
    for table in ("rec.events", "rec.user_interests", "rec.releases", *engine):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            analyst.execute(f"select from {table}")


def test_a_function_of_the_analyst_never_sees_what_is_left_out(analyst: Connection) -> None:
    analyst.execute(
        "create function public.peek(p text) returns boolean language plpgsql cost 0.0001 as"
        " $$ begin raise notice '%', p; return true; end $$"
    )
    seen: list[str] = []
    analyst.add_notice_handler(lambda notice: seen.append(notice.message_primary or ""))
    analyst.execute("select * from rec.item_counts where public.peek(item_id)")
    analyst.execute("select * from rec.daily_counts where public.peek(kind)")
    assert seen == ["a", "click"]


def test_a_user_counts_under_so_many_keys_and_every_key_is_told(town: Connection) -> None:
    def counts(by: str, keys: int) -> dict[str, int]:
        call = "select * from rec_internal.bounded_counts(%s, %s, %s, %s)"
        return dict(town.execute(call, [by, DAY, NEXT, keys]).fetchall())

    kinds = town.execute("select array_agg(kind) from rec.event_kinds").fetchone()
    assert kinds
    assert set(counts("kind", 1)) == set(kinds[0])
    assert sum(counts("kind", 1).values()) == 12
    assert sum(counts("kind", 2).values()) == 12 + 9
    assert counts("item", 3) == {"a": 12, "b": 9, "rare": 1}
    assert counts("domain", 1).keys() == {"attic", "shop"}
    town.execute("delete from rec.events where user_id = 'user 1'")
    assert sum(counts("item", 2).values()) == 21 - 2


@pytest.mark.parametrize(("distance", "epsilon"), [(1, 1.0), (3, 0.5)])
def test_the_noise_is_that_of_a_discrete_laplace_of_the_promised_scale(
    distance: int, epsilon: float
) -> None:
    noise = np.array(with_noise([100] * DRAWS, distance, epsilon)) - 100
    ratio = exp(-epsilon / distance)
    variance = 2 * ratio / (1 - ratio) ** 2
    size = 2 * ratio / (1 - ratio**2)
    zeros = (1 - ratio) / (1 + ratio)
    for found, expected, spread in (
        (noise.mean(), 0, sqrt(variance)),
        (np.abs(noise).mean(), size, sqrt(variance - size**2)),
        ((noise == 0).mean(), zeros, sqrt(zeros * (1 - zeros))),
    ):
        assert abs(found - expected) < BOUND * spread / sqrt(DRAWS)


def test_a_repeated_question_gets_the_recorded_answer_and_costs_nothing(town: Connection) -> None:
    question = Question("kind", DAY, NEXT, epsilon=0.7)
    answer = release(town, question)
    town.execute("delete from rec.events")
    elsewhere = DAY.astimezone(datetime.strptime("+0800", "%z").tzinfo)
    assert release(town, Question("kind", elsewhere, NEXT, epsilon=0.7)) == answer
    assert town.execute("select epsilon from rec.releases").fetchall() == [(0.7,)]
    with pytest.raises(BudgetSpent, match=r"0\.3"):
        release(town, Question("kind", DAY, NEXT, epsilon=0.31))
    release(town, Question("domain", DAY, NEXT, epsilon=0.3))


def test_of_two_releases_at_once_that_would_cost_too_much_one_is_refused(
    town: Connection, database_url: str
) -> None:
    del town
    outcomes: list[str] = []
    together = threading.Barrier(4)

    def ask(by: str, keys: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as own:
            together.wait()
            try:
                release(own, Question(by, DAY, NEXT, 0.6, keys))
                outcomes.append("answered")
            except BudgetSpent:
                outcomes.append("refused")

    asked = [("kind", 1), ("domain", 1), ("item", 1), ("kind", 2)]
    threads = [threading.Thread(target=ask, args=one) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["answered", "refused", "refused", "refused"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "user"},
        {"until": DAY},
        {"until": datetime.now(UTC) + timedelta(hours=1)},
        {"epsilon": 0.0},
        {"epsilon": float("nan")},
        {"keys_per_user": 0},
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        replace(Question("kind", DAY, NEXT, epsilon=0.1), **wrong)


def test_released_counts_are_printed(town: Connection, database_url: str) -> None:
    arguments = ["release", "kind", "item", "--since", "2026-03-01", "--until", "2026-03-02"]
    result = CliRunner().invoke(
        app, [*arguments, "--epsilon", "0.5"], env={"PGREC_DATABASE_URL": database_url}
    )
    assert result.exit_code == 0, result.output
    assert "purchase" in result.output
    assert "rare" in result.output
    assert town.execute("select sum(epsilon) from rec.releases").fetchone() == (1,)
