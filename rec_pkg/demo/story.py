"""The story of `pgrec demo`: two people's words and clicks, and the lists that follow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rec_pkg import database, schema
from rec_pkg.client import Client
from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.encoder import fetch
from rec_pkg.encoder.records import load_record
from rec_pkg.errors import WorkerSilent
from rec_pkg.loading import load_items
from rec_pkg.models import Item
from rec_pkg.settings import Settings
from rec_pkg.words import reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from sqlalchemy.engine import Engine

    from rec_pkg.queries import Recommendation, Share

    Worker = subprocess.Popen[bytes]

CATALOGUE: Final = files("rec_pkg.demo") / "catalogue" / "items.jsonl"
WISH: Final = "我喜欢浏览一些时尚的衣服，特别是品牌T恤和牛仔裤"
WISH_IN_ENGLISH: Final = "I like browsing fashionable clothes, especially brand T-shirts and jeans"
READER, SHOPPER = "demo-lin", "demo-kate"
COOKING: Final = ("book-en-001", "book-zh-003", "shop-en-037")
LENGTH: Final = 10
QUOTED: Final = 12
TITLE_WIDTH: Final = 30
PATIENCE_S: Final = 120.0


def play(settings: Settings, console: Console, database_url: str | None = None) -> None:
    """
    Set everything up, play the story on `console`, and leave the server running for the user.

    Args:
        settings: from the environment; the database they name is left alone.
        console: shows the story.
        database_url: a database to play in; None means the embedded server.

    Raises:
        WorkerSilent: if the worker ends or does not answer.
    """
    server = None if database_url else EmbeddedServer(settings.data_dir, settings.pg_bin)
    address = server.start() if server else str(database_url)
    settings = settings.model_copy(update={"database_url": SecretStr(address)})
    _prepare(settings, console)
    engine = database.open_engine(settings)
    try:
        with background_worker(address) as worker:
            _wait_for_worker(engine, worker, console)
            Story(engine, worker, console).tell()
    finally:
        engine.dispose()
    _say_how_to_go_on(address, console, embedded=server is not None)


def _prepare(settings: Settings, console: Console) -> None:
    record = load_record(settings.encoder)
    with console.status(f"Preparing the encoder {record.name} (once, about half a minute)"):
        fetch(record, settings.cache_dir)
    engine = database.open_engine(settings)
    schema.migrate(engine, dims=record.dims)
    engine.dispose()
    with (
        as_file(CATALOGUE) as path,
        database.connect(settings) as connection,
        Progress(console=console) as progress,
    ):
        task = progress.add_task("Loading the sample catalogue", total=None)
        load_items(
            connection,
            path,
            on_progress=lambda _, done, total: progress.update(task, completed=done, total=total),
        )


@contextmanager
def background_worker(address: str) -> Iterator[Worker]:
    """Run `pgrec worker` in the background; its log is shown only if it fails."""
    command = [sys.executable, "-P", "-m", "rec_pkg", "worker", "--metrics-port", "0"]
    environment = os.environ | {"PGREC_DATABASE_URL": address}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stderr=log, env=environment) as process,  # noqa: S603  # our own
    ):
        try:
            yield process
        except WorkerSilent:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            process.terminate()


def _wait_for_worker(engine: Engine, worker: Worker, console: Console) -> None:
    client = Client(engine)
    with console.status("Starting the worker"):
        wait_until(lambda: client.status().workers > 0, worker, pause_s=0.05)
    left = total = _to_encode(engine)
    with Progress(console=console) as progress:
        task = progress.add_task("Encoding the items", total=max(total, 1))
        while left:
            before = left
            wait_until(lambda: _to_encode(engine) < before, worker, pause_s=0.1)  # noqa: B023  # called at once
            left = _to_encode(engine)
            progress.update(task, completed=total - left)
        progress.update(task, completed=max(total, 1))


def _to_encode(engine: Engine) -> int:
    """Return how many items of the sample catalogue still lack a vector."""
    lines = CATALOGUE.read_text(encoding="utf-8").splitlines()
    ours = Item.item_id.in_([json.loads(line)["item_id"] for line in lines])
    with Session(engine) as session:
        return session.scalar(select(func.count()).where(Item.stale, ours)) or 0


def wait_until(done: Callable[[], bool], worker: Worker, pause_s: float = 0.0) -> None:
    """
    Return as soon as `done()` is true.

    Raises:
        WorkerSilent: if the worker ends first, or PATIENCE_S pass.
    """
    end = time.monotonic() + PATIENCE_S
    while not done():
        if worker.poll() is not None or time.monotonic() > end:
            raise WorkerSilent
        time.sleep(pause_s)


@dataclass(frozen=True)
class Change:
    """A list that changed after an event, and the seconds from the event's COMMIT to the list."""

    items: list[Recommendation]
    seconds: float


