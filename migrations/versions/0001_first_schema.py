"""The tables of schema rec: items and vectors, events and interests, counts and settings.

Vectors sit apart from items: an UPDATE of any column of a table with an HNSW index inserts into its
index. User-owned tables begin with user_id and hold it in every key, so that the schema can be
distributed by user.
"""

from alembic import op

revision = "0001"
down_revision = None

FUNCTIONS = """
-- Generated columns use these two, so they live here and are never replaced.
create function rec.content_hash(p_text text) returns bytea
language sql immutable strict parallel safe
return sha256(convert_to(p_text, 'UTF8'));
comment on function rec.content_hash is 'The sha256 under which the vector of a text is kept.';

create function rec.item_hash(p_title text, p_body text, p_attributes jsonb, p_tags text[])
returns bytea
language sql immutable parallel safe
return sha256(convert_to(
    jsonb_build_array(p_title, p_body, p_attributes, p_tags)::text, 'UTF8'));
comment on function rec.item_hash is 'The sha256 of all that an item is encoded from.';
"""

CATALOGUE = """
create table rec.items (
    item_id text primary key check (item_id <> '' and octet_length(item_id) <= 1000),
    domain text not null default 'default' check (domain <> ''),
    title text not null default '',
    body text not null default '',
    attributes jsonb not null default '{{}}' check (jsonb_typeof(attributes) = 'object'),
    tags text[] not null default '{{}}',
    available boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    content_hash bytea not null
        generated always as (rec.item_hash(title, body, attributes, tags)) stored,
    encoded_hash bytea,
    stale boolean not null generated always as (
        encoded_hash is distinct from rec.item_hash(title, body, attributes, tags)) stored,
    encode_error text
);
create index items_failed on rec.items (item_id) where encode_error is not null;
create index items_to_encode on rec.items (item_id) where stale;
create index items_newest on rec.items (domain, created_at desc, item_id) where available;
create index items_attributes on rec.items using gin (attributes jsonb_path_ops);

create table rec.item_vectors (
    item_id text primary key references rec.items on delete cascade,
    embedding halfvec({dims}) not null check (l2_norm(embedding) > 0)
);
alter table rec.item_vectors alter column embedding set storage plain;
create index item_vectors_hnsw on rec.item_vectors
    using hnsw (embedding halfvec_cosine_ops) with (m = 16, ef_construction = 100);

create table rec.event_kinds (
    kind text primary key check (kind <> ''),
    weight double precision not null check (abs(weight) <= 1000),
    marks_seen boolean not null default true,
    neutral double precision,
    scale double precision check (scale > 0),
    check ((neutral is null) = (scale is null))
);
insert into rec.event_kinds (kind, weight, marks_seen, neutral, scale) values
    ('view', 0.5, true, null, null),
    ('click', 1, true, null, null),
    ('like', 2, true, null, null),
    ('cart', 2, true, null, null),
    ('purchase', 3, true, null, null),
    ('rating', 1, true, 2.5, 2.5),
    ('tag', 1, true, null, null),
    ('search', 1, false, null, null),
    ('wish', 2, false, null, null),
    ('dislike', -2, true, null, null);

create table rec.horizons (
    horizon text primary key check (horizon <> ''),
    half_life interval not null check (extract(epoch from half_life) > 0),
    weight double precision not null check (weight >= 0 and weight < 'infinity')
);
insert into rec.horizons (horizon, half_life, weight) values
    ('short', '2 hours', 0.5),
    ('long', '30 days', 0.5);

create table rec.popularity (
    item_id text primary key,
    log_mass double precision not null,
    log_outgoing double precision
);
create index popularity_trending on rec.popularity (log_mass desc, item_id);

create table rec.item_transitions (
    from_item text not null,
    to_item text not null,
    log_mass double precision not null,
    primary key (from_item, to_item)
);
create index item_transitions_strongest on rec.item_transitions (from_item, log_mass desc);
"""

