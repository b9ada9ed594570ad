"""
The texts that built-in encoders are calibrated on: titles, bodies and item texts of a catalogue.

They must never change: every text is part of the fingerprint of every built-in encoder, and a
worker refuses a database whose vectors have another fingerprint.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import NamedTuple


class Sample(NamedTuple):
    """A text, and the group of texts with the same language and form."""

    text: str
    group: str


def calibration_corpus() -> tuple[Sample, ...]:
    """Return the 924 texts with their groups, in file order."""
    lines = (files("rec_pkg.encoder") / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Sample(**json.loads(line)) for line in lines)
