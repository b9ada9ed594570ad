"""The weight of the term price."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.execute(
        "alter table rec.rankers add column price_weight double precision not null default 0"
        " check (price_weight = 0 or abs(price_weight) between 1e-100 and 100)"
    )


def downgrade() -> None:
    """Drop the column."""
    op.execute("alter table rec.rankers drop column price_weight")
