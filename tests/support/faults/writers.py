"""Applications that write events, each with a dedupe key, and try again when the line breaks."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import psycopg

from tests.support.faults.world import ITEMS

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS: Final = 20
RETRY_S: Final = 0.05
WORDS: Final = ("sea", "wool", "violet", "kettle", "snow", "garden", "clock", "novel")


class Stream:
    """Threads that do something again and again until the block ends; an error ends the test."""

    def __init__(self, number: int) -> None:
        self.stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._try, args=(place,), daemon=True)
            for place in range(number)
        ]
        self._wrong: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        if self._wrong and not any(error):
            raise self._wrong[0]

    def _try(self, place: int) -> None:
        try:
            self.run(place)
        except BaseException as error:  # noqa: BLE001  # told where the block ends
            self._wrong.append(error)

    def run(self, place: int) -> None:
        """Go on until `stopping` is set; `place` tells the threads apart."""
        raise NotImplementedError


class Writers(Stream):
    """Threads that insert a stream of events on items, texts, or both, until the block ends."""

    def __init__(self, address: str, number: int = 8, pause_s: float = 0.02) -> None:
        super().__init__(number)
        self._address = address
        self._pause_s = pause_s
        self.acknowledged: list[str] = []
        """Keys of events whose COMMIT was answered."""
        self.broken = 0
        """How often a line broke and the same event was sent again."""

    def run(self, place: int) -> None:
        """Write one event after the other."""
        chance = random.Random(place)
        events = self._events(place, chance)
        while not self.stopping.is_set():
            key, arguments = next(events)
            self._send(arguments)
            self.acknowledged.append(key)
            time.sleep(chance.uniform(0, 2 * self._pause_s))
        self._close()

    def _events(self, writer: int, chance: random.Random) -> Iterator[tuple[str, list[str | None]]]:
        number = 0
        while True:
            number += 1
            item = f"item {chance.randint(1, ITEMS)}" if chance.random() < 0.8 else None
            text = (
                " ".join(chance.choices(WORDS, k=3)) if not item or chance.random() < 0.2 else None
            )
            key = f"{writer}/{number}"
            yield key, [f"user {chance.randint(1, USERS)}", item, text, key]

    def _send(self, arguments: list[str | None]) -> None:
        while True:
            try:
                self._connection().execute(
                    "select rec.track(%s, %s, p_text => %s, p_dedupe_key => %s)", arguments
                )
            except psycopg.OperationalError:
                self.broken += 1
                self._close()
                time.sleep(RETRY_S)
            else:
                return

    _local = threading.local()

    def _connection(self) -> psycopg.Connection[tuple[object, ...]]:
        if getattr(self._local, "line", None) is None:
            self._local.line = psycopg.connect(self._address, autocommit=True)
        line: psycopg.Connection[tuple[object, ...]] = self._local.line
        return line

    def _close(self) -> None:
        line = getattr(self._local, "line", None)
        self._local.line = None
        if line is not None:
            line.close()
