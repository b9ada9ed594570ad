"""`pgrec tune` on a deployment: what it changes, what it keeps, and the way back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from rec_pkg import tuning
from rec_pkg.cli import app
from rec_pkg.database import LIBPQ_VARIABLES
from rec_pkg.tuning import Store
from rec_pkg.tuning.log import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from typer.testing import Result

    Run = Callable[..., Result]

Connection = psycopg.Connection[tuple[Any, ...]]

N_ITEMS = 300
STEPS = 6
START = datetime(2024, 1, 1, tzinfo=UTC)
UNSET = dict.fromkeys(("PGREC_DATABASE_URL", "PGREC_DATA_DIR", *LIBPQ_VARIABLES))
PGREC = [sys.executable, "-c", "from rec_pkg.cli import app; app()"]
WRITTEN = "what ann wrote"


def fill(db: Connection, paths: Sequence[Sequence[int]]) -> None:
    """
    A catalogue of 300 items in 30 clusters, and the path of each user through it.

    All take a step an hour, each user some seconds after the one before.
    """
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(30, 384))[np.arange(N_ITEMS) // 10]
    vectors = unit((centres + generator.normal(size=(N_ITEMS, 384))).astype(np.float32))
    names = [f"i{item:03}" for item in range(N_ITEMS)]
    with db.cursor() as cursor:
        cursor.executemany("insert into rec.items (item_id) values (%s)", [(n,) for n in names])
        cursor.executemany(
            "insert into rec.item_vectors values (%s, %s::real[]::halfvec)",
            [(name, vector.tolist()) for name, vector in zip(names, vectors, strict=True)],
        )
        cursor.executemany(
            "insert into rec.events (user_id, item_id, occurred_at) values (%s, %s, %s)",
            [
                (f"user {user:03}", names[item], START + timedelta(hours=step, seconds=user))
                for user, path in enumerate(paths)
                for step, item in enumerate(path)
            ],
        )
    while db.execute("select rec.apply_pending(10000)").fetchone() != (0,):
        pass
    db.execute("select rec.merge_deltas()")
    db.execute("analyze rec.events")


def walks(n_users: int) -> list[list[int]]:
    """Most go on from each item to the next, from anywhere; some go elsewhere now and then."""
    generator = np.random.default_rng(1)
    starts = generator.integers(0, N_ITEMS, n_users)
    paths = [[int(start + step) % N_ITEMS for step in range(STEPS)] for start in starts]
    for path in paths[::3]:
        path[int(generator.integers(1, STEPS - 1))] = int(generator.integers(0, N_ITEMS))
    return paths


def noise(n_users: int) -> list[list[int]]:
    generator = np.random.default_rng(2)
    return [generator.permutation(N_ITEMS)[:STEPS].tolist() for _ in range(n_users)]


def runner(url: str) -> Run:
    """Run pgrec in this process on a database."""

    def run(*arguments: str, status: int = 0) -> Result:
        environment = UNSET | {"PGREC_DATABASE_URL": url, "COLUMNS": "120"}
        result = CliRunner().invoke(app, arguments, env=environment)
        assert result.exit_code == status, result.output
        assert not isinstance(result.exception, Exception), result.exception
        return result

    return run


@pytest.fixture(scope="module")
def deployment(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """URL of a shop of walkers whose ranker looks at contents alone; tests leave nothing behind."""
    with new_database() as url:
        with psycopg.connect(url, autocommit=True) as db:
            fill(db, walks(100))
            db.execute("update rec.rankers set transition_weight = 0, trend_weight = 0")
        yield url


@pytest.fixture
def shop(deployment: str) -> Iterator[Connection]:
    with psycopg.connect(deployment, autocommit=True) as db:
        register_vector(db)
        before = Store(db).settings("default").tunable
        yield db
        db.execute("select rec_internal.change_settings('default', %s)", [Jsonb(before)])
        db.execute("truncate rec.tunings restart identity")


@pytest.fixture
def run(deployment: str, shop: Connection) -> Run:  # noqa: ARG001  # it puts back what is changed
    return runner(deployment)


def state(db: Connection) -> tuple[object, ...]:
    """The settings, the records of tunings, and the counts."""
    settings = db.execute("select * from rec.settings, rec.rankers").fetchall()
    return settings, db.execute("select * from rec.tunings order by 1").fetchall(), counts(db)


def counts(db: Connection) -> list[float]:
    call = (
        "select log_mass, log_outgoing, log_incoming from rec_internal.popularity order by item_id"
    )
    return [mass for row in db.execute(call) for mass in row]


def tunable(db: Connection) -> dict[str, Any]:
    return dict(Store(db).settings("default").tunable)


def record(db: Connection, after: dict[str, Any], *, adopt: bool = True) -> int:
    return Store(db).record("default", after, {}, adopt=adopt)


def share_of_next_items(db: Connection) -> float:
    """How many of 30 users get the next item of their walk among their first three."""
    rows = db.execute(
        "select r.item_id = 'i' || lpad(((substr(e.item_id, 2)::integer + 1) % 300)::text, 3, '0')"
        " from (select distinct on (user_id) user_id, item_id from rec.events"
        "   order by user_id, occurred_at desc limit 30) e"
        " cross join lateral rec.recommend(e.user_id, 3) r"
    ).fetchall()
    return float(np.sum(rows)) / 30


# A deployment that can be ranked better


@pytest.mark.slow
def test_a_dry_run_changes_nothing_and_tuning_ranks_better(run: Run, shop: Connection) -> None:
    untouched, before, lists_before = state(shop), tunable(shop), share_of_next_items(shop)

    dry = json.loads(run("tune", "--dry-run", "--json").stdout)

    assert not dry["adopted"]
    assert dry["settings"]["before"] == before != dry["settings"]["after"]
    assert state(shop) == untouched

    said = run("tune").stdout

    kept = shop.execute("select before, after, figures, adopted, undone_at from rec.tunings")
    ((*settings, figures, adopted, undone_at),) = kept.fetchall()
    assert settings == [before, tunable(shop)]
    assert (adopted, undone_at) == (True, None)
    assert {"settings": dry["settings"], "figures": figures} == {
        "settings": {"before": settings[0], "after": settings[1]},
        "figures": dry["figures"],
    }, "the same seed gives the same"
    assert figures["users"] == 30
    assert figures["after"]["ndcg@10"]["mean"] > figures["before"]["ndcg@10"]["mean"] + 0.05
    assert figures["gain"]["ndcg@10"]["low"] > 0
    assert share_of_next_items(shop) > lists_before + 0.05
    assert "--undo restores the old ones" in said
    changed = {line.split()[0] for line in said.splitlines() if "_weight" in line}
    assert changed == {n for n in before if "_weight" in n and before[n] != settings[1][n]}


def test_another_seed_judges_by_other_users(shop: Connection) -> None:
    first, again, other = (
        set(tuning.prepare(Store(shop), tuning.Options(seed=seed)).judging.users)
        for seed in (0, 0, 1)
    )

    assert first == again != other


def test_users_are_either_learnt_from_or_judged_by(shop: Connection) -> None:
    replay = tuning.prepare(Store(shop), tuning.Options())

    learning, judging = set(replay.learning.users), set(replay.judging.users)
    assert len(learning) == 70
    assert len(judging) == 30
    assert not learning & judging


def test_only_what_came_since_a_moment_is_learnt_from(shop: Connection) -> None:
    since = START + timedelta(hours=4)

    replay = tuning.prepare(Store(shop), tuning.Options(since=since))

    log = replay.learning.terms.log
    assert log.at.min() < since.timestamp() <= log.at[replay.learning.events].min()


# The way back


def test_undo_brings_back_settings_and_counts_one_tuning_at_a_time(
    run: Run, shop: Connection
) -> None:
    first, first_counts = tunable(shop), counts(shop)
    record(shop, {"popularity_half_life": "1 day", "trend_weight": 3})
    second, second_counts = tunable(shop), counts(shop)
    record(shop, {"popularity_half_life": "2 days", "trend_weight": 9}, adopt=False)
    record(shop, {"popularity_half_life": "3 hours", "latest_decay": 0.3})
    assert first_counts != pytest.approx(second_counts)
    assert counts(shop) != pytest.approx(second_counts)

    assert json.loads(run("tune", "--undo", "--json").stdout) == {"undone": 3}
    assert tunable(shop) == second
    assert counts(shop) == pytest.approx(second_counts)
    assert "before tuning 1" in run("tune", "--undo").stdout
    assert tunable(shop) == first
    assert counts(shop) == pytest.approx(first_counts)
    last = run("tune", "--undo", status=1)
    assert last.stderr.splitlines() == [
        "pgrec: The input cannot be used. (there is no tuning to undo)"
    ]
    assert tunable(shop) == first
    undone = shop.execute("select undone_at is not null from rec.tunings order by tuning_id")
    assert undone.fetchall() == [(True,), (False,), (True,)]


def test_undo_cannot_be_tried_out(run: Run, shop: Connection) -> None:
    record(shop, {"trend_weight": 3})
    before = state(shop)

    assert "--dry-run" in run("tune", "--undo", "--dry-run", status=2).stderr
    assert state(shop) == before


def test_counts_are_those_of_the_new_half_life(shop: Connection) -> None:
    old = counts(shop)

    record(shop, {"popularity_half_life": "1 day"})

    new = counts(shop)
    assert new != pytest.approx(old)
    shop.execute("select rec.rebuild_collaborative()")
    assert counts(shop) == pytest.approx(new)


# Nothing to gain, nothing to go by


def test_a_log_of_noise_changes_nothing(db: Connection, database_url: str) -> None:
    fill(db, noise(60))
    before = tunable(db)

    found = json.loads(runner(database_url)("tune", "--json").stdout)

    assert not found["adopted"]
    assert found["figures"]["gain"]["ndcg@10"]["low"] <= 0
    assert tunable(db) == before
    kept = db.execute("select adopted, before, after, figures from rec.tunings").fetchall()
    assert kept == [(False, before, found["settings"]["after"], found["figures"])]
    assert "no tuning" in runner(database_url)("tune", "--undo", status=1).stderr


def test_too_small_a_log_is_told_what_is_missing(db: Connection, database_url: str) -> None:
    run = runner(database_url)
    assert "needs 30 users" in run("tune", status=1).stderr
    fill(db, [*walks(29), [7]])

    result = run("tune", "--json", status=1)

    assert result.stdout == ""
    assert "tuning needs 30 users who went on" in result.stderr
    assert "the log has 29" in result.stderr
    assert db.execute("select count(*) from rec.tunings").fetchone() == (0,)


# Interrupted


def busy(db: Connection, what: str) -> bool:
    call = (
        "select exists (select from pg_stat_activity a where a.datname = current_database()"
        " and a.pid <> pg_backend_pid() and "
    )
    return bool(db.execute(f"{call}{what})".encode()).fetchone() == (True,))


@pytest.mark.parametrize(
    "moment",
    [
        "a.state = 'idle' and a.query like 'select item_id, embedding%'",
        "a.wait_event_type = 'Lock' and a.query like 'select rec_internal.record_tuning%'",
    ],
    ids=["fitting", "writing"],
)
def test_an_interrupted_tuning_has_changed_nothing(
    deployment: str, shop: Connection, moment: str
) -> None:
    before = state(shop)
    with psycopg.connect(deployment) as holder:
        holder.execute("lock table rec.tunings in share row exclusive mode")
        process = subprocess.Popen(
            [*PGREC, "tune", "--since", "2024-01-01T04:00:00"],
            env=os.environ | {"PGREC_DATABASE_URL": deployment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            while not busy(shop, moment):
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, b"")
    assert b"Traceback" not in stderr
    assert state(shop) == before


# The functions


@pytest.mark.parametrize(
    "settings",
    [
        {"trend_weight": 101},
        {"latest_decay": 0},
        {"popularity_half_life": "-1 day"},
        {"latest_decay": 2},
        {"content_weight": None},
        {"content_weight": "much"},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_whole(
    shop: Connection, settings: dict[str, object]
) -> None:
    before = state(shop)

    for call in (
        "select rec_internal.change_settings('default', %s)",
        "select rec_internal.record_tuning('default', %s, '{}', true)",
    ):
        with pytest.raises(psycopg.Error):
            shop.execute(call, [Jsonb({"closest_weight": 7} | settings)])

    assert state(shop) == before


def test_only_tunable_settings_are_changed(shop: Connection) -> None:
    query = (
        "select r.candidates, s.keep_text, t.sql_digest"
        " from rec.rankers r, rec.settings s, rec_internal.state t"
    )
    before = shop.execute(query).fetchone()

    shop.execute(
        "select rec_internal.change_settings('default', %s)",
        [Jsonb({"candidates": 7, "sql_digest": "none", "keep_text": False, "trend_weight": 0.125})],
    )

    assert shop.execute(query).fetchone() == before
    assert tunable(shop)["trend_weight"] == 0.125


def test_tuning_reads_neither_users_nor_texts(db: Connection) -> None:
    for user, item, text in (("ann", "a", WRITTEN), ("zoe", None, WRITTEN), ("ann", None, "other")):
        db.execute(
            "insert into rec.events (user_id, item_id, kind, text) values (%s, %s, 'click', %s)",
            [user, item, text],
        )

    cursor = db.execute("select * from rec_internal.tuning_log(10)")

    assert [column.name for column in cursor.description or ()] == [
        "user_number",
        "item_id",
        "text_hash",
        "weight",
        "kind_weight",
        "marks_seen",
        "at",
    ]
    rows = cursor.fetchall()
    assert [row[:2] for row in rows] == [(0, "a"), (1, None), (0, None)]
    assert not {"ann", "zoe", WRITTEN} & {value for row in rows for value in row}
    assert rows[0][2] == rows[1][2] != rows[2][2]


def test_the_latest_events_are_read_oldest_first(db: Connection) -> None:
    for number in (2, 0, 3, 1):
        db.execute(
            "insert into rec.events (user_id, item_id, occurred_at) values ('ann', %s, %s)",
            [str(number), START + timedelta(days=number)],
        )

    rows = db.execute("select item_id from rec_internal.tuning_log(3)").fetchall()

    assert rows == [("1",), ("2",), ("3",)]
