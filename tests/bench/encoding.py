"""
Time the encoder beside the naive one, and the worker beside the encoder.

    python tests/bench/encoding.py [--repeats 4] [--folder DIR] [--out FILE]

Texts are the titles and texts of the products in ../shared/data/industrial; where that is absent,
those of the sample catalogue. What is timed has one thread, so that what the server does beside it
is not taken from it.
"""

from __future__ import annotations

import asyncio
import csv
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from psycopg.conninfo import make_conninfo
from support import Target, arguments, filled_database, report, server, side_by_side

from pgrec_worker import logs
from pgrec_worker.loop import Loop
from pgrec_worker.metrics import Metrics
from pgrec_worker.store import Store
from rec_pkg.encoder import Encoder, open_encoder
from rec_pkg.encoder.corpus import calibration_corpus
from rec_pkg.encoder.item_text import item_text, item_title
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from support import Connection

    Vectors = NDArray[np.float32]

DATA: Final = Path(__file__).resolve().parents[3] / "shared" / "data" / "industrial"
TEXTS: Final = 256
NAIVE: Final = 128
BUDGETS: Final = (512, 1024)
ENTER: Final = """
    insert into rec.events (user_id, text, kind)
    select 'user ' || n %% 50, t.text, 'wish' from unnest(%s::text[]) with ordinality t (text, n)
"""
FORGET: Final = """
    truncate rec.events, rec_internal.pending, rec_internal.texts, rec.user_interests,
        rec_internal.item_deltas
"""


class Item(NamedTuple):
    """What is encoded of an item."""

    title: str
    text: str


def products() -> list[Item]:
    """The products, or the sample catalogue twice over."""
    if not DATA.is_dir():
        return [Item(sample.text, sample.text + " ") for sample in calibration_corpus()]
    with (DATA / "items.csv").open(encoding="utf-8", newline="") as file:
        return [
            Item(
                item_title(row["title"]),
                item_text(row["title"], row["body"], {"brand": row["brand"]}, []),
            )
            for row in csv.DictReader(file)
        ]


def opened(name: str, threads: int = 1) -> Encoder:
    return open_encoder(name, Settings().cache_dir, threads)


def naive(encoder: Encoder, texts: Sequence[str]) -> None:
    """One batch, as long as the longest text, in the order in which they came."""
    model = encoder._model  # noqa: SLF001  # what it is made of shows nowhere else
    tokens = model._tokenize([encoder.record.query_prefix + text for text in texts])  # noqa: SLF001
    model._run(tokens, max(map(len, tokens)))  # noqa: SLF001


class Bare:
    """The session of an encoder and nothing else: texts are tokenized, sorted and padded before."""

    def __init__(self, encoder: Encoder, texts: Sequence[str], budget: int) -> None:
        model = encoder._model  # noqa: SLF001  # the same session
        self.session = model._session  # noqa: SLF001
        lines = [encoder.record.query_prefix + text for text in texts]
        tokens = sorted(model._tokenize(lines), key=len)  # noqa: SLF001
        self.feeds: list[dict[str, NDArray[np.int64]]] = []
        while tokens:
            size = next(
                (n - 1 for n in range(2, len(tokens) + 1) if n * len(tokens[n - 1]) > budget),
                len(tokens),
            )
            batch, tokens = tokens[:size], tokens[size:]
            ids = np.ones((size, len(batch[-1])), np.int64)
            for row, sequence in enumerate(batch):
                ids[row, : len(sequence)] = sequence
            self.feeds.append({"input_ids": ids, "attention_mask": (ids != 1).astype(np.int64)})

    def run(self) -> None:
        for feed in self.feeds:
            self.session.run(None, feed)


def encoders(texts: Sequence[str], repeats: int) -> dict[str, float]:
    """Milliseconds for a text: as it is shipped, and as it would be done first."""
    shipped, plain = opened("e5-small"), opened("e5-small-fp32")
    variants: dict[str, Callable[[], object]] = {
        "naive: float32, one padded batch": partial(naive, plain, texts),
        "float32, sorted": partial(plain.encode, texts, "query"),
        "shipped encoder": partial(shipped.encode, texts, "query"),
    }
    times = side_by_side(variants, repeats)
    return {name: statistics.median(values) / len(texts) for name, values in times.items()}


