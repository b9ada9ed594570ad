"""A tokenizer and an ONNX network that turn each text into one vector."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from rec_pkg.errors import EncoderInvalid

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it when it is loaded

import onnxruntime as ort  # must follow the line above

from rec_pkg.encoder.provider import CPU, CPU_PROVIDER, installed_provider, provider_name
from rec_pkg.encoder.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rec_pkg.encoder.records import EncoderRecord, Pooling

BATCH_TOKENS: Final = 512
"""Tokens of a batch, including padding. Larger batches are slower and take more memory."""

CHARS_PER_TOKEN: Final = 32
"""
Before tokenizing, a text is cut to this many characters per token of `max_tokens`. No piece of
XLM-R is longer than 16; the rest allows for characters that its normaliser drops or joins.
"""

NO_SPINNING: Final = ("session.intra_op.allow_spinning", "0")
"""
A waiting thread sleeps instead of spinning. Measured on two cores: on idle cores, batches are as
fast (287 texts of 20 tokens a second) and a single text takes 9 ms instead of 6; beside a busy
process, such as Postgres, batches are a third faster and a single text nearly twice as fast.
"""

SAME: Final = 1e-5
"""How far any coordinate of a vector may move with the other texts of its batch."""

UNIT: Final = 1e-3
"""Tolerated error of a coordinate in a model that claims to give unit vectors."""

INPUTS: Final = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}

PROBES: Final = (
    "blue jeans",
    "牛仔裤 and a rather longer text beside it, so that the other is padded",
)


class Model:
    """
    The opened network of a record; several threads may use it.

    `embed` gives a text the same vector whatever else is in the batch: the padding of a text
    depends on the text alone, and a batch holds only texts with the same padding. If that is not
    enough for a network, for example because activations are quantized over the whole batch, it
    runs one text at a time.

    `provider` is named without the suffix `ExecutionProvider`; the attribute is the provider in
    use, `cpu` if the requested one is unavailable.

    Raises:
        EncoderInvalid: if the files do not produce what the record declares.
        BadInput: if onnxruntime does not know the provider.
    """

    def __init__(
        self,
        record: EncoderRecord,
        folder: Path,
        tokenizer: Path,
        threads: int,
        provider: str = CPU,
    ) -> None:
        self.record = record
        self._tokenizer = Tokenizer(tokenizer)
        self._session = _open_session(folder / record.onnx_file, threads, provider)
        self.provider = provider_name(self._session.get_providers()[0])
        self._inputs = _input_names(self._session)
        self._output = _output_name(self._session, record)
        self._batch_tokens = BATCH_TOKENS
        self._probe()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """
        Return unit vectors, float32 (n, dims); equal texts are encoded once.

        Raises:
            EncoderInvalid: if the network fails, or returns another shape or values that are not
                numbers.
        """
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        vectors = self._embed_distinct(list(places))
        return vectors[[places[text] for text in texts]]

    def _embed_distinct(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = self._tokenize(texts)
        widths = [self._width(len(ids)) for ids in tokens]
        vectors = np.empty((len(texts), self.record.dims), np.float32)
        for batch in _batches(widths, self._batch_tokens):
            vectors[batch] = self._run([tokens[place] for place in batch], widths[batch[0]])
        return vectors

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        limit = self.record.max_tokens * CHARS_PER_TOKEN
        tokens = self._tokenizer.tokenize([_readable(text, limit) for text in texts])
        return [ids or [self._tokenizer.padding] for ids in tokens]

    def _width(self, length: int) -> int:
        """Return the padded length of `length` tokens; without a mask, `length` itself."""
        masked = "attention_mask" in self._inputs
        return min(_rounded_up(length), self.record.max_tokens) if masked else length

    def _run(self, tokens: Sequence[Sequence[int]], width: int) -> NDArray[np.float32]:
        """Return unit vectors of texts, each padded to `width` tokens."""
        ids, mask = _padded(tokens, self._tokenizer.padding, width)
        output = self._call(ids, mask)
        in_graph = self.record.pooling == "graph"
        expected = (*(mask.shape[:1] if in_graph else mask.shape), self.record.dims)
        if output.shape != expected:
            raise EncoderInvalid(f"{self._output} has shape {output.shape}, not {expected}")
        vectors = _pooled(output, mask, self.record.pooling)
        return _unit(vectors) if self.record.normalise else _checked_unit(vectors)

    def _call(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        known = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
        }
        feed = {name: known[name] for name in self._inputs}
        try:
            (output,) = self._session.run([self._output], feed)
        except Exception as error:  # onnxruntime's errors have no common public base
            raise EncoderInvalid(str(error)) from error
        return np.asarray(output, np.float32)

    def _probe(self) -> None:
        """Check the vectors of short texts, alone and together, and of the longest text."""
        tokens = self._tokenize(PROBES)
        width = max(map(len, tokens))
        alone = np.concatenate([self._run([ids], width) for ids in tokens])
        if np.abs(self._run(tokens, width) - alone).max() > SAME:
            self._batch_tokens = 1
        self.embed(["long " * self.record.max_tokens])


def _open_session(path: Path, threads: int, provider: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.add_session_config_entry(*NO_SPINNING)
    options.log_severity_level = 3
    wanted = installed_provider(provider)
    if wanted not in {None, CPU_PROVIDER}:
        with suppress(Exception):  # its driver or device may be missing
            return ort.InferenceSession(path, options, providers=[wanted, CPU_PROVIDER])
    try:
        return ort.InferenceSession(path, options, providers=[CPU_PROVIDER])
    except Exception as error:  # onnxruntime's errors have no common public base
        raise EncoderInvalid(f"{path.name}: {error}") from error


def _input_names(session: ort.InferenceSession) -> list[str]:
    names = [entry.name for entry in session.get_inputs()]
    if unknown := set(names) - INPUTS:
        raise EncoderInvalid(f"unknown input of the network: {', '.join(sorted(unknown))}")
    return names


def _output_name(session: ort.InferenceSession, record: EncoderRecord) -> str:
    names = [entry.name for entry in session.get_outputs()]
    usual = "sentence_embedding" if record.pooling == "graph" else "last_hidden_state"
    return usual if usual in names else names[0]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise EncoderInvalid("a vector is zero or not a number")
    unit: NDArray[np.float32] = vectors / norms
    return unit


def _checked_unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.allclose(vectors, _unit(vectors), atol=UNIT):
        raise EncoderInvalid("its vectors are not of unit length, as its record declares")
    return vectors


def _readable(text: str, limit: int) -> str:
    """Return text fit for tokenizing: at most `limit` characters, surrogates joined or replaced."""
    if len(text) > limit:
        text = " ".join(text.split())[:limit]
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _rounded_up(length: int) -> int:
    """Return a length that is greater by at most an eighth, or by at most three."""
    step = max(4, (1 << length.bit_length()) >> 4)
    return -(-length // step) * step


def _batches(widths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield the places of texts of equal width, as many as the token budget allows."""
    places = sorted(range(len(widths)), key=widths.__getitem__)
    for width, group in groupby(places, key=widths.__getitem__):
        alike, size = list(group), max(1, budget // width)
        yield from (alike[first : first + size] for first in range(0, len(alike), size))


def _padded(
    tokens: Sequence[Sequence[int]], padding: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    shape = (len(tokens), width)
    ids, mask = np.full(shape, padding, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(tokens):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def _pooled(
    states: NDArray[np.float32], mask: NDArray[np.int64], pooling: Pooling
) -> NDArray[np.float32]:
    match pooling:
        case "mean":
            shares = (mask / mask.sum(axis=1, keepdims=True)).astype(np.float32)
            mean: NDArray[np.float32] = np.einsum("ntd,nt->nd", states, shares)
            return mean
        case "cls":
            return states[:, 0]
        case "last":
            last: NDArray[np.float32] = states[np.arange(len(mask)), mask.sum(axis=1) - 1]
            return last
        case "graph":
            return states
