"""The texts that built-in encoders are calibrated on: the catalogue that ships with pgrec."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from rec_pkg.item_text import item_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Sample(NamedTuple):
    """A text, and the group it shares a language and a form with."""

    text: str
    group: str


def calibration_corpus() -> tuple[Sample, ...]:
    """Return the titles, the bodies and the item texts of the catalogue, some 900 texts."""
    catalogue = files("rec_pkg") / "catalogue" / "items.jsonl"
    lines = catalogue.read_text(encoding="utf-8").splitlines()
    return tuple(sample for line in lines if line for sample in _samples(json.loads(line)))


def _samples(item: Mapping[str, Any]) -> Iterator[Sample]:
    title, body, attributes = item["title"], item.get("body"), item.get("attributes") or {}
    language = attributes.get("language", "")
    forms = {
        "title": title,
        "body": body,
        "item": item_text(title, body, attributes, item.get("tags")),
    }
    for form, text in forms.items():
        if text:
            yield Sample(text, f"{form} {language}")
