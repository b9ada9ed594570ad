"""The worker's log: JSON lines for machines, short lines for a terminal."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor


def configure(log_format: Literal["auto", "console", "json"]) -> None:
    """Send the log to stderr; `auto` picks lines for a terminal and JSON otherwise."""
    console = sys.stderr.isatty() if log_format == "auto" else log_format == "console"
    last: Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
