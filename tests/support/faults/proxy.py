"""A line that can be cut, slowed, or left half open."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK: Final = 65536


class Proxy:
    """
    Forwards a port of 127.0.0.1 to another one, until it is told otherwise.

    `hang` is what a router does that forgot a connection: both ends stay connected, whatever is
    sent is swallowed, and none is told. Connections made after `heal` are good.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.delay_s = 0.0
        self._hangs = False
        self._refuses = False
        self._pairs: list[_Pair] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._refuses = True
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection, as a server does whose process ends."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    def hang(self) -> None:
        self._hangs = True
        for pair in self._pairs:
            pair.dead = True

    def refuse(self) -> None:
        """Cut every connection, and every new one at once."""
        self._refuses = True
        self.cut()

    def heal(self) -> None:
        self._hangs = self._refuses = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self._refuses:
                    client.close()
                    continue
                pair = _Pair(client, self._target, lambda: self.delay_s)
                pair.dead = self._hangs
                self._pairs.append(pair)


class _Pair:
    """A connection of a client and ours to the server for it."""

    def __init__(self, client: socket.socket, target: int, delay: Callable[[], float]) -> None:
        self.dead = False
        self._delay = delay
        self._ends = client, socket.create_connection(("127.0.0.1", target))
        for source, sink in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                time.sleep(self._delay())
                if not self.dead:
                    sink.sendall(data)
        if not self.dead:
            self.close()
