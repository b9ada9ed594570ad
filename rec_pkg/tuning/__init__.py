"""Fits the ranker to the log of its deployment."""

from rec_pkg.tuning.run import Judgement, Options, Replay, fit, prepare
from rec_pkg.tuning.store import Store

__all__ = ["Judgement", "Options", "Replay", "Store", "fit", "prepare"]
