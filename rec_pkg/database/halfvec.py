"""Vectors in the binary form that Postgres sends and receives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def unpacked(embeddings: Sequence[bytes], dims: int) -> NDArray[np.float32]:
    """Return the vectors, float32 (n, dims), of halfvecs in binary form."""
    rows = np.frombuffer(b"".join(embeddings), _halfvec(dims))
    return np.asarray(rows["embedding"], np.float32)


def packed(vectors: NDArray[np.float32]) -> list[bytes]:
    """Return vectors (n, dims) as halfvecs in binary form."""
    count, dims = vectors.shape
    rows = np.zeros(count, _halfvec(dims))
    rows["dims"], rows["embedding"] = dims, vectors
    return [row.tobytes() for row in rows]


def _halfvec(dims: int) -> np.dtype[np.void]:
    """Return the binary form of a halfvec: length, two unused bytes, and big-endian components."""
    return np.dtype([("dims", ">u2"), ("unused", ">u2"), ("embedding", ">f2", (dims,))])
