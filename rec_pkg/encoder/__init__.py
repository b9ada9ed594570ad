"""Turns texts into unit vectors: the encoder that the worker and the client use."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from rec_pkg.encoder.calibration import Calibration, fit_calibration
from rec_pkg.encoder.corpus import calibration_corpus
from rec_pkg.encoder.files import canonical, digests, find_files, make_present, make_whole
from rec_pkg.encoder.item_text import ITEM_RULE, TITLE_WEIGHT, item_text
from rec_pkg.encoder.model import Model
from rec_pkg.encoder.provider import CPU
from rec_pkg.encoder.records import EncoderRecord, load_record
from rec_pkg.encoder.tokenizer import keep_tokenizer
from rec_pkg.errors import EncoderMissing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "Encoder",
    "EncoderRecord",
    "Fetched",
    "Kind",
    "fetch",
    "fingerprint",
    "item_text",
    "load_record",
    "open_encoder",
]

Kind = Literal["query", "document"]

NOT_IN_THE_VECTORS: Final = {"name", "source", "onnx_file"}


class Fetched(NamedTuple):
    """The folder of the model and its tokenizer, and the fingerprint computed from their files."""

    folder: Path
    fingerprint: str


class Encoder:
    """
    An opened encoder. It uses files that `fetch` provided and never builds or downloads any.

    `threads` is the number of threads of the network, 0 for one per core. `provider` is the
    requested execution provider of onnxruntime; the attribute of that name is the one in use, which
    is `cpu` if the requested one is not installed or does not start. `fetched` is the result of
    `fetch`; without it the files are located and hashed again. Several threads may share an
    encoder.

    Raises:
        BadInput: if onnxruntime does not know the provider.
        EncoderMissing: if files are missing.
        EncoderInvalid: if the files do not produce what the record declares.
    """

    def __init__(
        self,
        record: EncoderRecord,
        cache_dir: Path,
        threads: int = 0,
        provider: str = CPU,
        fetched: Fetched | None = None,
    ) -> None:
        folder, self.fingerprint = fetched or _found(record, find_files(record, cache_dir))
        self.record = record
        self.dims = record.dims
        tokenizer, calibration = _kept(self.fingerprint, cache_dir)
        self._calibration = Calibration.load(_here(calibration)) if record.calibration else None
        self._model = Model(record, folder, _here(tokenizer), threads, provider)
        self.provider = self._model.provider

    def encode(self, texts: Sequence[str], kind: Kind = "document") -> NDArray[np.float32]:
        """
        Return unit vectors, float32 (n, dims), in the order of `texts`.

        A text's vector depends only on the text and `kind`. An empty text gets the vector of the
        bare prefix; a lone surrogate counts as U+FFFD; a text is cut after `max_tokens`.

        Raises:
            EncoderInvalid: if the model fails or produces something that is not a vector.
        """
        prefix = self.record.query_prefix if kind == "query" else self.record.document_prefix
        vectors = self._model.embed([prefix + text for text in texts])
        return self._calibration.apply(vectors) if self._calibration else vectors

    def encode_items(self, titles: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """
        Return unit vectors of items, float32 (n, dims), mixed from the title and the whole text.

        Args:
            titles: from `item_title`, one per item; if one is blank, only the text counts.
            texts: from `item_text`, in the same order.

        Raises:
            EncoderInvalid: if the model fails or produces something that is not a vector.
        """
        heads = [
            title if title.strip() else text for title, text in zip(titles, texts, strict=True)
        ]
        vectors = self.encode([*heads, *texts])
        mixed = TITLE_WEIGHT * vectors[: len(heads)] + vectors[len(heads) :]
        unit: NDArray[np.float32] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        return unit


def open_encoder(
    name_or_path: str | Path, cache_dir: Path, threads: int = 0, provider: str = CPU
) -> Encoder:
    """Fetch the encoder of this name or record file if need be, open it, and return it."""
    record = load_record(name_or_path)
    fetched = fetch(record, cache_dir)
    return Encoder(record, cache_dir, threads, provider, fetched)


def fetch(record: EncoderRecord, cache_dir: Path) -> Fetched:
    """
    Provide all files of the encoder; return the folder of its model and its fingerprint.

    Rebuilds, downloads, converts and calibrates only what is missing; several processes may call it
    at the same time.

    Raises:
        EncoderMissing: if the files cannot be obtained.
        EncoderInvalid: if the files do not produce what the record declares.
    """
    fetched = _found(record, make_present(record, cache_dir))
    folder = fetched.folder
    tokenizer, calibration = _kept(fetched.fingerprint, cache_dir)
    make_whole(tokenizer, partial(keep_tokenizer, folder, record.max_tokens))
    if record.calibration:
        ridge = record.calibration.ridge
        make_whole(calibration, partial(_calibrate, record, folder, tokenizer, ridge))
    return fetched


def fingerprint(record: EncoderRecord, folder: Path) -> str:
    """
    Return the hex sha256 of everything that determines a vector.

    That is the record, the files, the calibration and the item rule. The fingerprint is the same on
    every machine: names and places do not enter, and of the calibration only the texts and the
    ridge do, because the last digits of the fitted numbers differ between processors.
    """
    parts = {
        "record": record.model_dump(mode="json", exclude=NOT_IN_THE_VECTORS),
        "files": digests(record, folder),
        "corpus": calibration_corpus() if record.calibration else None,
        "items": ITEM_RULE,
    }
    return sha256(canonical(parts)).hexdigest()


def _found(record: EncoderRecord, folder: Path) -> Fetched:
    return Fetched(folder, fingerprint(record, folder))


def _kept(fingerprinted: str, cache_dir: Path) -> tuple[Path, Path]:
    """Return the paths of an encoder's kept tokenizer and calibration."""
    folder = cache_dir / "encoders"
    return folder / f"tokenizer-{fingerprinted}.json", folder / f"calibration-{fingerprinted}.npz"


def _here(path: Path) -> Path:
    if not path.exists():
        raise EncoderMissing(f"no {path.name} in {path.parent}")
    return path


def _calibrate(
    record: EncoderRecord, folder: Path, tokenizer: Path, ridge: float, path: Path
) -> None:
    """Fit the calibration of a record and write it to `path`."""
    corpus = calibration_corpus()
    model = Model(record, folder, tokenizer, threads=0)
    vectors = model.embed([record.document_prefix + sample.text for sample in corpus])
    fit_calibration(vectors, ridge, [sample.group for sample in corpus]).save(path)