class Worker:
    """A worker in this process, whose queue is filled and drained."""

    def __init__(self, db: Connection, encoder: Encoder) -> None:
        self.db = db
        self.address = make_conninfo(db.info.dsn, password=db.info.password or None)
        self.encoder = encoder

    def drained(self, texts: Sequence[str]) -> tuple[float, float]:
        """Seconds for all that follows from events with new texts, and again with the same."""
        self.db.execute(FORGET)
        return self._entered(texts), self._entered(texts)

    def _entered(self, texts: Sequence[str]) -> float:
        self.db.execute(ENTER, [list(texts)])
        return asyncio.run(self._drain())

    async def _drain(self) -> float:
        async with Store.connect(self.address) as store:
            loop = Loop(store, self.encoder, Settings(), Metrics(), asyncio.Event())
            await loop.prepare()
            start = time.perf_counter()
            await loop.drain()
            return time.perf_counter() - start


def working(db: Connection, texts: Sequence[str], repeats: int) -> dict[str, float]:
    """Milliseconds for a text: through the worker, known already, and in the bare session."""
    encoder = opened("e5-small")
    worker = Worker(db, encoder)
    bare = {budget: Bare(encoder, texts, budget) for budget in BUDGETS}
    times: dict[str, list[float]] = {}
    for turn in range(repeats + 1):
        new, known = worker.drained(texts)
        took = {"worker, new texts": new, "worker, known texts": known}
        took |= {f"bare session, batches of {budget}": timed(each) for budget, each in bare.items()}
        for name, seconds in took.items() if turn else ():
            times.setdefault(name, []).append(seconds * 1000 / len(texts))
    return {name: statistics.median(values) for name, values in times.items()}


def timed(bare: Bare) -> float:
    start = time.perf_counter()
    bare.run()
    return time.perf_counter() - start


def resident_mb(db: Connection, texts: Sequence[str]) -> float:
    """The most memory that `pgrec worker` held while it encoded items and long texts."""
    db.execute(FORGET)
    db.execute(ENTER, [[f"{n} " + " ".join(texts[n : n + 60]) for n in range(64)]])
    db.execute(
        "insert into rec.items (item_id, title, body)"
        " select 'i' || n, t.text, repeat(t.text, 1000)"
        " from unnest(%s::text[]) with ordinality t (text, n)",
        [list(texts)],
    )
    environment = os.environ | {
        "PGREC_DATABASE_URL": make_conninfo(db.info.dsn, password=db.info.password or None),
        "PGREC_THREADS": "1",
    }
    command = [sys.executable, "-m", "rec_pkg", "worker", "--once"]
    worker = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(worker.pid, 0)
    worker.returncode = os.waitstatus_to_exitcode(status)
    if worker.returncode:
        raise RuntimeError(f"the worker ended with {worker.returncode}")
    return usage.ru_maxrss / (1 << 10 if sys.platform == "linux" else 1 << 20)


def ratios(times: dict[str, float]) -> list[Target]:
    """What is compared with what."""
    bare = min(times[f"bare session, batches of {budget}"] for budget in BUDGETS)
    gain = times["naive: float32, one padded batch"] / times["shipped encoder"]
    cached = times["worker, new texts"] / times["worker, known texts"]
    return [
        Target(
            "worker_over_encoder",
            "texts a second: worker / bare session, best batches",
            bare / times["worker, new texts"],
            0.92,
            at_most=False,
        ),
        Target("encoder_gain", "shipped / float32, one padded batch", gain, 3, at_most=False),
        Target("cached_text_gain", "known texts / new texts", cached, 20, at_most=False),
    ]


def main() -> None:
    """Run everything."""
    options = arguments("Time the encoder and the worker.")
    logs.configure("console")
    texts = list(dict.fromkeys(text for item in products() for text in item))[:TEXTS]
    with (
        server(options.folder) as address,
        filled_database(address, "pgrec_bench_texts", lambda _: None) as db,
    ):
        memory = resident_mb(db, texts)  # first: a child starts with what its parent holds
        times = working(db, texts, options.repeats)
    times |= encoders(texts[:NAIVE], options.repeats)
    rss = Target("worker_rss_mb", "most memory of a worker, MB", memory, 768, at_most=True)
    report([*ratios(times), rss], times, options.out)


if __name__ == "__main__":
    main()
