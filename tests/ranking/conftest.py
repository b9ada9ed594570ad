from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rec_pkg.terms import TERMS

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def varied(db: Connection) -> Connection:
    """
    A shop in which each term of the score of some item is not 0 for ann.

    Others went from a to b to c. Ann had a and b, the latest of them half an hour ago, and disliked
    d. No event speaks for n, x has no vector yet. The ranker `even` gives every term the weight 1.
    """
    for place, item in enumerate("abcdn"):
        db.execute("insert into rec.items (item_id, title) values (%s, upper(%s))", [item, item])
        db.execute(
            "insert into rec.item_vectors values (%s,"
            " array_prepend(1, array_fill(0.01 * %s, array[383]))::vector::halfvec)",
            [item, place],
        )
    db.execute("insert into rec.items (item_id) values ('x')")
    events = [
        (user, item, 300 - place) for user in ("bob", "cid") for place, item in enumerate("abc")
    ]
    events += [("ann", "a", 60), ("ann", "b", 30)]
    for user, item, minutes in events:
        db.execute(
            "insert into rec.events (user_id, item_id, occurred_at)"
            " values (%s, %s, now() - %s * interval '1 minute')",
            [user, item, minutes],
        )
    db.execute(
        "insert into rec.events (user_id, item_id, kind, occurred_at)"
        " values ('ann', 'd', 'dislike', now() - interval '40 minutes')"
    )
    db.execute("select rec.apply_pending()")
    db.execute("select rec.merge_deltas()")
    weights = ", ".join(term.weight for term in TERMS)
    db.execute(f"insert into rec.rankers (ranker, {weights}) values ('even'{', 1' * len(TERMS)})")
    return db
