"""The worker process: what it drains, what it refuses, how it stops."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import psycopg
import pytest

from pgrec_worker.loop import Loop
from pgrec_worker.metrics import Metrics
from pgrec_worker.store import Store
from rec_pkg.encoder import Encoder, load_record
from rec_pkg.encoder.calibration import Calibration
from rec_pkg.errors import EncoderInvalid, EncoderMismatch, SchemaMismatch
from rec_pkg.operations.calibrating import calibrate, uncalibrate
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

Connection = psycopg.Connection[tuple[Any, ...]]

PATIENCE_S = 60.0
JEANS = "品牌牛仔裤"


@pytest.fixture
def shelf(db: Connection, encoder: Encoder) -> Connection:
    """A few items that no worker has seen yet. The encoder's files are there."""
    del encoder
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into rec.items (item_id, title, domain) values (%s, %s, %s)",
            [
                ("jeans", "Slim blue jeans", "shop"),
                ("shirt", "White cotton T-shirt", "shop"),
                ("novel", "A novel of the sea", "book"),
                ("soup", "A cookbook of soups", "book"),
            ],
        )
    return db


@contextmanager
def worker(url: str, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A worker process on the database, ended with the block if it still runs."""
    environment = os.environ | {
        "PGREC_DATABASE_URL": url,
        "PGREC_METRICS_PORT": "0",
        "PGREC_POLL_SECONDS": "600",
        "PGREC_LOG_FORMAT": "json",
        **variables,
    }
    command = [sys.executable, "-m", "rec_pkg", "worker", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, "the worker does not answer"
        time.sleep(0.02)


def drained(db: Connection) -> bool:
    row = db.execute("select pending + items_to_encode + deltas from rec.status").fetchone()
    return row == (0,)


def held(db: Connection, lock: str) -> bool:
    """Whether a worker holds this lock."""
    row = db.execute(
        "select count(*) from pg_locks l join pg_database d on d.oid = l.database"
        " where d.datname = current_database() and l.locktype = 'advisory'"
        " and l.objsubid = 1 and l.mode = 'ExclusiveLock' and l.granted"
        " and (l.classid::bigint << 32) | l.objid::bigint"
        " = case %s when 'sleep' then rec_internal.sleep_lock() else rec_internal.rest_lock() end",
        [lock],
    ).fetchone()
    return row == (1,)


def sleeping(db: Connection) -> bool:
    return held(db, "sleep")


def top(db: Connection, user: str) -> str:
    row = db.execute("select item_id from rec.recommend(%s, 1)", [user]).fetchone()
    assert row
    return str(row[0])


def test_a_worker_clears_what_an_erasure_left(shelf: Connection, database_url: str) -> None:
    def cleared() -> bool:
        row = shelf.execute("select every(state = 'cleared') from rec.erasure_status").fetchone()
        return row == (True,)

    shelf.execute("select rec.track('ann', 'novel')")
    with worker(database_url, PGREC_POLL_SECONDS="0.5"):  # a snapshot may hold the rows at first
        wait_until(lambda: drained(shelf) and sleeping(shelf))
        shelf.execute("select rec.forget_user('ann')")
        wait_until(cleared)
    shelf.execute("select rec.forget_user('bob')")
    with worker(database_url, "--once") as process:
        assert process.wait(PATIENCE_S) == 0
    assert cleared()


def test_a_worker_without_the_wanted_provider_says_so_and_encodes_all_the_same(
    shelf: Connection, database_url: str
) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with worker(database_url, "--once", PGREC_PROVIDER="cuda") as process:
        _, log = process.communicate(timeout=PATIENCE_S)
    (said,) = [line for line in map(json.loads, log.splitlines()) if line["level"] == "warning"]
    assert (said["wanted"], said["provider"]) == ("cuda", "cpu")
    assert drained(shelf)


def test_once_drains_everything_and_ends(shelf: Connection, database_url: str) -> None:
    shelf.execute("select rec.track('ann', p_kind => 'wish', p_text => %s)", [JEANS])
    shelf.execute("select rec.track('bob', 'novel')")
    with worker(database_url, "--once") as process:
        assert process.wait(PATIENCE_S) == 0
    assert drained(shelf)
    assert top(shelf, "ann") == "jeans"
    assert top(shelf, "bob") == "soup"


def test_a_sleeping_worker_wakes_for_an_event_and_stops_on_sigterm(
    shelf: Connection, database_url: str
) -> None:
    with worker(database_url) as process:
        wait_until(lambda: drained(shelf) and sleeping(shelf))
        shelf.execute("select rec.track('ann', p_kind => 'wish', p_text => %s)", [JEANS])
        wait_until(lambda: drained(shelf))
        assert top(shelf, "ann") == "jeans"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr
        log = process.stderr.read()
    assert "worker starts" in log
    assert "worker stops" in log


def test_ctrl_c_ends_it_without_a_traceback(shelf: Connection, database_url: str) -> None:
    with worker(database_url) as process:
        wait_until(lambda: sleeping(shelf))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr
        assert "Traceback" not in process.stderr.read()


def test_two_workers_fold_each_event_once(shelf: Connection, database_url: str) -> None:
    with worker(database_url), worker(database_url):
        for number in range(200):
            shelf.execute(
                "insert into rec.events (user_id, item_id, text) values (%s, %s, %s)",
                [f"user {number % 7}", "novel", f"word {number % 11}" if number % 3 else None],
            )
        wait_until(lambda: drained(shelf))
    differences = shelf.execute(
        "select max(abs(u.mass - r.mass)), max(u.interest <-> r.interest)"
        " from rec.user_interests u, rec_internal.replay(u.user_id) r where r.horizon = u.horizon"
    ).fetchone()
    assert differences
    assert differences == (pytest.approx(0, abs=1e-4), pytest.approx(0, abs=1e-4))
    assert shelf.execute("select count(*) from rec.events").fetchone() == (200,)


def test_a_killed_worker_loses_nothing(shelf: Connection, database_url: str) -> None:
    for _ in range(3):
        with worker(database_url) as process:
            for number in range(50):
                shelf.execute("select rec.track('ann', p_text => %s)", [f"words of {number}"])
            process.kill()
    with worker(database_url, "--once") as process:
        assert process.wait(PATIENCE_S) == 0
    assert drained(shelf)
    row = shelf.execute(
        "select max(abs(u.mass - r.mass)) from rec.user_interests u, rec_internal.replay('ann') r"
        " where r.horizon = u.horizon"
    ).fetchone()
    assert row == (pytest.approx(0, abs=1e-4),)


def test_it_refuses_a_database_of_another_encoder(shelf: Connection, database_url: str) -> None:
    shelf.execute("select rec_internal.register_encoder(%s, 'other', '{}', 384)", ["b" * 64])
    with worker(database_url) as process:
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr
        assert "another encoder" in process.stderr.read()


COLOURS = ("red", "blue", "green", "black", "white", "violet", "brown", "pink", "grey", "beige")
THINGS = ("shirt", "coat", "novel", "lamp", "kettle", "tent", "violin", "clock", "chair", "bicycle")
KINDS = ("for children", "from Japan", "of wool", "of wood", "for two", "of 1920", "old", "new")


@pytest.fixture
def stock(shelf: Connection) -> Connection:
    """As many items as a calibration needs."""
    titles = [
        f"{colour} {thing} {kind}" for colour in COLOURS for thing in THINGS for kind in KINDS
    ]
    with shelf.cursor() as cursor:
        cursor.executemany(
            "insert into rec.items (item_id, title) values (%s, %s)", enumerate(titles)
        )
    return shelf


def arrive(db: Connection, name: str) -> None:
    """Add an item, and an event on it with a text; nothing of it is encoded yet."""
    title, text = f"{name}: a violet tent", f"to sleep {name}"
    db.execute("insert into rec.items (item_id, title) values (%s, %s)", [name, title])
    db.execute("select rec.track('ann', %s, p_text => %s)", [name, text])


def error(db: Connection, encoder: Encoder, name: str) -> float:
    """How far what is stored of `arrive` is from what belongs into the active space."""
    title, text = f"{name}: a violet tent", f"to sleep {name}"
    expected = np.concatenate(
        [encoder.encode_items([title], [title]), encoder.encode([text], "query")]
    )
    ((calibration,),) = db.execute(
        "select calibration from rec_internal.encoders where active"
    ).fetchall()
    if calibration is not None:
        expected = Calibration.from_bytes(calibration, encoder.dims).apply(expected)
    rows = db.execute(
        "select embedding from rec.item_vectors where item_id = %s"
        " union all select embedding from rec_internal.texts"
        " where text_hash = rec_internal.content_hash(%s)",
        [name, text],
    ).fetchall()
    return float(np.abs(np.array([row[0].to_numpy() for row in rows]) - expected).max())


def refused(db: Connection) -> bool:
    """Whether a worker could not store and looks whether the vectors have moved by now."""
    query = "select true from pg_stat_activity where datname = current_database() and query = %s"
    return db.execute(query, ["select rec_internal.try_share_space()"]).fetchone() is not None


@pytest.mark.slow
def test_a_worker_follows_a_calibration_and_the_way_back(
    stock: Connection, database_url: str, encoder: Encoder
) -> None:
    def meanwhile(name: str) -> Callable[[str, int, int], None]:
        def on_progress(what: str, done: int, _: int) -> None:
            if what == "users" and done == 0:
                with psycopg.connect(database_url, autocommit=True) as other:
                    arrive(other, name)
                    wait_until(lambda: refused(other))

        return on_progress

    with worker(database_url) as process:
        arrive(stock, "before")
        wait_until(lambda: drained(stock))
        calibrate(stock, on_progress=meanwhile("during"))
        arrive(stock, "after")
        wait_until(lambda: drained(stock))
        for name in ("before", "during", "after"):
            assert error(stock, encoder, name) < 2e-3
        uncalibrate(stock, meanwhile("on the way back"))
        wait_until(lambda: drained(stock))
        assert error(stock, encoder, "on the way back") < 2e-3
        assert process.poll() is None
    assert stock.execute("select parked, items_failed from rec.status").fetchone() == (0, 0)


@pytest.mark.slow
def test_a_worker_that_starts_after_a_calibration_works_in_its_space(
    stock: Connection, database_url: str, encoder: Encoder, squeamish: Encoder
) -> None:
    drain(database_url, encoder)
    calibrate(stock)
    arrive(stock, "after")
    with worker(database_url, "--once") as process:
        assert process.wait(PATIENCE_S) == 0
    assert error(stock, encoder, "after") < 2e-3
    assert stock.execute("select pending, parked from rec.status").fetchone() == (0, 0)
    squeamish.fingerprint = "b" * 64
    with pytest.raises(EncoderMismatch, match="another encoder"):
        drain(database_url, squeamish)


def test_metrics_are_served(shelf: Connection, database_url: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with worker(database_url, PGREC_METRICS_PORT=str(port)):
        shelf.execute("select rec.track('ann', 'novel')")
        wait_until(lambda: drained(shelf) and sleeping(shelf))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    assert "pgrec_events_folded_total 1.0" in text
    assert 'pgrec_encoded_total{what="item"} 4.0' in text
    assert "pgrec_lag_seconds" in text
    if sys.platform == "linux":
        assert "process_resident_memory_bytes" in text


class Squeamish(Encoder):
    """The real encoder, but one word makes it fail."""

    def encode(self, texts: Sequence[str], *arguments: Any) -> NDArray[np.float32]:  # noqa: ANN401
        if any("poison" in text for text in texts):
            raise EncoderInvalid(f"no \0 or \ud800 is\nfit to print{'!' * 1000}")
        return super().encode(texts, *arguments)


def drain(url: str, encoder: Encoder, *, prepare: bool = True) -> None:
    """Drain the database once, in this process."""

    async def work() -> None:
        async with Store.connect(url) as store:
            loop = Loop(store, encoder, Settings(), Metrics(), asyncio.Event())
            if prepare:
                await loop.prepare()
            await loop.run(once=True)

    asyncio.run(work())


@contextmanager
def running(url: str, encoder: Encoder) -> Iterator[None]:
    """A worker in this process, until the end of the block."""
    stopping = asyncio.Event()
    started: SimpleQueue[asyncio.AbstractEventLoop] = SimpleQueue()

    async def work() -> None:
        started.put(asyncio.get_running_loop())
        async with Store.connect(url) as store:
            loop = Loop(store, encoder, Settings(poll_seconds=600), Metrics(), stopping)
            await loop.prepare()
            await loop.run()

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(asyncio.run, work())
        try:
            yield
        finally:
            started.get().call_soon_threadsafe(stopping.set)
            working.result()


def encoded(db: Connection, text: str) -> bool:
    query = "select from rec_internal.texts where text_hash = rec_internal.content_hash(%s)"
    return db.execute(query, [text]).rowcount == 1


def test_texts_are_encoded_while_a_worker_rests(
    shelf: Connection, database_url: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrec_worker.loop.REST_S", 3600.0)
    with running(database_url, encoder):
        wait_until(lambda: drained(shelf) and sleeping(shelf))
        shelf.execute("select rec.track('ann', 'novel')")
        wait_until(lambda: drained(shelf) and held(shelf, "rest"))
        for text in ("sea stories", "soup recipes"):
            shelf.execute("select rec.track('ann', p_text => %s)", [text])
            wait_until(lambda text=text: encoded(shelf, text))  # type: ignore[misc]
        wait_until(lambda: held(shelf, "rest"))
        assert shelf.execute("select count(*) from rec_internal.pending").fetchone() == (2,)


def test_a_text_that_comes_while_events_are_folded_is_encoded_meanwhile(
    shelf: Connection, database_url: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain(database_url, encoder)
    shelf.execute("select rec.track('ann', 'novel')")
    fold = Store.apply_pending

    async def fold_for_long(store: Store, limit: int) -> int:
        folded = await fold(store, limit)
        if folded and not encoded(shelf, "sea stories"):
            shelf.execute("select rec.track('bob', p_text => 'sea stories')")
            await asyncio.to_thread(wait_until, lambda: encoded(shelf, "sea stories"))
        return folded

    monkeypatch.setattr(Store, "apply_pending", fold_for_long)
    drain(database_url, encoder)

    assert encoded(shelf, "sea stories")
    assert drained(shelf)


def test_texts_are_encoded_while_a_transaction_with_another_one_is_open(
    shelf: Connection, database_url: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrec_worker.resting.LONGEST_LINGER_S", 3600.0)
    with psycopg.connect(database_url) as writer:
        writer.execute("select rec.track('bob', p_text => 'a warm coat')")  # will not notify
        with running(database_url, encoder):
            for text in ("sea stories", "soup recipes"):
                shelf.execute("select rec.track('ann', p_text => %s)", [text])
                wait_until(lambda text=text: encoded(shelf, text))  # type: ignore[misc]
            writer.commit()
            wait_until(lambda: encoded(shelf, "a warm coat"))


@pytest.fixture
def squeamish(encoder: Encoder) -> Encoder:
    del encoder
    settings = Settings()
    return Squeamish(load_record(settings.encoder), settings.cache_dir)


def test_one_bad_text_does_not_hold_up_the_others(
    shelf: Connection, database_url: str, squeamish: Encoder
) -> None:
    shelf.execute("update rec.settings set max_attempts = 1")
    shelf.execute("insert into rec.items (item_id, title) values ('bad', 'poison ivy')")
    for text in ("sea stories", "poison", "soup recipes"):
        shelf.execute("select rec.track('ann', p_text => %s)", [text])
    shelf.execute("select rec.track('ann', 'bad')")
    drain(database_url, squeamish)
    parked = shelf.execute("select error from rec.parked order by event_id").fetchall()
    said = f"EncoderInvalid: {inspect.getdoc(EncoderInvalid)} (no or ? is fit to print!!!"
    for (error,), before in zip(
        parked, ("the text cannot be encoded: ", "item 'bad' cannot be encoded: "), strict=True
    ):
        assert error.startswith(before + said)
        assert len(error) == len(before) + 500
    assert shelf.execute("select pending, items_failed from rec.status").fetchone() == (0, 1)
    assert shelf.execute("select count(*) from rec.item_vectors").fetchone() == (4,)


def test_a_text_that_came_just_before_a_fold_is_not_encoded_later_for_it(db: Connection) -> None:
    """The fold puts it off for seconds; it has the vector by then."""
    db.execute("select rec.track('ann', p_text => 'a warm coat')")
    assert db.execute("select rec.apply_pending()").fetchone() == (0,)
    assert db.execute("select retry_at > now() from rec_internal.pending").fetchone() == (True,)
    assert db.execute("select text from rec_internal.claim_texts(8)").fetchall() == [
        ("a warm coat",)
    ]
    db.execute("select rec_internal.park(array['ann'], array[1::bigint], 'no')")
    assert db.execute("select text from rec_internal.claim_texts(8)").fetchall() == []


def test_what_was_given_up_can_be_tried_again(
    shelf: Connection, database_url: str, squeamish: Encoder, encoder: Encoder
) -> None:
    shelf.execute("update rec.settings set max_attempts = 1")
    shelf.execute("insert into rec.items (item_id, title) values ('bad', 'poison ivy')")
    shelf.execute("select rec.track('ann', 'bad', p_text => 'poison')")
    drain(database_url, squeamish)
    assert shelf.execute("select rec.retry(), rec.retry_items()").fetchone() == (1, 1)
    drain(database_url, encoder)
    assert drained(shelf)
    assert shelf.execute("select parked from rec.status").fetchone() == (0,)


def test_a_database_of_another_version_or_encoder_is_refused(
    shelf: Connection, database_url: str, encoder: Encoder
) -> None:
    shelf.execute("update rec_internal.state set sql_digest = 'older'")
    with pytest.raises(SchemaMismatch):
        drain(database_url, encoder)
    shelf.execute("select rec_internal.register_encoder(%s, 'other', '{}', 384)", ["b" * 64])
    with pytest.raises((SchemaMismatch, EncoderMismatch)):
        drain(database_url, encoder)


def test_a_changed_item_is_encoded_again(
    shelf: Connection, database_url: str, encoder: Encoder
) -> None:
    drain(database_url, encoder)
    query = "select embedding from rec.item_vectors where item_id = 'novel'"
    before = shelf.execute(query).fetchone()
    shelf.execute("update rec.items set title = 'Warm winter coat' where item_id = 'novel'")
    drain(database_url, encoder)
    assert shelf.execute(query).fetchone() != before
    assert shelf.execute(
        "select item_id from rec.similar_items('novel', 1, p_domain => 'shop')"
    ).fetchone() in {("shirt",), ("jeans",)}
