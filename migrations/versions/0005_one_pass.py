"""A list is made in one pass: what is found once is handed on. Milder re-ranking by default."""

from alembic import op

revision = "0005"
down_revision = "0004"

# All that match a filter are read once for all interests, which pays for more of them than before.
# Half of what re-ranking was keeps lists about as diverse and costs half as much of their accuracy.
UPGRADE = """
alter table rec.settings
    alter column exact_limit set default 5000,
    alter column diversity set default 0.05,
    alter column balance set default 0.05;
update rec.settings set exact_limit = 5000 where exact_limit = 1000;
update rec.settings set diversity = 0.05 where diversity = 0.1;
update rec.settings set balance = 0.05 where balance = 0.1;
"""

# A signature that changed; sql/ makes the new one. And one that nobody calls.
REPLACED = """
drop function if exists rec.log_add(double precision, double precision);
drop function if exists rec.candidates(
    vector[], text[], integer, text, jsonb, text[], timestamptz);
"""

DOWNGRADE = """
alter table rec.settings
    alter column exact_limit set default 1000,
    alter column diversity set default 0.1,
    alter column balance set default 0.1;
update rec.settings set exact_limit = 1000 where exact_limit = 5000;
update rec.settings set diversity = 0.1 where diversity = 0.05;
update rec.settings set balance = 0.1 where balance = 0.05;
"""

# What the sql/ of before does not replace.
ADDED = """
drop function if exists rec.candidates(vector[], text[], text[], integer, text, jsonb, text[]);
drop function if exists rec.neighbours, rec.indexed_neighbours, rec.passing, rec.newest, rec.terms,
    rec.profile, rec.topic_of, rec.transitions, rec.companions;
"""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(UPGRADE)
    cursor.execute(REPLACED)


def downgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(DOWNGRADE)
    cursor.execute(ADDED)
