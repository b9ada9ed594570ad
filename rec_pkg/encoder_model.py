"""A tokenizer and an ONNX network: texts in, one vector for each out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from rec_pkg.errors import EncoderInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rec_pkg.encoder_records import EncoderRecord

BATCH_TOKENS: Final = 1024
"""Tokens of a batch, padding included. Larger batches were slower and took more memory."""

CHARS_PER_TOKEN: Final = 32
"""A longer text is cut before it is tokenized: no piece of XLM-R or BERT is longer than this."""

SAME: Final = 1e-5
"""How far, in any coordinate, a vector may move with its batch-mates."""

PROBES: Final = (
    "blue jeans",
    "牛仔裤 and a rather longer text beside it, so that the other is padded",
)


class Model:
    """
    The network of a record, open.

    `embed` gives a text the same vector whatever else is in the batch. A network for which that does
    not hold, as with activations quantized over a whole batch, is run on one text at a time.

    Raises:
        EncoderInvalid: if the files do not give what the record promises.
    """

    def __init__(
        self,
        record: EncoderRecord,
        folder: Path,
        threads: int,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.record = record
        self._tokenizer = _open_tokenizer(folder)
        self._session = _open_session(folder / record.onnx_file, threads, providers)
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._output = _output_name([entry.name for entry in self._session.get_outputs()], record)
        self._batch_tokens = BATCH_TOKENS
        self._probe()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """
        Return float32 (n, dims), unit vectors; equal texts are encoded once.

        Raises:
            EncoderInvalid: if the network fails, or gives another shape or no numbers.
        """
        distinct = list(dict.fromkeys(texts))
        places = {text: place for place, text in enumerate(distinct)}
        vectors = self._embed_distinct(distinct)
        return vectors[[places[text] for text in texts]]

    def _embed_distinct(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = self._tokenize(texts)
        vectors = np.empty((len(texts), self.record.dims), np.float32)
        for batch in _batches([len(ids) for ids in tokens], self._batch_tokens):
            vectors[batch] = self._run([tokens[place] for place in batch])
        return self._unit(vectors)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        limit = self.record.max_tokens
        shown = [_readable(text, limit * CHARS_PER_TOKEN) for text in texts]
        encoded = self._tokenizer(
            shown,
            truncation=True,
            max_length=limit,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [ids or [self._padding] for ids in encoded["input_ids"]]

    @property
    def _padding(self) -> int:
        return self._tokenizer.pad_token_id or 0

    def _run(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        ids, mask = _padded(tokens, self._padding)
        output = self._call(ids, mask)
        expected = _expected_shape(mask, self.record)
        if output.shape != expected:
            raise EncoderInvalid(f"{self._output} has shape {output.shape}, not {expected}")
        return _pool(output, mask, self.record)

    def _call(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        known = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
        }
        try:
            feed = {name: known[name] for name in self._inputs}
            (output,) = self._session.run([self._output], feed)
        except KeyError as error:
            raise EncoderInvalid(f"nothing is known to feed to the input {error}") from error
        except Exception as error:  # onnxruntime's errors have no common public base
            raise EncoderInvalid(str(error)) from error
        return np.asarray(output, np.float32)

    def _unit(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise EncoderInvalid("a vector is zero or not a number")
        return vectors / norms

    def _probe(self) -> None:
        alone = np.concatenate([self.embed([text]) for text in PROBES])
        if np.abs(self.embed(PROBES) - alone).max() > SAME:
            self._batch_tokens = 1
        self.embed(["long " * self.record.max_tokens])


def _open_tokenizer(folder: Path) -> Any:  # noqa: ANN401  # transformers carries no types
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # torch is not missed here
    from transformers import AutoTokenizer  # noqa: PLC0415  # a second, and the line above first

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise EncoderInvalid(f"no tokenizer in {folder}: {error}") from error


def _open_session(path: Path, threads: int, providers: Sequence[str]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors have no common public base
        raise EncoderInvalid(f"{path.name}: {error}") from error


def _output_name(names: Sequence[str], record: EncoderRecord) -> str:
    usual = "sentence_embedding" if record.pooling == "graph" else "last_hidden_state"
    return usual if usual in names else names[0]


def _readable(text: str, limit: int) -> str:
    """Return what can be tokenized: at most `limit` characters, surrogates paired or replaced."""
    if len(text) > limit:
        text = " ".join(text.split())[:limit]
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield the places of texts of like length, as many at once as the budget of tokens allows."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[place] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _padded(
    tokens: Sequence[Sequence[int]], padding: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    shape = (len(tokens), max(map(len, tokens)))
    ids, mask = np.full(shape, padding, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(tokens):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def _expected_shape(mask: NDArray[np.int64], record: EncoderRecord) -> tuple[int, ...]:
    return (len(mask), record.dims) if record.pooling == "graph" else (*mask.shape, record.dims)


def _pool(
    output: NDArray[np.float32], mask: NDArray[np.int64], record: EncoderRecord
) -> NDArray[np.float32]:
    match record.pooling:
        case "mean":
            shares = (mask / mask.sum(axis=1, keepdims=True)).astype(np.float32)
            return np.einsum("ntd,nt->nd", output, shares)
        case "cls":
            return output[:, 0]
        case "last":
            return output[np.arange(len(mask)), mask.sum(axis=1) - 1]
        case "graph":
            return output
