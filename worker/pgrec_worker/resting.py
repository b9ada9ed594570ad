"""
What a worker does after a round that found little or nothing: it rests, or it sleeps.

    round --- found few events ---> rest    a tenth of a second in which the writers have the
      ^                              |      processor; texts that arrive meanwhile are encoded
      |<------- it is over ----------+
      |
      +------ found nothing ------> try to take the sleepers' lock
      |                              |
      |<-- rest a little, round <----+ busy: a writer that will not notify is about to commit
      |                              |
      |                              | asleep: this worker holds the lock, so that writers notify
      |                              | guarded: another worker holds it and is notified
      |                              v
      |<----- found something ---- one more round, which sees what came before the lock was taken
      |                              | found nothing
      |                              v
      +<-- notified, or time over -- wait for a NOTIFY; encode the text that woke it

Resting uses a lock of its own, with the same three answers, which makes writers of texts notify. It
is held while something else goes on: a rest, or the folding of events on another connection.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pgrec_worker.claiming import Claims
    from pgrec_worker.store import Store

LINGER_S: Final = 0.01
LONGEST_LINGER_S: Final = 0.25


class Resting:
    """The pauses of a loop. `poll_s` is the longest sleep without a notification."""

    def __init__(
        self, store: Store, claims: Claims, poll_s: float, stopping: asyncio.Event
    ) -> None:
        self._store = store
        self._claims = claims
        self._poll_s = poll_s
        self._stopping = stopping

    async def rest(self, seconds: float) -> None:
        """
        Leave the processor to the writers for a while; encode texts that arrive meanwhile.

        An event on a known item counts even before it is folded, so nobody waits for the worker.
        """
        resting = asyncio.ensure_future(asyncio.sleep(seconds))
        try:
            await self.encode_until(resting)
        finally:
            resting.cancel()

    async def encode_until(self, over: asyncio.Future[Any]) -> tuple[int, int]:
        """
        Encode the texts that arrive until something is over, or until told to stop.

        Returns:
            The number of texts, and the number of notifications of any event.
        """
        encoded = heard = 0
        state = "busy"
        try:
            while not over.done() and not self._stopping.is_set():
                if state == "busy":
                    state = await self._store.try_rest(LINGER_S)
                texts = await self._claims.encode_texts()
                encoded += texts
                if not texts and state != "busy":
                    heard += await self._until_notified(self._poll_s, over)
        finally:
            if state == "asleep":
                await self._store.stop_resting()
        return encoded, heard

    async def sleep(self, work: Callable[[], Awaitable[tuple[int, ...]]]) -> None:
        """
        Sleep until an event is announced, or at most for the time of the fallback poll.

        `work` does one round and returns how much of each kind of work that was.

        The check after taking the lock makes sure that no event is missed. It is a single round: a
        worker that kept going beside writers who never stop must rest in between. A text that woke
        the worker is encoded before anything else.
        """
        state = await self._store.try_sleep()
        linger_s = LINGER_S
        while state == "busy":  # a writer that will not notify is about to commit
            await self.rest(linger_s)
            if self._stopping.is_set() or any(await work()):
                return
            linger_s = min(2 * linger_s, LONGEST_LINGER_S)
            state = await self._store.try_sleep()
        try:
            if not any(await work()):
                await self._until_notified(await self._store.seconds_to_retry(self._poll_s))
                await self._claims.encode_all_texts()
        finally:
            if state == "asleep":
                await self._store.stop_sleeping()

    async def _until_notified(self, timeout_s: float, *others: asyncio.Future[Any]) -> bool:
        """Wait for a notification, a stop or `others`; return whether a notification came."""
        notified = asyncio.ensure_future(self._store.notified(timeout_s))
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({notified, stopped, *others}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not notified.done():
            notified.cancel()
        with suppress(asyncio.CancelledError):
            return await notified
        return False
