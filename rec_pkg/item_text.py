"""The one rule by which an item becomes a text."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BODY_CHARS: Final = 200
SPOKEN_ATTRIBUTES: Final = ("category", "brand")


def item_text(
    title: str,
    body: str | None,
    attributes: Mapping[str, Any] | None,
    tags: Sequence[str] | None,
) -> str:
    """Return the text of an item: title; category, brand and tags; price; the body's beginning."""
    known = attributes or {}
    labels = [*(_words(known.get(name)) for name in SPOKEN_ATTRIBUTES), *(tags or ())]
    price = _words(known.get("price"))
    parts = [
        title.strip(),
        ", ".join(dict.fromkeys(filter(None, labels))),
        f"price {price}" if price else "",
        _beginning(body or ""),
    ]
    return "\n".join(filter(None, parts))


def _words(value: object) -> str:
    return "" if value is None or isinstance(value, (bool, dict, list)) else str(value).strip()


def _beginning(body: str) -> str:
    return " ".join(body.split())[:BODY_CHARS]


def catalogue_texts() -> tuple[str, ...]:
    """Return the texts of the catalogue that ships with pgrec: titles, bodies and item texts."""
    lines = (files("rec_pkg") / "catalogue" / "items.jsonl").read_text(encoding="utf-8")
    items = [json.loads(line) for line in lines.splitlines() if line.strip()]
    return tuple(dict.fromkeys(text for item in items for text in _texts_of(item)))


def _texts_of(item: Mapping[str, Any]) -> Iterator[str]:
    title, body = item["title"], item.get("body") or ""
    yield title
    if body:
        yield body
    yield item_text(title, body, item.get("attributes"), item.get("tags"))
