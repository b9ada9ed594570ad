"""A list is made in one pass: what is found once is handed on."""

from alembic import op

revision = "0005"
down_revision = "0004"

# A signature that changed; sql/ makes the new one.
REPLACED = """
drop function if exists rec.candidates(
    vector[], text[], integer, text, jsonb, text[], timestamptz);
"""

# What the sql/ of before does not replace.
ADDED = """
drop function if exists rec.candidates(vector[], text[], text[], integer, text, jsonb, text[]);
drop function if exists rec.neighbours, rec.indexed_neighbours, rec.passing, rec.newest, rec.terms,
    rec.profile, rec.topic_of, rec.transitions, rec.companions;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(REPLACED)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(ADDED)
