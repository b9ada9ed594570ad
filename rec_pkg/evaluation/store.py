"""The calls into a scratch database, and nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors
from psycopg.types.json import Jsonb

from rec_pkg.errors import BadInput, told
from rec_pkg.loading.store import copy_events, merge_events, stage_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Self

    from numpy.typing import NDArray

    from rec_pkg.evaluation.data import Event

CHUNK: Final = 10_000
FOLDED_AT_ONCE: Final = 5000


@dataclass(frozen=True, slots=True)
class Visible:
    """The data behind a user's list: their events, and the latest moments in the tables."""

    items: list[str | None]
    latest: datetime | None
    folded_until: datetime | None


class Store:
    """A connection to a scratch database, in autocommit except within `taken_back`."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, conninfo: str) -> Iterator[Self]:
        """Connect, and disconnect at the end. A crash may lose data, which is harmless here."""
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("set synchronous_commit = off")
            register_vector(connection)
            yield cls(connection)

    def take_ranker(self, ranker: Mapping[str, Any]) -> None:
        """Use these settings, a row of `rec.rankers` by column, for all lists from now on."""
        default = Jsonb({**ranker, "ranker": "default"})
        with self._connection.transaction():
            self._connection.execute("delete from rec.rankers")
            self._connection.execute(
                "insert into rec.rankers"
                " select r.* from jsonb_populate_record(null::rec.rankers, %s) r",
                (default,),
            )

    def kinds(self) -> dict[str, float]:
        """Return the weight of each kind of event."""
        return dict(self._connection.execute("select kind, weight from rec.event_kinds"))

    def items_to_encode(self) -> int:
        """Return how many items lack a vector of their current content."""
        return int(self._one("select count(*) from rec.items where stale")[0])

    def pending(self) -> int:
        """Return how many events are not folded yet."""
        call = "select count(*) from rec_internal.pending where retry_at < 'infinity'"
        return int(self._one(call)[0])

    def load(self, events: Sequence[Event]) -> None:
        """Append events to the log as `pgrec load` does."""
        stage_events(self._connection)
        for first in range(0, len(events), CHUNK):
            with self._connection.cursor() as cursor, copy_events(cursor) as copy:
                for place, e in enumerate(events[first : first + CHUNK], first):
                    key = f"evaluation:{place}"
                    copy.write_row((e.user_id, e.item_id, e.kind, e.text, e.value, e.at, key))
            merge_events(self._connection)

    def gather_statistics(self) -> None:
        """Update the planner's statistics, and index the log by time for the guard's sake."""
        self._connection.execute(
            "create index if not exists evaluation_events_at on rec.events (occurred_at)"
        )
        self._connection.execute("vacuum analyze")

    def track(self, events: Sequence[Event]) -> None:
        """Log events one by one, as an application does."""
        if events:
            with self._connection.cursor() as cursor:
                cursor.executemany(
                    "select rec.track(%s, %s, %s, %s, %s, %s)",
                    [(e.user_id, e.item_id, e.kind, e.text, e.value, e.at) for e in events],
                )

    def fold(self) -> None:
        """Fold all queued events."""
        while self._one("select rec.apply_pending(%s)", (FOLDED_AT_ONCE,))[0]:
            pass

    def merge(self) -> None:
        """Merge what folded events add to popularity and transitions."""
        while self._one("select rec.merge_deltas()")[0]:
            pass

    def recommend(self, user_id: str, k: int, as_of: datetime, *, exclude_seen: bool) -> list[str]:
        """Return the items of the product's list, best first."""
        rows = self._connection.execute(
            "select item_id from rec.recommend(p_user_id => %s, p_k => %s,"
            " p_exclude_seen => %s, p_as_of => %s) order by rank",
            (user_id, k, exclude_seen, as_of),
        )
        return [item_id for (item_id,) in rows]

    def candidates(self, user_id: str, k: int, as_of: datetime, *, exclude_seen: bool) -> set[str]:
        """Return the candidates that a list of `k` is chosen from."""
        rows = self._connection.execute(
            "select c.item_id from rec_internal.ranker('default') r"
            " cross join rec_internal.profile_of(%(user)s, r, %(as_of)s) u"
            " cross join rec_internal.candidates("
            " u, r, %(k)s, null, '{}', case when %(exclude_seen)s then u.seen else '{}' end) c",
            {"user": user_id, "k": k, "as_of": as_of, "exclude_seen": exclude_seen},
        )
        return {item_id for (item_id,) in rows}

    def visible(self, user_id: str) -> Visible:
        """Return the data that the user's next list can be made from."""
        items, latest, folded_until = self._one(
            "select array(select item_id from rec.events where user_id = %(user)s"
            " order by occurred_at, event_id),"
            " (select max(occurred_at) from rec.events),"
            " (select max(as_of) from rec.user_interests where user_id = %(user)s)",
            {"user": user_id},
        )
        return Visible(items, latest, folded_until)

    def events_of(self, prefix: str) -> int:
        """Return how many events belong to users whose ids begin with `prefix`."""
        call = "select count(*) from rec.events where starts_with(user_id, %s)"
        return int(self._one(call, (prefix,))[0])

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """Undo everything done inside the block at its end."""
        with self._connection.transaction(force_rollback=True):
            yield

    def vectors(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors (n, dims) of items, or zeros where a vector is missing."""
        rows = self._connection.execute("select item_id, embedding from rec.item_vectors")
        found = {item_id: embedding.to_numpy() for item_id, embedding in rows}
        empty = np.zeros_like(next(iter(found.values()), np.zeros(1)))
        return np.array([found.get(item, empty) for item in item_ids], dtype=np.float32)

    def latest_items(self) -> int:
        """Return how many of the last events count as the latest."""
        return int(self._one("select latest_items from rec.rankers where ranker = 'default'")[0])

    def encoder(self) -> str:
        """Return the name of the active encoder."""
        return str(self._one("select name from rec_internal.encoders where active")[0])

    def forget_users(self) -> None:
        """Empty the log and everything folded from it; vectors of items and texts stay."""
        with self._connection.transaction():
            self._connection.execute("select rec_internal.erasing(true)")
            self._connection.execute(
                "truncate rec.events, rec_internal.pending, rec.user_interests,"
                " rec_internal.dedupe_keys"
            )

    def _one(
        self, call: LiteralString, parameters: Mapping[str, object] | tuple[object, ...] = ()
    ) -> tuple[Any, ...]:
        row = self._connection.execute(call, parameters).fetchone()
        if row is None:
            raise psycopg.DataError(f"no row from {call}")
        return row


def read_ranker(conninfo: str, name: str) -> dict[str, Any]:
    """
    Return a row of `rec.rankers` of a deployment, by column.

    Raises:
        BadInput: if there is no ranker of this name, or no schema `rec`.
    """
    with psycopg.connect(conninfo) as connection:
        try:
            call = "select to_jsonb(r) from rec_internal.ranker(%s) r"
            row = connection.execute(call, (name,)).fetchone()
        except (errors.UndefinedFunction, errors.InvalidSchemaName) as error:
            raise BadInput(f"no ranker {name}: the database has no schema rec") from error
        except errors.InvalidParameterValue as error:
            raise BadInput(told(error)) from error
    return dict(row[0]) if row else {}
