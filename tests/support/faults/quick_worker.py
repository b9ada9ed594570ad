"""`pgrec worker` with an encoder that is there at once, for faults that do not regard encoding."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from rec_pkg.cli.session import read_settings
from rec_pkg.encoder.records import load_record
from rec_pkg.errors import EncoderInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DIMS = 384
PER_TEXT_S = 0.001


class Quick:
    """
    Vectors out of a hash.

    One with `poison` is refused, `panic` raises something else, `nan` gives no number, and `slow`
    takes its time; with MENDED in the environment only the last. REST_S there is how long the
    worker rests.
    """

    record = load_record("e5-small")
    dims = DIMS
    fingerprint = "f" * 64
    provider = "cpu"

    def encode(self, texts: Sequence[str], kind: str = "document") -> NDArray[np.float32]:
        del kind
        time.sleep(PER_TEXT_S * len(texts))
        return np.array([_vector(text) for text in texts], np.float32).reshape(-1, DIMS)

    def encode_items(self, titles: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        del titles
        return self.encode(texts)


def _vector(text: str) -> NDArray[Any]:
    if "slow" in text:
        time.sleep(3)
    if "MENDED" not in os.environ:
        if "poison" in text:
            raise EncoderInvalid
        if "panic" in text:
            raise ZeroDivisionError
        if "nan" in text.split():
            return np.full(DIMS, np.nan)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(DIMS)
    return vector / np.linalg.norm(vector)


if __name__ == "__main__":
    from pgrec_worker import loop, process
    from rec_pkg.cli.session import refusals
    from rec_pkg.database import conninfo

    vars(process)["open_encoder"] = lambda *_: Quick()
    vars(loop)["REST_S"] = float(os.environ.get("REST_S", loop.REST_S))
    settings = read_settings()
    with refusals():
        process.run(settings, conninfo(settings))
