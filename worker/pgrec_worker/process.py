"""The worker process: signals, the connection to the server, and recovery when it breaks."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import psycopg
import structlog

from pgrec_worker import logs
from pgrec_worker.failures import meaning
from pgrec_worker.loop import Loop
from pgrec_worker.metrics import Metrics
from pgrec_worker.store import Store
from rec_pkg.encoder import open_encoder
from rec_pkg.encoder.provider import provider_name
from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from rec_pkg.encoder import Encoder
    from rec_pkg.settings import Settings

LONGEST_PAUSE_S: Final = 30.0
REMEMBERED: Final = 20  # sessions of connections that broke before they could be used

log = structlog.get_logger("worker")


def run(settings: Settings, conninfo: str, *, once: bool = False) -> None:
    """
    Work until SIGTERM or SIGINT; with `once`, until the queue is empty.

    A second signal ends the process immediately. Either way nothing is lost: the server rolls back
    unfinished work, and the next worker does it again.

    Raises:
        SchemaMissing, SchemaMismatch, EncoderMismatch: if the database does not fit this worker.
        Pooled: if notifications do not arrive.
    """
    logs.configure(settings.log_format)
    encoder = open_encoder(
        settings.encoder, settings.cache_dir, settings.threads, settings.provider
    )
    if encoder.provider != provider_name(settings.provider):
        log.warning(
            "the execution provider is unavailable, encoding on another one",
            wanted=settings.provider,
            provider=encoder.provider,
        )
    metrics = Metrics()
    if settings.metrics_port and not once:
        _serve(metrics, settings)
    asyncio.run(_work(settings, conninfo, encoder, metrics, once=once))


def _serve(metrics: Metrics, settings: Settings) -> None:
    """Serve the metrics, but go without if another worker has the default port."""
    try:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    except BadInput as error:
        if "metrics_port" in settings.model_fields_set:
            raise
        log.warning(
            "no metrics from this worker: the port is taken, set PGREC_METRICS_PORT to another one",
            error=str(error),
        )


async def _work(
    settings: Settings, conninfo: str, encoder: Encoder, metrics: Metrics, *, once: bool
) -> None:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    log.info(
        "worker starts: encodes new texts and items, folds events into interests",
        encoder=encoder.record.name,
        fingerprint=encoder.fingerprint[:12],
        provider=encoder.provider,
        poll_seconds=settings.poll_seconds,
        metrics_port=0 if once else settings.metrics_port,
    )
    failures = 0
    life = _Life(settings, conninfo, encoder, metrics, stopping)
    while not stopping.is_set():
        try:
            await life.live(once=once)
            break
        except psycopg.Error as error:
            if once:
                raise
            failures = 1 if life.was_well else failures + 1
            metrics.reconnects.inc()
            await _pause(failures, error, stopping)
    log.info("worker stops")


class _Life:
    """Reconnects until told to stop; each connection ends sessions left by the previous one."""

    def __init__(
        self,
        settings: Settings,
        conninfo: str,
        encoder: Encoder,
        metrics: Metrics,
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._conninfo = conninfo
        self._encoder = encoder
        self._metrics = metrics
        self._stopping = stopping
        self._leftovers: defaultdict[str, list[int]] = defaultdict(list)
        self.was_well = False
        """Whether the last connection once emptied the queue."""

    async def live(self, *, once: bool) -> None:
        """Connect and work until told to stop; raise the driver's errors."""
        self.was_well = False
        async with Store.connect(self._conninfo, self._settings.silence_seconds) as store:
            loop = Loop(store, self._encoder, self._settings, self._metrics, self._stopping)
            place, sessions = store.lines.place, store.lines.sessions
            leftovers = self._leftovers[place]
            self._leftovers[place] = [*leftovers, *sessions][-REMEMBERED:]
            await loop.prepare()
            await store.end_sessions(leftovers)
            self._leftovers[place] = sessions
            try:
                await loop.run(once=once)
            finally:
                self.was_well = loop.drained


def _stop_on_signals(stopping: asyncio.Event) -> None:
    """Let the first signal end the loop, and the second one the process."""
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        stopping.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)


async def _pause(failures: int, error: psycopg.Error, stopping: asyncio.Event) -> None:
    """
    Wait before the next try: longer after each failure, with jitter, but never through a stop.

    A library's retries would sleep through a stop, or be cancelled together with the work.
    """
    pause = random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 0.1 * 2 ** min(failures, 20))
    log.warning(meaning(error), error=str(error).strip(), retry_in_seconds=round(pause, 2))
    try:
        async with asyncio.timeout(pause):
            await stopping.wait()
    except TimeoutError:
        return
