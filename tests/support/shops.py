"""What worlds of tests are made from: items with vectors, and events that are folded."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from pgvector import HalfVector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

Connection = psycopg.Connection[tuple[Any, ...]]


def unit(name: str, dims: int = 384) -> HalfVector:
    """Return a random unit vector, always the same for a name."""
    vector = np.random.default_rng(zlib.crc32(name.encode())).normal(size=dims)
    return HalfVector(vector / np.linalg.norm(vector))


def add_items(
    db: Connection, vectors: Mapping[str, HalfVector | ArrayLike], **columns: Sequence[object]
) -> None:
    """Insert items that are encoded, with these vectors by id; a column has a value for each."""
    names = ", ".join(["item_id", *columns])
    with db.cursor() as cursor:
        with cursor.copy(f"copy rec.items ({names}) from stdin".encode()) as copy:
            for row in zip(vectors, *columns.values(), strict=True):
                copy.write_row(row)
        with cursor.copy("copy rec.item_vectors from stdin with (format binary)") as copy:
            copy.set_types(["text", "halfvec"])
            for item, vector in vectors.items():
                is_made = isinstance(vector, HalfVector)
                copy.write_row((item, vector if is_made else HalfVector(np.asarray(vector))))
    db.execute("update rec.items set encoded_hash = content_hash")


def fold(db: Connection) -> None:
    """Fold all that is due and merge what it adds to the counts."""
    while db.execute("select rec.apply_pending()").fetchone() != (0,):
        pass
    db.execute("select rec.merge_deltas()")
