"""Leak-free evaluation of the recommender on a log, through the real tables and functions."""

from rec_pkg.evaluation.run import Options, evaluate

__all__ = ["Options", "evaluate"]
