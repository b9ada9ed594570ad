from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from rec_pkg.encoder.item_text import BODY_CHARS, TITLE_CHARS, item_text, item_title

if TYPE_CHECKING:
    import psycopg


def test_title_then_labels_then_the_beginning_of_the_body() -> None:
    attributes = {"brand": "燕麦街", "category": "t-shirts", "price": 129.0, "currency": "CNY"}
    text = item_text("纯棉T恤", "挺括不透。", attributes, ["潮牌", "宽松"])
    assert text == "纯棉T恤\nt-shirts, 燕麦街, 潮牌, 宽松\n挺括不透。"


def test_a_bare_title_stays_bare() -> None:
    assert item_text("Jeans", None, None, None) == "Jeans"
    assert item_text("Jeans", "", {}, []) == "Jeans"


def test_a_label_is_said_once() -> None:
    assert item_text("A", None, {"category": "film", "brand": "film"}, ["film"]) == "A\nfilm"


def test_a_category_may_be_a_list_or_a_number() -> None:
    assert item_text("A", None, {"category": ["books", 1984, None, True]}, None) == (
        "A\nbooks, 1984"
    )


def test_a_price_leaves_no_trace() -> None:
    assert item_text("A", None, {"price": 5}, None) == item_text("A", None, {"price": 900}, None)


def test_a_long_body_is_cut_at_a_word() -> None:
    text = item_text("A", "lorem ipsum " * 99, None, None)
    assert len(text) <= 102
    assert text.endswith(("lorem", "ipsum"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    st.text(),
    st.none() | st.text(),
    st.none() | st.dictionaries(st.sampled_from(["category", "brand", "size"]), json_values),
    st.none() | st.lists(st.text()),
)
def test_any_item_has_a_text_of_at_most_three_short_lines(
    title: str,
    body: str | None,
    attributes: dict[str, object] | None,
    tags: list[str] | None,
) -> None:
    text = item_text(title, body, attributes, tags)
    assert len(text) <= 300 + 200 + 100 + 2
    assert text.count("\n") <= 2
    assert text == text.strip()


@given(st.text())
def test_the_title_of_an_item_is_the_first_line_of_its_text(title: str) -> None:
    text = item_text(title, "a body", None, None)
    assert text.split("\n") == [line for line in (item_title(title), "a body") if line]


def test_a_worker_is_handed_as_much_of_an_item_as_counts_and_no_more(
    db: psycopg.Connection[tuple[Any, ...]],
) -> None:
    title, body = "A 长 title. " * 2000, " \n" * 700 + "A body. " * 10**5
    db.execute("insert into rec.items (item_id, title, body) values ('a', %s, %s)", [title, body])
    row = db.execute("select title, body from rec_internal.claim_items(1)").fetchone()
    assert row
    claimed_title, claimed_body = row
    claimed = item_text(claimed_title, claimed_body, None, None)
    assert claimed == item_text(title, body, None, None)
    assert list(map(len, row)) == [16 * TITLE_CHARS, 16 * BODY_CHARS]
