"""One pair of functions takes and gives back the lock by which a worker is notified."""

from alembic import op

revision = "0009"
down_revision = "0008"

REPLACED = """
drop function if exists rec.try_sleep(), rec.stop_sleeping(), rec.try_rest(), rec.stop_resting();
"""

# What the sql/ of before does not replace.
ADDED = """
drop function if exists rec.try_sleep(bigint, double precision), rec.stop_sleeping(bigint);
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(REPLACED)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(ADDED)
