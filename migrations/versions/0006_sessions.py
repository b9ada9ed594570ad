"""In the middle of a visit, what people went on to counts more and what is popular less."""

from alembic import op

revision = "0006"
down_revision = "0005"

UPGRADE = """
alter table rec.settings
    add column session_weight double precision not null default 0.5
        check (session_weight = 0 or session_weight between 0.001 and 0.99),
    add column session_half_life interval not null default '1 day'
        check (session_half_life between '1 second' and '10000 years');
"""

DOWNGRADE = """
alter table rec.settings drop column session_weight, drop column session_half_life;
"""

# Results and signatures that change; sql/ makes those of its version.
REPLACED = "drop function if exists rec.profile, rec.terms;"


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(UPGRADE)
    cursor.execute(REPLACED)


def downgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(DOWNGRADE)
    cursor.execute(REPLACED)
