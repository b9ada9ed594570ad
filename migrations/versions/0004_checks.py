"""Weights and half-lives with which one can compute, and names that an index can hold."""

from alembic import op

revision = "0004"
down_revision = "0003"

# A product of weights, masses and shares of time stays within the range of a double precision as
# long as no factor is too small or too great by itself. Whoever has such a value is told by the
# name of the constraint, and nothing is migrated until it is changed.
UPGRADE = """
alter table rec.event_kinds
    add constraint event_kinds_kind_is_short check (octet_length(kind) <= 200),
    add constraint event_kinds_weight_is_none_or_1e_9_at_least
        check (weight = 0 or abs(weight) >= 1e-9),
    add constraint event_kinds_neutral_is_within_1e9 check (abs(neutral) <= 1e9),
    add constraint event_kinds_scale_is_between_1e_9_and_1e9 check (scale between 1e-9 and 1e9);

alter table rec.horizons
    add constraint horizons_horizon_is_short check (octet_length(horizon) <= 200),
    add constraint horizons_half_life_is_between_a_second_and_10000_years
        check (half_life between '1 second' and '10000 years'),
    add constraint horizons_weight_is_none_or_between_1e_9_and_1e9
        check (weight = 0 or weight between 1e-9 and 1e9);

alter table rec.settings
    add constraint settings_half_lives_are_between_a_second_and_10000_years check (
        popularity_half_life between '1 second' and '10000 years'
        and transition_half_life between '1 second' and '10000 years'),
    add constraint settings_weights_are_none_or_1e_100_at_least check (1e-100 <= all (array[
        nullif(abs(content_weight), 0), nullif(abs(latest_weight), 0),
        nullif(abs(closest_weight), 0), nullif(abs(transition_weight), 0),
        nullif(abs(together_weight), 0), nullif(abs(trend_weight), 0),
        nullif(abs(newness_weight), 0), nullif(abs(repeat_weight), 0),
        nullif(abs(aversion_weight), 0), nullif(diversity, 0), nullif(balance, 0),
        nullif(exploration, 0)]));

alter table rec.items
    add constraint items_domain_is_short check (octet_length(domain) <= 1000);
"""

DOWNGRADE = """
alter table rec.items drop constraint items_domain_is_short;
alter table rec.settings
    drop constraint settings_half_lives_are_between_a_second_and_10000_years,
    drop constraint settings_weights_are_none_or_1e_100_at_least;
alter table rec.horizons
    drop constraint horizons_horizon_is_short,
    drop constraint horizons_half_life_is_between_a_second_and_10000_years,
    drop constraint horizons_weight_is_none_or_between_1e_9_and_1e9;
alter table rec.event_kinds
    drop constraint event_kinds_kind_is_short,
    drop constraint event_kinds_weight_is_none_or_1e_9_at_least,
    drop constraint event_kinds_neutral_is_within_1e9,
    drop constraint event_kinds_scale_is_between_1e_9_and_1e9;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(UPGRADE)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(DOWNGRADE)
