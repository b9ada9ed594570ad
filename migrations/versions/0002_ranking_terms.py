"""More terms of the score, a catalogue's own calibration, and the record of what tuning changed."""

from alembic import op

revision = "0002"
down_revision = "0001"

UPGRADE = """
alter table rec.settings
    add column closest_weight double precision not null default 0.5
        check (closest_weight between -100 and 100),
    add column together_weight double precision not null default 0
        check (together_weight between -100 and 100),
    add column newness_weight double precision not null default 0
        check (newness_weight between -100 and 100),
    add column exploration double precision not null default 0
        check (exploration between 0 and 1),
    alter column transition_weight set default 1.5,
    alter column trend_weight set default 0.2,
    alter column diversity set default 0.1,
    alter column balance set default 0.1;
-- Nearer to what fits to public logs of a shop and of two film sites give. Whoever has chosen
-- weights of his own keeps them.
update rec.settings set transition_weight = 1.5, trend_weight = 0.2
where transition_weight = 0.5 and trend_weight = 0.02;
update rec.settings set diversity = 0.1, balance = 0.1 where diversity = 0.2 and balance = 0.5;

-- Symmetric co-occurrence reads the steps that lead to an item, too.
alter table rec.popularity add column log_incoming double precision;
create index item_transitions_arriving on rec.item_transitions (to_item, log_mass desc);

-- The newest items of all domains.
create index items_latest on rec.items (created_at desc, item_id) where available;

-- A calibration that was fitted on this catalogue turns the vectors of the encoder `base` into
-- those that are stored: float32, the mean (dims), then the matrix (dims, dims).
alter table rec.encoders
    add column base text references rec.encoders,
    add column calibration bytea check (octet_length(calibration) = 4 * dims * (dims + 1)),
    add check ((base is null) = (calibration is null));

create table rec.tunings (
    tuning_id bigint not null generated always as identity primary key,
    tuned_at timestamptz not null default now(),
    before jsonb not null,
    after jsonb not null,
    figures jsonb not null,
    adopted boolean not null,
    undone_at timestamptz check (undone_at is null or adopted)
);
"""

# Signatures that changed; sql/ makes the new ones.
REPLACED = """
drop function if exists rec.recommend(
    text, integer, text, jsonb, boolean, double precision, timestamptz);
drop function if exists rec.score(text, text[], timestamptz);
drop view if exists rec.folded_events;
drop view if exists rec.liked_events;
drop function if exists rec.add_mass(double precision, double precision, timestamptz, interval);
drop function if exists rec.merge_changes(
    text[], text[], timestamptz[], double precision[], rec.settings);
"""

DOWNGRADE = """
do $$
declare
    v_drop text;
begin
    foreach v_drop in array array(
        select format('drop view if exists %s cascade', c.oid::regclass) from pg_class c
        where c.relnamespace = 'rec'::regnamespace and c.relkind = 'v'
    ) || array(
        select format('drop routine if exists %s cascade', p.oid::regprocedure) from pg_proc p
        where p.pronamespace = 'rec'::regnamespace
            and p.proname not in ('content_hash', 'item_hash')
    ) loop
        execute v_drop;
    end loop;
end $$;
drop table rec.tunings;
alter table rec.encoders drop column base, drop column calibration;
drop index rec.item_transitions_arriving, rec.items_latest;
alter table rec.popularity drop column log_incoming;
alter table rec.settings
    drop column closest_weight, drop column together_weight, drop column newness_weight,
    drop column exploration,
    alter column transition_weight set default 0.5,
    alter column trend_weight set default 0.02,
    alter column diversity set default 0.2,
    alter column balance set default 0.5;
"""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(UPGRADE)
    cursor.execute(REPLACED)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(DOWNGRADE)
