"""
The recommender from plain psycopg: nothing of pgrec is imported, only its SQL functions are called.

    make demo                                            # once: a server and a catalogue
    .venv/bin/python examples/psycopg_app.py 'URL'       # the URL that `pgrec up` prints

The same calls work from any language that has a driver for Postgres.
"""

from __future__ import annotations

import sys

import psycopg
from psycopg.rows import dict_row

USER = "example-psycopg"
LIST = """
    select r.rank, i.title, r.score, r.path
    from rec.recommend(%(user)s, 5, p_domain => 'film') r join rec.items i using (item_id)
    order by r.rank
"""
REASONS = """
    select l.explained_item, l.term, l.share, coalesce(l.title, l.text) as what
    from rec.explain_list(
        %(user)s, array(select item_id from rec.recommend(%(user)s, 3, p_domain => 'film'))) l
    where l.share > 0.01
"""


def show(db: psycopg.Connection[dict[str, object]], heading: str) -> None:
    """Print the list of the user as this transaction sees it."""
    print(f"\n{heading}")
    for row in db.execute(LIST, {"user": USER}):
        print("{rank:>2}  {score:5.2f}  {path:<10}  {title}".format(**row))


def main(url: str) -> None:
    """Click, look, take a click back, look again, and forget the user."""
    with psycopg.connect(url, row_factory=dict_row) as db:
        show(db, "A user without a past")

        db.execute("insert into rec.events (user_id, item_id) values (%s, 'film-en-001')", [USER])
        show(db, "After a click, before COMMIT")
        db.commit()

        # A retried request is counted once.
        for _ in range(2):
            call = "select rec.track(%s, 'film-en-006', p_dedupe_key => 'request 17') as event_id"
            print("event", db.execute(call, [USER]).fetchone())
        show(db, "After a second click")

        print("\nWhy these three")
        for row in db.execute(REASONS, {"user": USER}):
            print("{explained_item:<12} {term:<7} {share:5.2f}  {what}".format(**row))

        db.execute("select rec.forget_user(%s)", [USER])


if __name__ == "__main__":
    main(sys.argv[1])
