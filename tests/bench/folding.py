"""
Time folding beside a bare aggregate, with one worker and with two, and from a text to its list.

    python tests/bench/folding.py [--repeats 4] [--folder DIR] [--out FILE]
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np
import psycopg
from psycopg_pool import ConnectionPool
from support import Target, arguments, report, server, small_shop, working

from rec_pkg.encoder import open_encoder
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from concurrent.futures import Future

    from support import Connection

ITEMS: Final = 20_000
USERS: Final = 2000
BATCH: Final = 5000
TEXTS: Final = 600
CEILING: Final = 64
PATIENCE_S: Final = 120.0
READERS: Final = 4
# Each at a moment of its own, for no two events of a user share one.
EVENTS: Final = (
    "insert into rec.events (user_id, item_id, occurred_at)"
    " select 'reader ' || n %% %s, 'i' || (n * 7919 + %s) %% 20000 + 1,"
    " now() - n * interval '10 us' from generate_series(1, %s) n"
)
# The norms have the sums computed and spare the server to write vectors out as text.
FLOOR: Final = """
    select sum(vector_norm(s.interest)) from (
        select e.user_id, h.horizon, sum(
            array_fill(0.5::real, array[vector_dims(v.embedding)])::vector * v.embedding::vector
        ) as interest
        from rec_internal.pending p
        join rec.events e using (user_id, event_id, occurred_at)
        join rec.item_vectors v on v.item_id = e.item_id
        cross join rec.horizons h
        group by e.user_id, h.horizon
    ) s
"""
# Tells when the vector of a text is there.
TELL: Final = """
    create function tell() returns trigger language plpgsql as
    $$ begin perform pg_notify('stored', encode(new.text_hash, 'hex')); return null; end $$;
    create trigger tell after insert on rec_internal.texts for each row execute function tell();
