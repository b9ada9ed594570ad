"""The sample catalogue in the wheel keeps the promises that the demo and other tests build on."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

Item = dict[str, Any]

SIZE_OF_DOMAIN = {"shop": 88, "film": 44, "book": 44, "news": 36, "course": 28, "health": 24}
CURRENCY_OF_LANGUAGE = {"zh": "CNY", "en": "USD"}
BODY_LENGTHS = {"zh": range(40, 201), "en": range(80, 301)}
UNPRICED_DOMAINS = {"news", "health"}
CLOTHING = {
    "t-shirts",
    "jeans",
    "shirts",
    "hoodies",
    "jackets-coats",
    "dresses-skirts",
    "sneakers",
}
HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    path = files("rec_pkg.demo") / "catalogue" / "items.jsonl"
    return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def items(lines: list[str]) -> list[Item]:
    return [json.loads(line) for line in lines]


def _language(item: Item) -> str:
    return str(item["attributes"]["language"])


def _category(item: Item) -> str:
    return str(item["attributes"]["category"])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value == value.strip()


def test_every_line_is_an_object_with_readable_characters(lines: list[str]) -> None:
    assert all(line.startswith("{") and line.endswith("}") for line in lines)
    assert not [line for line in lines if "\\u" in line]


def test_it_holds_at_least_264_items(items: list[Item]) -> None:
    assert len(items) >= 264


def test_it_holds_the_six_domains_each_large_enough(items: list[Item]) -> None:
    sizes = Counter(item["domain"] for item in items)
    assert set(sizes) == set(SIZE_OF_DOMAIN)
    assert all(sizes[domain] >= size for domain, size in SIZE_OF_DOMAIN.items())


def test_half_of_each_domain_is_chinese_and_half_english(items: list[Item]) -> None:
    assert {_language(item) for item in items} == {"zh", "en"}
    sizes = Counter((item["domain"], _language(item)) for item in items)
    assert all(sizes[domain, "zh"] == sizes[domain, "en"] for domain in SIZE_OF_DOMAIN)


def test_every_category_has_four_items_or_more_in_both_languages(items: list[Item]) -> None:
    sizes = Counter((item["domain"], _category(item), _language(item)) for item in items)
    categories = {(domain, category) for domain, category, _ in sizes}
    assert [
        (domain, category, language)
        for domain, category in sorted(categories)
        for language in ("zh", "en")
        if sizes[domain, category, language] < 4
    ] == []


def test_categories_are_english_slugs(items: list[Item]) -> None:
    slug = re.compile(r"[a-z]+(-[a-z]+)*")
    assert all(slug.fullmatch(_category(item)) for item in items)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_shop_has_sixteen_pieces_of_clothing_or_more(items: list[Item], language: str) -> None:
    of_language = [i for i in items if i["domain"] == "shop" and _language(i) == language]
    sizes = Counter(_category(item) for item in of_language)
    assert sum(sizes[category] for category in CLOTHING) >= 16
    assert all(sizes[category] >= 4 for category in CLOTHING)


def test_ids_are_unique_and_name_domain_and_language(items: list[Item]) -> None:
    assert len({item["item_id"] for item in items}) == len(items)
    assert all(
        re.fullmatch(rf"{item['domain']}-{_language(item)}-\d{{3}}", item["item_id"])
        for item in items
    )


def test_titles_and_bodies_are_unique(items: list[Item]) -> None:
    assert len({item["title"] for item in items}) == len(items)
    assert len({item["body"] for item in items}) == len(items)


def test_every_item_has_the_same_fields_and_types(items: list[Item]) -> None:
    fields = {"item_id", "domain", "title", "body", "attributes", "tags"}
    attributes = {"category", "brand", "price", "currency", "language"}
    for item in items:
        assert set(item) == fields, item["item_id"]
        assert set(item["attributes"]) == attributes, item["item_id"]
        assert _is_text(item["title"]), item["item_id"]
        assert _is_text(item["body"]), item["item_id"]
        assert _is_text(item["attributes"]["brand"]), item["item_id"]


def test_bodies_are_a_few_sentences(items: list[Item]) -> None:
    assert [
        item["item_id"] for item in items if len(item["body"]) not in BODY_LENGTHS[_language(item)]
    ] == []


def test_tags_are_two_to_five_distinct_words(items: list[Item]) -> None:
    for item in items:
        tags = item["tags"]
        assert isinstance(tags, list), item["item_id"]
        assert all(_is_text(tag) for tag in tags), item["item_id"]
        assert 2 <= len(set(tags)) == len(tags) <= 5, item["item_id"]


def test_texts_are_written_in_the_language_they_name(items: list[Item]) -> None:
    for item in items:
        texts = (item["title"], item["body"], " ".join(item["tags"]))
        assert all(bool(HAN.search(text)) == (_language(item) == "zh") for text in texts), item[
            "item_id"
        ]


def test_goods_have_a_price_and_articles_none(items: list[Item]) -> None:
    for item in items:
        price = item["attributes"]["price"]
        if item["domain"] in UNPRICED_DOMAINS:
            assert price is None, item["item_id"]
        else:
            assert isinstance(price, float), item["item_id"]
            assert price > 0, item["item_id"]


def test_the_currency_follows_the_language(items: list[Item]) -> None:
    assert all(
        item["attributes"]["currency"] == CURRENCY_OF_LANGUAGE[_language(item)] for item in items
    )
