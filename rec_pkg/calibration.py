"""
The linear calibration of an encoder: mean removal and soft whitening.

The vectors of a language model share a large common part and vary far more along a few directions
than along the rest. Cosines then differ little, and a difference of two vectors, such as a dislike,
says more about the common part than about the texts.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NO_DIRECTION: Final = 1e-6


@dataclass(frozen=True, eq=False)
class Calibration:
    """The map x -> unit((x - mean) @ matrix); mean is float32 (D,), matrix float32 (D, D)."""

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Return the calibrated unit vectors, float32 (n, D), of unit vectors (n, D).

        A vector that is the mean itself has no direction left and stays what it was.
        """
        moved = (vectors - self.mean) @ self.matrix
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        lost = norms < NO_DIRECTION
        return np.where(lost, vectors, moved / np.where(lost, 1, norms)).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the map to `path` (.npz) in one step: a reader sees all of it or nothing."""
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, mean=self.mean, matrix=self.matrix)
        os.replace(name, path)  # noqa: PTH105  # `name` is a str, as mkstemp gives it

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(mean=arrays["mean"], matrix=arrays["matrix"])


def fit_calibration(vectors: NDArray[np.floating], ridge: float) -> Calibration:
    """
    Fit mean removal and soft ZCA whitening on `vectors`, (n, D).

    An eigenvalue w of the covariance is scaled by g = sqrt((1 + ridge) m / (w + ridge m)), where m is
    the mean eigenvalue: full whitening as `ridge` goes to 0, mean removal alone as it grows, for
    then g is 1. The map is symmetric, so it turns a vector no further than it must.

    Raises:
        BadInput: if `ridge` is not positive, or fewer than two different vectors are given.
    """
    if ridge <= 0:
        raise BadInput(f"ridge {ridge} is not positive")
    sample = np.asarray(vectors, dtype=np.float64)
    if len(sample) == 0:
        raise BadInput("a calibration needs at least two vectors")
    mean = sample.mean(axis=0)
    matrix = _soft_whitening(np.cov(sample, rowvar=False, bias=True), ridge)
    return Calibration(mean=mean.astype(np.float32), matrix=matrix.astype(np.float32))


def _soft_whitening(covariance: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    eigenvalues, basis = np.linalg.eigh(covariance)
    eigenvalues = eigenvalues.clip(min=0)
    level = eigenvalues.mean()
    if level <= 0:
        raise BadInput("a calibration needs vectors that differ")
    gains = np.sqrt((1 + ridge) * level / (eigenvalues + ridge * level))
    whitening: NDArray[np.float64] = (basis * gains) @ basis.T
    return whitening