"""
WORDS: Final = [
    "shirt",
    "lamp",
    "blue",
    "garden",
    "summer",
    "quiet",
    "kettle",
    "wool",
    "trail",
    "oak",
]


def value(db: Connection, query: str, *parameters: object) -> int:
    row = db.execute(query, parameters).fetchone()
    return int(row[0]) if row else 0


def fold_all(url: str, sessions: int = 1) -> int:
    """Fold what waits with so many sessions at once, and return how many events."""
    folded: list[int] = []

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as db:
            while value(db, "select count(*) from rec_internal.pending limit 1"):
                folded.append(value(db, "select rec.apply_pending(%s)", BATCH))

    threads = [threading.Thread(target=work) for _ in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(folded)


def clear(db: Connection) -> None:
    db.execute("truncate rec_internal.item_deltas")
    db.execute("vacuum analyze rec_internal.pending")
    db.execute("vacuum analyze rec.user_interests")
    db.execute("vacuum analyze rec.events")


def over_floor(db: Connection, repeats: int) -> tuple[Target, dict[str, float]]:
    """Milliseconds, in one session, to sum up, fold and merge a thousand new events."""
    times: dict[str, list[float]] = {
        "bare aggregate": [],
        "fold 1,000 events": [],
        "merge 1,000 events": [],
    }
    for turn in range(repeats + 1):
        db.execute(EVENTS, [500, turn, BATCH])
        db.execute("analyze rec_internal.pending")
        start = time.perf_counter()
        db.execute(FLOOR).fetchall()
        middle = time.perf_counter()
        folded = 0
        while batch := value(db, "select rec.apply_pending(%s)", BATCH):
            folded += batch
        end = time.perf_counter()
        db.execute("select rec.merge_deltas()")
        merged = time.perf_counter()
        if turn:
            times["bare aggregate"].append((middle - start) * 1e6 / folded)
            times["fold 1,000 events"].append((end - middle) * 1e6 / folded)
            times["merge 1,000 events"].append((merged - end) * 1e6 / folded)
        clear(db)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    ratio = medians["bare aggregate"] / medians["fold 1,000 events"]
    what = "events a second, fold / bare aggregate"
    return Target("fold_over_floor", what, ratio, 0.5, at_most=False), medians


def two_workers(db: Connection, url: str, repeats: int) -> list[Target]:
    """How much more two sessions fold than one."""
    gains = []
    for turn in range(repeats + 1):
        rates = {}
        for sessions in (1, 2):
            db.execute(EVENTS, [USERS, turn, 4 * BATCH])
            start = time.perf_counter()
            folded = fold_all(url, sessions)
            rates[sessions] = folded / (time.perf_counter() - start)
            clear(db)
        if turn:
            gains.append(rates[2] / rates[1])
    what = "events folded a second, two workers / one"
    return [
        Target("two_workers", what, statistics.median(gains), 1.2, at_most=False),
        Target("two_workers_least", f"{what}, at the least", min(gains), 1, at_most=False),
    ]


def some_text(number: int) -> str:
    rng = random.Random(number)
    return f"{' '.join(rng.choices(WORDS, k=8))} {number}"


def text_hash(number: int) -> str:
    """Return the key in rec_internal.texts, in hex, of a text."""
    return sha256(some_text(number).encode()).hexdigest()


class Lags:
    """
    Seconds from the COMMIT of new texts to their vectors, and to the lists that these changed.

    A trigger tells when a vector is there; the list is asked for then, and once. Whoever asks over
    and over takes the processors from the worker that it waits for.
    """

    def __init__(self, url: str, readers: ConnectionPool) -> None:
        self._url = url
        self._readers = readers
        self.to_vector: list[float] = []
        self.to_list: list[float] = []

    def run(self, first: int, texts: int, rate: float) -> float:
        """
        Send texts at random moments, so many a second; return the seconds to the last list.

        Raises:
            TimeoutError: if they are not all encoded in time; the worker may have died.
        """
        users = {text_hash(number): f"writer {number}" for number in range(first, first + texts)}
        with (
            psycopg.connect(self._url, autocommit=True) as hearer,
            ThreadPoolExecutor(READERS + 1) as threads,
        ):
            hearer.execute("listen stored")
            sending = threads.submit(self._send, first, texts, rate)
            start = time.perf_counter()
            stored: dict[str, float] = {}
            asked: dict[str, Future[float]] = {}
            for notification in hearer.notifies(timeout=PATIENCE_S, stop_after=texts):
                text = notification.payload
                stored[text] = time.perf_counter()
                asked[text] = threads.submit(self._list, users[text])
            if len(stored) < texts:
                raise TimeoutError(f"{len(stored)} of {texts} texts were encoded")
            sent = sending.result()
            listed = {text: list_.result() for text, list_ in asked.items()}
        self.to_vector = [stored[text] - sent[text] for text in users]
        self.to_list = [listed[text] - sent[text] for text in users]
        return max(listed.values()) - start

    def _send(self, first: int, texts: int, rate: float) -> dict[str, float]:
        """Return the moments after each COMMIT."""
        rng = random.Random(first)
        sent = {}
        due = time.perf_counter()
        with psycopg.connect(self._url, autocommit=True) as db:
            for number in range(first, first + texts):
                due += rng.expovariate(rate)
                time.sleep(max(0, due - time.perf_counter()))
                db.execute(
                    "select rec.track(%s, p_text => %s)", [f"writer {number}", some_text(number)]
                )
                sent[text_hash(number)] = time.perf_counter()
        return sent

    def _list(self, user: str) -> float:
        """Ask for the list of a user and return when it is there."""
        with self._readers.connection() as db:
            db.execute("select item_id from rec.recommend(%s, 1)", [user]).fetchone()
        return time.perf_counter()


def round_trip(url: str, tries: int = 200) -> float:
    """Median seconds from sending a bare NOTIFY to its arrival in another session."""
    taken = []
    with (
        psycopg.connect(url, autocommit=True) as speaker,
        psycopg.connect(url, autocommit=True) as hearer,
    ):
        hearer.execute("listen bare")
        for _ in range(tries):
            start = time.perf_counter()
            speaker.execute("notify bare")
            next(hearer.notifies(timeout=5, stop_after=1))
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def text_lag(db: Connection, url: str) -> tuple[Target, dict[str, float]]:
    """The slowest hundredth of texts at half of what the worker can do, over its two parts."""
    settings = Settings()
    encoder = open_encoder(settings.encoder, settings.cache_dir, settings.threads)
    encodes = []
    for number in range(50):
        start = time.perf_counter()
        encoder.encode([some_text(-number)], "query")
        encodes.append(time.perf_counter() - start)
    notify = round_trip(url)
    db.execute("select rec_internal.make_vector_index()")  # lists search by it
    db.execute(TELL)
    readers = ConnectionPool(url, min_size=READERS, kwargs={"autocommit": True})
    with working(url), readers:
        lags = Lags(url, readers)
        lags.run(0, CEILING, 10_000)  # starts the worker, warms the sessions
        most = 2 * CEILING / lags.run(CEILING, 2 * CEILING, 10_000)
        lags.run(1000, TEXTS, most / 2)
    encode = statistics.median(encodes)
    slow = float(np.quantile(lags.to_list, 0.99))
    times = {
        "one text encoded": encode * 1000,
        "a bare NOTIFY": notify * 1000,
        f"text to vector at {most / 2:.0f} a second": statistics.median(lags.to_vector) * 1000,
        "text to vector, p99": float(np.quantile(lags.to_vector, 0.99)) * 1000,
        f"text to list at {most / 2:.0f} a second": statistics.median(lags.to_list) * 1000,
        "text to list, p99": slow * 1000,
    }
    what = "p99 from COMMIT to list at half load / one encode and one NOTIFY"
    return Target("text_lag_over_floor", what, slow / (encode + notify), 3, at_most=True), times


def main() -> None:
    """Run everything."""
    options = arguments("Time folding, two workers, and from a text to its list.")
    with server(options.folder) as address, small_shop(address, ITEMS) as (db, url):
        db.execute(EVENTS, [USERS, 0, 30 * USERS])
        fold_all(url)
        clear(db)
        fold, times = over_floor(db, options.repeats)
        workers = two_workers(db, url, options.repeats)
        lag, lag_times = text_lag(db, url)
    report([fold, *workers, lag], times | lag_times, options.out)


if __name__ == "__main__":
    main()
