"""Folding reads and adds in one statement; topics of items are found where the list is made."""

from alembic import op

revision = "0010"
down_revision = "0009"

REPLACED = """
drop function if exists
    rec.add_shares(text[], text[], bytea[], timestamptz[], double precision[]),
    rec.topic_of(halfvec, vector[]), rec.prepare_search(boolean, boolean);
"""

# What the sql/ of before does not replace.
ADDED = """
drop function if exists rec.add_shares(text[], bigint[], timestamptz[]), rec.strongest,
    rec.part_of_queue, rec.prepare_search(boolean, integer, double precision);
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(REPLACED)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(ADDED)
