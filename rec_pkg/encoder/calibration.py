"""
The linear calibration of an encoder: nuisance removal and soft whitening.

The vectors of a language model share a large common part, reflect a text's language and form (a
title, a sentence) more than its subject, and vary more along a few directions than along all
others. As a result cosines hardly differ, nearest neighbours are in the same language, and a
difference of vectors, such as a dislike, reflects the common part more than the texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

NO_DIRECTION: Final = 1e-6
"""Length below which a calibrated vector is only rounding error."""

NO_DIFFERENCE: Final = 1e-6
"""Singular value below which the groups' means differ only by rounding."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The map x -> unit((x - mean) @ matrix): mean is float32 (D,), matrix float32 (D, D)."""

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Return the calibrated unit vectors, float32 (n, D), of unit vectors (n, D).

        A vector that the map sends to zero, such as the mean, has no direction left and is returned
        unchanged.
        """
        # `@` is avoided: from four rows on, the threads of OpenBLAS keep spinning for tens of
        # milliseconds.
        moved = np.einsum("nd,de->ne", vectors - self.mean, self.matrix)
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        lost = norms < NO_DIRECTION
        return np.where(lost, vectors, moved / np.where(lost, 1, norms)).astype(np.float32)

    def invert(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Return the unit vectors, float32 (n, D), that `apply` turned into `vectors`, (n, D).

        `apply` keeps only the direction; the length can be recovered because its input had length
        1. Only a calibration fitted without groups has an inverse, because it removes nothing.
        """
        mean = self.mean.astype(np.float64)
        back = vectors @ np.linalg.inv(self.matrix.astype(np.float64))
        squares = (back**2).sum(axis=1, keepdims=True)
        along = (back @ mean)[:, np.newaxis]
        lengths = (np.sqrt(along**2 + squares * (1 - mean @ mean)) - along) / squares
        return np.asarray(mean + lengths * back, np.float32)

    def to_bytes(self) -> bytes:
        """Return mean, then matrix, as little-endian float32."""
        return np.vstack([self.mean, self.matrix]).astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, stored: bytes, dims: int) -> Calibration:
        """Read what `to_bytes` wrote."""
        rows = np.frombuffer(stored, "<f4").reshape(dims + 1, dims).astype(np.float32)
        return cls(mean=rows[0], matrix=rows[1:])

    def save(self, path: Path) -> None:
        """Write the map to `path`, which ends in .npz."""
        np.savez(path, mean=self.mean, matrix=self.matrix)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(mean=arrays["mean"], matrix=arrays["matrix"])


def fit_calibration(
    vectors: NDArray[np.floating], ridge: float, groups: Sequence[str] | None = None
) -> Calibration:
    """
    Fit a calibration on `vectors`, (n, D): mean removal, nuisance removal, soft ZCA whitening.

    `groups` names a nuisance for each vector, such as its language. The directions in which the
    groups' means differ are projected out (nuisance attribute projection, Solomonoff et al. 2005),
    so that all groups have the same mean afterwards. Without groups no direction is removed.

    An eigenvalue w of the covariance is then scaled by g = sqrt((1 + ridge) m / (w + ridge m)),
    where m is the mean eigenvalue. This is full whitening as `ridge` goes to 0; as `ridge` grows, g
    goes to 1, and only the removal remains. The map is symmetric, so it adds no rotation.

    Raises:
        BadInput: if `ridge` is not positive, or the vectors differ only between groups.
    """
    if not ridge > 0:
        raise BadInput(f"ridge {ridge} is not positive")
    sample = np.asarray(vectors, dtype=np.float64)
    means = _group_means(sample, groups or ["all"] * len(sample))
    centre = means.mean(axis=0)
    kept = _without_span(means - centre)
    whitening = _soft_whitening((sample - centre) @ kept, ridge)
    return Calibration(centre.astype(np.float32), (kept @ whitening).astype(np.float32))


def _group_means(sample: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
    if len(sample) == 0:
        raise BadInput("a calibration needs vectors")
    members = np.asarray(groups)
    return np.stack([sample[members == group].mean(axis=0) for group in dict.fromkeys(groups)])


def _without_span(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the projection, (D, D), onto the orthogonal complement of the rows."""
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    removed = directions[sizes > NO_DIFFERENCE]
    projection: NDArray[np.float64] = np.eye(rows.shape[1]) - removed.T @ removed
    return projection


def _soft_whitening(sample: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    eigenvalues, basis = np.linalg.eigh(np.cov(sample, rowvar=False, bias=True))
    eigenvalues = eigenvalues.clip(min=0)
    level = eigenvalues.mean()
    if level < NO_DIRECTION**2:
        raise BadInput("a calibration needs vectors that differ")
    gains = np.sqrt((1 + ridge) * level / (eigenvalues + ridge * level))
    whitening: NDArray[np.float64] = (basis * gains) @ basis.T
    return whitening
