"""The worker process: encodes new texts and items and folds events into the stored interests."""

from pgrec_worker.process import run

__all__ = ["run"]
