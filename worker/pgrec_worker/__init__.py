"""The worker process: it encodes what is new and folds events into the stored interests."""

from pgrec_worker.process import run

__all__ = ["run"]
