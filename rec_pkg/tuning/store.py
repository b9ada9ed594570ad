"""The calls that tuning makes to the database, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString

import numpy as np
from psycopg import errors
from psycopg.types.json import Jsonb

from rec_pkg.errors import BadInput, DatabaseRefused, told
from rec_pkg.tuning.log import NONE, Horizon, Log

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg import Connection

    from rec_pkg.tuning.log import Integers, Vectors

FETCHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """The current settings of ranking: the tunable ones, and those that tuning does not change."""

    tunable: Mapping[str, Any]
    half_life_s: float
    latest_items: int
    window: int
    prior: float
    transition_half_life_s: float
    session_half_life_s: float


class Store:
    """A connection to the deployment, with pgvector's types registered."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    def settings(self, ranker: str) -> Settings:
        """
        Return the settings of a ranker.

        Raises:
            BadInput: if there is no ranker of this name.
        """
        try:
            return Settings(
                *self._one(
                    "select rec_internal.tunable_settings(r.ranker),"
                    " extract(epoch from s.popularity_half_life)::float8,"
                    " r.latest_items, s.transition_window, r.transition_prior,"
                    " extract(epoch from s.transition_half_life)::float8,"
                    " extract(epoch from r.session_half_life)::float8"
                    " from rec.settings s cross join rec_internal.ranker(%s) r",
                    (ranker,),
                )
            )
        except errors.InvalidParameterValue as error:
            raise BadInput(told(error)) from error

    def log(self, limit: int) -> tuple[Log, Integers]:
        """
        Return the latest `limit` events, with vectors not yet filled in, and the available items.

        Events on items that no longer exist are left out.
        """
        call = "select item_id, available from rec.items order by item_id"
        catalogue = self._connection.execute(call).fetchall()
        items = {item: number for number, (item, _) in enumerate(catalogue)}
        rows = self._events(limit, items)
        self._item_ids = list(items)
        self._hashes = list(dict.fromkeys(row[2] for row in rows if row[2] is not None))
        texts = {text: number for number, text in enumerate(self._hashes)}
        users, named, hashes, weights, kinds, seen, at = _columns(rows)
        log = Log(
            users=np.array(users, dtype=np.int64),
            items=np.array(named, dtype=np.int64),
            texts=np.array([texts.get(text, NONE) for text in hashes], dtype=np.int64),
            weights=np.array(weights, dtype=np.float64),
            kind_weights=np.array(kinds, dtype=np.float64),
            seen=np.array(seen, dtype=np.bool_),
            at=np.array(at, dtype=np.float64),
            item_vectors=np.zeros((len(items), self._dims()), dtype=np.float32),
            text_vectors=np.zeros((len(texts), self._dims()), dtype=np.float32),
            horizons=self._horizons(),
        )
        return log, np.flatnonzero([available for _, available in catalogue])

    def fill_vectors(self, log: Log, items: Integers, texts: Integers) -> None:
        """Read the vectors of some items and texts into a log."""
        self._fill(
            log.item_vectors,
            {self._item_ids[place]: place for place in items.tolist()},
            "select item_id, embedding from rec.item_vectors where item_id = any(%s)",
        )
        self._fill(
            log.text_vectors,
            {self._hashes[place]: place for place in texts.tolist()},
            "select text_hash, embedding from rec_internal.texts where text_hash = any(%s)",
        )

    def record(
        self, ranker: str, after: Mapping[str, Any], figures: Mapping[str, Any], *, adopt: bool
    ) -> int:
        """Record the result, change the ranker if `adopt`, and return the id of the record."""
        call = "select rec_internal.record_tuning(%s, %s, %s, %s)"
        return int(self._one(call, (ranker, Jsonb(after), Jsonb(figures), adopt))[0])

    def undo(self, ranker: str) -> int | None:
        """Restore the settings from before a ranker's last adopted tuning and return its id."""
        undone = self._one("select rec.undo_tuning(%s)", (ranker,))[0]
        return None if undone is None else int(undone)

    def _events(self, limit: int, items: Mapping[str, int]) -> list[tuple[Any, ...]]:
        call = "select * from rec_internal.tuning_log(%s)"
        cursor = self._connection.execute(call, (limit,), binary=True)
        return [
            (row[0], NONE if row[1] is None else items[row[1]], *row[2:])
            for row in cursor
            if row[1] is None or row[1] in items
        ]

    def _horizons(self) -> tuple[Horizon, ...]:
        call = "select extract(epoch from half_life)::float8, weight from rec.horizons"
        return tuple(Horizon(*row) for row in self._connection.execute(call))

    def _dims(self) -> int:
        call = (
            "select atttypmod from pg_attribute"
            " where attrelid = 'rec.item_vectors'::regclass and attname = 'embedding'"
        )
        return int(self._one(call)[0])

    def _fill(self, vectors: Vectors, places: Mapping[Any, int], call: LiteralString) -> None:
        for keys in _chunks(list(places)):
            for key, embedding in self._connection.execute(call, (keys,), binary=True):
                vectors[places[key]] = embedding.to_numpy()

    def _one(self, call: LiteralString, arguments: tuple[object, ...] = ()) -> tuple[Any, ...]:
        row = self._connection.execute(call, arguments).fetchone()
        if row is None:
            raise DatabaseRefused(f"no row from {call}")
        return tuple(row)


def _columns(rows: Sequence[tuple[Any, ...]]) -> Iterable[Sequence[Any]]:
    return zip(*rows, strict=True) if rows else [()] * 7


def _chunks(keys: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (keys[first : first + FETCHED] for first in range(0, len(keys), FETCHED))