class Story:
    """The story of two new users and their lists."""

    def __init__(self, engine: Engine, worker: Worker, console: Console) -> None:
        self._engine = engine
        self._worker = worker
        self._client = Client(engine)
        self._console = console

    def tell(self) -> None:
        """Play all steps. Both users are erased first, so that they are new each time."""
        for person in (READER, SHOPPER):
            self._client.forget(person)
        self._newcomer()
        first = self._wish()
        self._wish_in_english(first)
        self._clicks()
        self._dislike()

    def _newcomer(self) -> None:
        self._heading("1. Nobody knows Lin yet", "so the list shows trending and new items.")
        self._show(READER, self._list(READER))

    def _wish(self) -> list[Recommendation]:
        self._heading("2. Lin writes", WISH)
        change = self._after(READER, lambda: self._client.track(READER, kind="wish", text=WISH))
        self._show(READER, change.items, change.seconds)
        return change.items

    def _wish_in_english(self, first: Sequence[Recommendation]) -> None:
        self._heading("3. Kate writes the same in English", WISH_IN_ENGLISH)
        change = self._after(
            SHOPPER, lambda: self._client.track(SHOPPER, kind="wish", text=WISH_IN_ENGLISH)
        )
        self._show(SHOPPER, change.items, change.seconds)
        shared = {item.item_id for item in first} & {item.item_id for item in change.items}
        self._console.print(f"{len(shared)} of {LENGTH} items are on both lists.")

    def _clicks(self) -> None:
        titles = "; ".join(self._title(item) for item in COOKING)
        self._heading("4. Lin clicks on three things to cook with", titles)

        def click() -> None:
            for item in COOKING:
                self._client.track(READER, item)

        change = self._after(READER, click)
        self._show(READER, change.items, change.seconds)
        self._console.print("The clothes are still there: a new interest does not erase the old.")

    def _dislike(self) -> None:
        cooking = self._mostly_cooking(READER, self._list(READER))
        disliked = cooking[0]
        self._heading("5. Lin does not like", disliked.title)
        change = self._after(
            READER, lambda: self._client.track(READER, disliked.item_id, kind="dislike")
        )
        self._show(READER, change.items, change.seconds)
        left = len(self._mostly_cooking(READER, change.items))
        self._console.print(f"Things to cook with on the list: {len(cooking)} before, {left} now.")

    def _after(self, person: str, act: Callable[[], object]) -> Change:
        before = [item.item_id for item in self._list(person)]
        act()
        committed = time.perf_counter()
        changed: list[Recommendation] = []

        def differs() -> bool:
            changed[:] = self._list(person)
            return [item.item_id for item in changed] != before

        wait_until(differs, self._worker)
        return Change(changed, time.perf_counter() - committed)

    def _list(self, person: str) -> list[Recommendation]:
        return self._client.recommend(person, LENGTH)

    def _title(self, item_id: str) -> str:
        with Session(self._engine) as session:
            return session.get_one(Item, item_id).title

    def _mostly_cooking(self, person: str, items: Sequence[Recommendation]) -> list[Recommendation]:
        """Return the items whose strongest support is a click on something to cook with."""
        shares = self._client.explain_list(person, [item.item_id for item in items])
        return [item for item in items if _first_event(shares[item.item_id]) in COOKING]

    def _heading(self, title: str, text: str) -> None:
        self._console.print()
        self._console.rule(Text(title, "bold"), align="left")
        self._console.print(Text(text, "italic"))

    def _show(self, person: str, items: Sequence[Recommendation], seconds: float = 0) -> None:
        table = Table(box=None, pad_edge=False)
        for column in ("#", "item", "domain", "score", "why"):
            table.add_column(column, justify="right" if column in "#score" else "left")
        room = max(self._console.width - TITLE_WIDTH - 22, 24)
        shares = self._client.explain_list(person, [item.item_id for item in items])
        for item in items:
            told = reasons((s for s in shares[item.item_id] if s.kind != "dislike"), length=QUOTED)
            title, why = Text(item.title), Text(", ".join(told) or item.path)
            title.truncate(TITLE_WIDTH, overflow="ellipsis")
            why.truncate(room, overflow="ellipsis")
            table.add_row(str(item.rank), title, item.domain, f"{item.score:.2f}", why)
        self._console.print(table)
        if seconds:
            figure = f"{seconds * 1000:.0f} ms from COMMIT to this list"
            self._console.print(Text(figure, "green"))


def _first_event(shares: Sequence[Share]) -> str | None:
    """Return the item of the event that supports a score most; None if no event does."""
    events = [share for share in shares if share.event_id]
    return events[0].item_id if events and events[0].share > 0 else None


def _say_how_to_go_on(address: str, console: Console, *, embedded: bool) -> None:
    shown, _ = database.without_secrets(address)
    url = f'"{address if embedded else shown}"'
    elsewhere = not embedded or database.embedded_server(Settings()) is None
    query = (
        "select rank, title, score from rec.recommend(%s) join rec.items using (item_id)"
        " order by rank"
    ).replace("%s", f"'{READER}'")
    console.print()
    console.rule(Text("Continue by hand", "bold"), align="left")
    for line in (
        *(["For this database:", f"  export PGREC_DATABASE_URL={url}"] if elsewhere else []),
        "With psql:",
        f'  {_program()} psql -c "{query}"',
        f"With Python ({sys.executable}):",
        "  from rec_pkg import Client",
        f"  client = Client({url})",
        f'  client.track("{READER}", "film-en-001")',
        f'  for item in client.recommend("{READER}"): print(item.rank, item.title)',
        "To encode new texts and items, run a worker:",
        f"  {_program()} worker",
        *([f"The server keeps running; stop it with: {_program()} down"] if embedded else []),
    ):
        console.print(Text(line, "bold" if line.startswith("  ") else ""), soft_wrap=True)


def _program() -> str:
    return "pgrec" if shutil.which("pgrec") else sys.argv[0]