USERS = """
create table rec.events (
    user_id text not null check (user_id <> '' and octet_length(user_id) <= 1000),
    event_id bigint not null generated always as identity,
    item_id text check (octet_length(item_id) <= 1000),
    kind text not null default 'click',
    text text,
    text_hash bytea,
    value double precision check (value > '-infinity' and value < 'infinity'),
    dedupe_key text check (octet_length(dedupe_key) <= 1000),
    occurred_at timestamptz not null default now() check (isfinite(occurred_at)),
    received_at timestamptz not null default now() check (isfinite(received_at)),
    primary key (user_id, occurred_at, event_id),
    constraint events_item_or_text check (item_id is not null or text_hash is not null)
) partition by range (occurred_at);
create index events_of_item on rec.events (user_id, item_id) include (kind);
create unique index events_dedupe on rec.events (user_id, dedupe_key, occurred_at)
    where dedupe_key is not null;
create index events_of_text on rec.events (text_hash, user_id) where text_hash is not null;
create table rec.events_default partition of rec.events default;

create table rec.pending (
    user_id text not null,
    event_id bigint not null,
    occurred_at timestamptz not null,
    has_text boolean not null,
    enqueued_at timestamptz not null default clock_timestamp(),
    attempts smallint not null default 0 check (attempts >= 0),
    retry_at timestamptz not null default '-infinity',
    error text,
    primary key (user_id, event_id),
    constraint pending_parked_with_reason check (retry_at <> 'infinity' or error is not null)
) with (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1
);
create index pending_texts on rec.pending (user_id, event_id) where has_text;
create index pending_parked on rec.pending (user_id, event_id) where retry_at = 'infinity';

create table rec.user_interests (
    user_id text not null,
    horizon text not null,
    interest vector({dims}) not null,
    mass double precision not null check (mass >= 0),
    as_of timestamptz not null,
    primary key (user_id, horizon)
) with (fillfactor = 60);
alter table rec.user_interests alter column interest set storage plain;

create table rec.item_deltas (
    user_id text not null,
    delta_id bigint not null generated always as identity,
    from_item text,
    to_item text not null,
    amount double precision not null,
    at timestamptz not null,
    primary key (user_id, delta_id)
);

create table rec.texts (
    text_hash bytea primary key,
    embedding halfvec({dims}) not null check (l2_norm(embedding) > 0)
);
alter table rec.texts alter column embedding set storage plain;
"""

SETTINGS = """
create table rec.encoders (
    fingerprint text primary key check (fingerprint ~ '^[0-9a-f]{{64}}$'),
    name text not null,
    record jsonb not null,
    dims integer not null check (dims > 0),
    active boolean not null default false,
    created_at timestamptz not null default now()
);
create unique index encoders_one_active on rec.encoders (active) where active;

create table rec.settings (
    singleton boolean primary key default true check (singleton),
    content_weight double precision not null default 0.5
        check (content_weight between -100 and 100),
    latest_weight double precision not null default 0.5
        check (latest_weight between -100 and 100),
    transition_weight double precision not null default 0.5
        check (transition_weight between -100 and 100),
    trend_weight double precision not null default 0.02
        check (trend_weight between -100 and 100),
    repeat_weight double precision not null default 0
        check (repeat_weight between -100 and 100),
    aversion_weight double precision not null default 0.5
        check (aversion_weight between -100 and 100),
    diversity double precision not null default 0.2 check (diversity between 0 and 1),
    balance double precision not null default 0.5 check (balance between 0 and 100),
    candidates integer not null default 60 check (candidates between 1 and 1000),
    reranked integer not null default 100 check (reranked between 1 and 400),
    exact_limit integer not null default 1000 check (exact_limit between 0 and 100000),
    ef_search integer not null default 100 check (ef_search between 1 and 1000),
    topics integer not null default 5 check (topics between 1 and 20),
    topic_events integer not null default 50 check (topic_events between 1 and 500),
    topic_similarity double precision not null default 0.2
        check (topic_similarity between -1 and 1),
    latest_items integer not null default 10 check (latest_items between 1 and 50),
    latest_decay double precision not null default 0.7 check (latest_decay between 0.01 and 1),
    transition_window integer not null default 10 check (transition_window between 1 and 50),
    transition_prior double precision not null default 5
        check (transition_prior between 0.01 and 1000),
    popularity_half_life interval not null default '7 days'
        check (extract(epoch from popularity_half_life) > 0),
    transition_half_life interval not null default '1000 days'
        check (extract(epoch from transition_half_life) > 0),
    max_attempts smallint not null default 5 check (max_attempts between 1 and 1000),
    sql_digest text
);
insert into rec.settings default values;
"""

DROP_EVERYTHING = """
do $$
declare
    v_drop text;
begin
    foreach v_drop in array array(
        select format('drop view if exists %s cascade', c.oid::regclass) from pg_class c
        where c.relnamespace = 'rec'::regnamespace and c.relkind = 'v'
    ) || array(
        select format('drop table if exists %s cascade', c.oid::regclass) from pg_class c
        where c.relnamespace = 'rec'::regnamespace and c.relkind in ('r', 'p')
            and not c.relispartition and c.relname <> 'alembic_version'
    ) || array(
        select format('drop routine if exists %s cascade', p.oid::regprocedure) from pg_proc p
        where p.pronamespace = 'rec'::regnamespace
    ) loop
        execute v_drop;
    end loop;
end $$;
"""


def upgrade() -> None:
    dims = op.get_context().config.attributes["dims"]
    for part in (FUNCTIONS, CATALOGUE, USERS, SETTINGS):
        text = part.format(dims=dims) if part is not FUNCTIONS else part
        op.get_bind().connection.cursor().execute(text)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(DROP_EVERYTHING)
