"""Texts in, unit vectors out: the encoder as the worker and the client use it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal

from rec_pkg.calibration import Calibration, fit_calibration
from rec_pkg.encoder_files import canonical, digests, find_files, locked, make_present
from rec_pkg.encoder_model import Model
from rec_pkg.encoder_records import EncoderRecord, load_record
from rec_pkg.errors import EncoderMissing
from rec_pkg.item_text import catalogue_texts, item_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Encoder",
    "EncoderRecord",
    "fetch",
    "fingerprint",
    "item_text",
    "load_record",
    "open_encoder",
]

Kind = Literal["query", "document"]

NOT_IN_THE_VECTORS: Final = {"name", "source", "onnx_file"}


def fingerprint(record: EncoderRecord, folder: Path) -> str:
    """
    Return the sha256, in hex, of all that decides a vector: the record, the files, the calibration.

    It is the same on every machine: names and places do not enter, and of the calibration only the
    texts and the ridge, for the fitted numbers differ from processor to processor in the last digit.
    """
    parts = {
        "record": record.model_dump(mode="json", exclude=NOT_IN_THE_VECTORS),
        "files": digests(record, folder),
        "calibrated_on": list(catalogue_texts()) if record.calibration else None,
    }
    return sha256(canonical(parts)).hexdigest()


def fetch(record: EncoderRecord, cache_dir: Path) -> Path:
    """
    Make all files of the encoder present and return the folder of its model.

    Rebuilds, downloads and calibrates only what is not there yet; several processes may call it at
    the same time.

    Raises:
        EncoderMissing: if the files cannot be had.
        EncoderInvalid: if they do not give what the record promises.
    """
    folder = make_present(record, cache_dir)
    if record.calibration:
        path = _calibration_path(fingerprint(record, folder), cache_dir)
        if not path.exists():
            with locked(path):
                _calibrate(record, folder, path)
    return folder


def _calibration_path(fingerprinted: str, cache_dir: Path) -> Path:
    return cache_dir / "encoders" / f"calibration-{fingerprinted}.npz"


def _calibrate(record: EncoderRecord, folder: Path, path: Path) -> None:
    if path.exists() or record.calibration is None:
        return
    texts = [record.document_prefix + text for text in catalogue_texts()]
    vectors = Model(record, folder, threads=0).embed(texts)
    fit_calibration(vectors, record.calibration.ridge).save(path)


class Encoder:
    """
    An encoder, open. What it needs was made present by `fetch`: nothing is built or downloaded here.

    `threads` is the number of threads of the network, 0 for one per core.

    Raises:
        EncoderMissing: if files are missing.
        EncoderInvalid: if they do not give what the record promises.
    """

    def __init__(self, record: EncoderRecord, cache_dir: Path, threads: int = 0) -> None:
        folder = find_files(record, cache_dir)
        self.record = record
        self.dims = record.dims
        self.fingerprint = fingerprint(record, folder)
        self._calibration = self._load_calibration(cache_dir)
        self._model = Model(record, folder, threads)

    def _load_calibration(self, cache_dir: Path) -> Calibration | None:
        if self.record.calibration is None:
            return None
        path = _calibration_path(self.fingerprint, cache_dir)
        if not path.exists():
            raise EncoderMissing(f"{self.record.name} is not calibrated yet")
        return Calibration.load(path)

    def encode(self, texts: Sequence[str], kind: Kind = "document") -> NDArray[np.float32]:
        """
        Return unit vectors, float32 (n, dims), in the order of `texts`.

        A text's vector depends on nothing but the text and `kind`. An empty text gets the vector of
        the bare prefix; lone surrogates count as U+FFFD; beyond `max_tokens` a text is cut.

        Raises:
            EncoderInvalid: if the model fails or gives something that is no vector.
        """
        prefix = self.record.query_prefix if kind == "query" else self.record.document_prefix
        vectors = self._model.embed([prefix + text for text in texts])
        return self._calibration.apply(vectors) if self._calibration else vectors


def open_encoder(name_or_path: str | Path, cache_dir: Path, threads: int = 0) -> Encoder:
    """Return the encoder of this name or record file, fetched if need be, and open."""
    record = load_record(name_or_path)
    fetch(record, cache_dir)
    return Encoder(record, cache_dir, threads)
