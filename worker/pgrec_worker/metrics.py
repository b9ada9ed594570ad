"""The Prometheus metrics of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from pgrec_worker.store import Queue


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory and processor, if /proc exists
        self.folded = Counter(
            "pgrec_events_folded", "Events folded into stored interests", registry=self.registry
        )
        self.encoded = Counter(
            "pgrec_encoded", "Texts and items encoded", ["what"], registry=self.registry
        )
        self.failures = Counter(
            "pgrec_failures", "Events and items that could not be processed", registry=self.registry
        )
        self.reconnects = Counter(
            "pgrec_reconnects", "Times the connection to the server broke", registry=self.registry
        )
        self.fold_seconds = Histogram(
            "pgrec_fold_seconds", "Time of folding a batch", registry=self.registry
        )
        self.encode_seconds = Histogram(
            "pgrec_encode_seconds", "Time of encoding a batch", registry=self.registry
        )
        self._pending = Gauge("pgrec_pending", "Events not folded yet", registry=self.registry)
        self._parked = Gauge("pgrec_parked", "Events parked with an error", registry=self.registry)
        self._lag = Gauge(
            "pgrec_lag_seconds", "Age of the oldest event not folded", registry=self.registry
        )
        self._items = Gauge(
            "pgrec_items_to_encode", "Items without a vector", registry=self.registry
        )

    def observe(self, queue: Queue) -> None:
        """Set the metrics of the queue."""
        self._pending.set(queue.pending)
        self._parked.set(queue.parked)
        self._lag.set(queue.lag_seconds)
        self._items.set(queue.items_to_encode)

    def serve(self, host: str, port: int) -> None:
        """
        Serve scrapes at http://host:port/metrics until the process ends.

        Raises:
            BadInput: if the address cannot be used.
        """
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise BadInput(f"metrics endpoint {host}:{port}: {error.strerror}") from error
