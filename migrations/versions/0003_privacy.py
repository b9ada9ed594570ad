"""Erasures that a vacuum completes, retention, users who are paused, and released counts."""

from alembic import op

revision = "0003"
down_revision = "0002"

UPGRADE = """
alter table rec.settings
    add column keep_text boolean not null default true,
    add column events_kept interval check (events_kept >= interval '1 day'),
    add column keep_interests boolean not null default true,
    add column minimum_cohort integer not null default 10
        check (minimum_cohort between 2 and 1000000),
    add column privacy_budget double precision not null default 1
        check (privacy_budget > 0 and privacy_budget <= 100),
    -- Set when events were dropped and popularity and transitions still count them.
    add column recount boolean not null default false;

-- Erasures, which a vacuum completes. It names nobody; the rows of an erasure have its xmin.
create table rec.erasures (
    erasure_id bigint not null generated always as identity primary key,
    erased_at timestamptz not null default now(),
    cleared_at timestamptz
);
create index erasures_open on rec.erasures (erasure_id) where cleared_at is null;

create table rec.paused_users (
    user_id text primary key check (user_id <> '' and octet_length(user_id) <= 1000),
    paused_at timestamptz not null default now()
);

-- The part of an interest whose events were dropped. Vectors are as long as those of the interests.
create table rec.interest_bases (like rec.user_interests including all);

create table rec.releases (
    release_id bigint not null generated always as identity primary key,
    released_at timestamptz not null default now(),
    question jsonb not null unique,
    epsilon double precision not null check (epsilon > 0),
    answer jsonb not null
);
"""

# sql/ makes others in their stead.
REPLACED = """
drop function if exists rec.add_user_steps(text, integer);
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
drop table rec.erasures, rec.paused_users, rec.interest_bases, rec.releases;
alter table rec.settings
    drop column keep_text, drop column events_kept, drop column keep_interests,
    drop column minimum_cohort, drop column privacy_budget, drop column recount;
"""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(UPGRADE)
    cursor.execute(REPLACED)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(DOWNGRADE)
