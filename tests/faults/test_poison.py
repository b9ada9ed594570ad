"""Rows that cannot be used: each is parked by itself, with its reason, and can be tried again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.workers import wait_until, worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.faults.tally import Faults
    from tests.support.faults.world import Connection, World

REFUSE_ITEM_9 = """
    create function public.refuse() returns trigger language plpgsql
    as $$ begin raise exception 'item 9 is cursed'; end $$;
    create trigger refuse before insert on rec_internal.item_deltas for each row
    when (new.to_item = 'item 9') execute function public.refuse();
"""
REASONS = (
    "EncoderInvalid: The encoder does not produce what its record declares.",
    "ZeroDivisionError",
    "its vector is zero, or not finite in half precision",
)
"""Of poison, panic and nan."""


@pytest.fixture
def impatient(db: Connection) -> Connection:
    db.execute("update rec.settings set max_attempts = 2")
    return db


def track(db: Connection, key: str, item: str | None = None, text: str | None = None) -> None:
    arguments = [item, text, key]
    db.execute("select rec.track('ann', %s, p_text => %s, p_dedupe_key => %s)", arguments)


def status(db: Connection, figure: str) -> int:
    row = db.execute(f"select {figure} from rec.status").fetchone()
    assert row
    return int(row[0])


def parked(db: Connection) -> dict[str, str]:
    """Reasons by dedupe key, once nothing else waits."""
    wait_until(lambda: status(db, "pending") == 0)
    rows = db.execute(
        "select e.dedupe_key, p.error from rec.parked p join rec.events e using (user_id, event_id)"
    )
    return dict(rows.fetchall())


def retry(world: World, database: str) -> None:
    command = [sys.executable, "-m", "rec_pkg", "retry"]
    subprocess.run(
        command, check=True, env=os.environ | {"PGREC_DATABASE_URL": world.url(database)}
    )


def test_of_a_users_events_only_the_refused_one_is_parked(
    world: World, impatient: Connection, database: str, faults: Faults, tmp_path: Path
) -> None:
    impatient.execute(REFUSE_ITEM_9)
    keys = [f"{user}{number}" for number in range(5, 15) for user in "ab"]
    for key in keys:
        arguments = [key[0], f"item {key[1:]}", key]
        impatient.execute("select rec.track(%s, %s, p_dedupe_key => %s)", arguments)
    with worker(world.url(database), tmp_path) as one:
        reasons = parked(impatient)
        assert reasons.keys() == {"a9", "b9"}
        assert all("item 9 is cursed" in reason for reason in reasons.values())
        assert impatient.execute(
            "select user_id, mass from rec.user_interests where horizon = 'count' order by 1"
        ).fetchall() == [("a", pytest.approx(9)), ("b", pytest.approx(9))]
        impatient.execute("drop trigger refuse on rec_internal.item_deltas")
        retry(world, database)
        assert faults.survived(impatient, keys) == len(keys)
        assert parked(impatient) == {}
        assert one.process.poll() is None


@pytest.mark.full
def test_texts_that_the_encoder_chokes_on_are_parked_alone(
    world: World, impatient: Connection, database: str, faults: Faults, tmp_path: Path
) -> None:
    texts = {"refused": "poison", "broken": "panic", "no number": "nan", "good": "blue sea"}
    for key, text in texts.items():
        track(impatient, key, "item 1", text)
    with worker(world.url(database), tmp_path):
        assert parked(impatient) == {
            key: f"the text cannot be encoded: {reason}"
            for key, reason in zip(("refused", "broken", "no number"), REASONS, strict=True)
        }
    with worker(world.url(database), tmp_path, settings={"MENDED": "1"}) as one:
        retry(world, database)
        assert faults.survived(impatient, texts) == len(texts)
        assert one.process.poll() is None


@pytest.mark.full
def test_items_that_the_encoder_chokes_on_hold_up_none_but_their_events(
    world: World, impatient: Connection, database: str, faults: Faults, tmp_path: Path
) -> None:
    for number, title in enumerate(("poison", "panic", "nan"), 1):
        arguments = [title, f"item {number}"]
        impatient.execute("update rec.items set title = %s where item_id = %s", arguments)
    for number in range(1, 8):
        track(impatient, str(number), f"item {number}")
    with worker(world.url(database), tmp_path):
        assert parked(impatient) == {
            str(number): f"item 'item {number}' cannot be encoded: {reason}"
            for number, reason in enumerate(REASONS, 1)
        }
        assert impatient.execute("select items_failed from rec.status").fetchone() == (3,)
        impatient.execute("update rec.items set title = 'mended' where encode_error is not null")
        retry(world, database)
        assert faults.survived(impatient, map(str, range(1, 8))) == 7


def test_what_an_event_names_may_vanish_while_it_waits(
    world: World, impatient: Connection, database: str, faults: Faults, tmp_path: Path
) -> None:
    impatient.execute("insert into rec.event_kinds (kind, weight) values ('nod', 1)")
    impatient.execute("select rec.track('ann', 'item 1', 'nod', p_dedupe_key => 'kind')")
    track(impatient, "deleted", "item 2")
    track(impatient, "missing", "no such item")
    track(impatient, "good", "item 3")
    impatient.execute("delete from rec.event_kinds where kind = 'nod'")
    impatient.execute("delete from rec.items where item_id = 'item 2'")
    with worker(world.url(database), tmp_path):
        assert parked(impatient) == {
            "kind": "unknown event kind 'nod'",
            "deleted": "unknown item 'item 2'",
            "missing": "unknown item 'no such item'",
        }
        impatient.execute("insert into rec.event_kinds (kind, weight) values ('nod', 1)")
        impatient.execute("insert into rec.items (item_id) values ('item 2'), ('no such item')")
        retry(world, database)
        assert faults.survived(impatient, ["kind", "deleted", "missing", "good"]) == 4


@pytest.mark.full
def test_an_event_is_not_left_parked_when_its_item_came_in_the_same_instant(
    world: World, impatient: Connection, database: str, faults: Faults, tmp_path: Path
) -> None:
    with worker(world.url(database), tmp_path) as first:
        wait_until(lambda: status(impatient, "items_to_encode") == 0)
        first.process.send_signal(signal.SIGSTOP)
        track(impatient, "late", "comes late")
        with world.connect(database) as folding, folding.transaction():
            folding.execute("select rec.apply_pending()")  # parks it, not seen by anyone yet
            impatient.execute("insert into rec.items (item_id) values ('comes late')")
            with worker(world.url(database), tmp_path):
                wait_until(
                    lambda: (
                        impatient.execute("select items_to_encode from rec.status").fetchone()
                        == (0,)
                    )
                )
        assert parked(impatient) == {"late": "unknown item 'comes late'"}
        with worker(world.url(database), tmp_path):
            wait_until(lambda: status(impatient, "parked") == 0)
            assert faults.survived(impatient, ["late"]) == 1
