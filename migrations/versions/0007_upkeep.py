"""Tables that are rewritten all the time are vacuumed early, and have room for updates."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Everything in item_deltas is deleted soon, as in pending. By the defaults of the server, what
# grows slowly is vacuumed when a fifth of it is dead, which is much where it is large. popularity
# is updated twice: a new mass needs a new index entry, sums of steps do not if there is room.
UPGRADE = """
alter table rec.item_deltas set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1);
alter table rec.user_interests set (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
alter table rec.popularity set (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
alter table rec.item_transitions set (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
"""

DOWNGRADE = """
alter table rec.item_deltas reset (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_vacuum_insert_threshold);
alter table rec.user_interests reset (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table rec.popularity reset (
    fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table rec.item_transitions reset (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(UPGRADE)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(DOWNGRADE)
