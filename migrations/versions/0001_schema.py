"""The tables of the schemas `rec`, which people use, and `rec_internal`, the engine.

Tables with rows of users begin with user_id and have it in every key, so that they can be
distributed by user. Vectors are stored apart from items, because an UPDATE of any column of a table
with an HNSW index inserts into that index.
"""

from alembic import op

revision = "0001"
down_revision = None

# Generated columns use these functions, so they are made here and never replaced.
HASHES = """
create function rec_internal.content_hash(p_text text) returns bytea
language sql immutable strict parallel safe
return sha256(convert_to(p_text, 'UTF8'));
comment on function rec_internal.content_hash is
    'The sha256 under which the vector of a text is stored.';

create function rec_internal.spoken_attributes(p_attributes jsonb) returns jsonb
language sql immutable parallel safe
return jsonb_build_object('category', p_attributes -> 'category', 'brand', p_attributes -> 'brand');
comment on function rec_internal.spoken_attributes is
    'The attributes that an encoder reads. A change of any other encodes nothing again.';

create function rec_internal.item_hash(p_title text, p_body text, p_attributes jsonb, p_tags text[])
returns bytea
language sql immutable parallel safe
return sha256(convert_to(jsonb_build_array(
    left(p_title, 4800), left(p_body, 1600), rec_internal.spoken_attributes(p_attributes), p_tags
)::text, 'UTF8'));
comment on function rec_internal.item_hash is
    'The sha256 of everything that an encoder reads of an item.';
"""

CATALOGUE = """
create table rec.items (
    item_id text primary key check (item_id <> '' and octet_length(item_id) <= 1000),
    domain text not null default 'default' check (domain <> '' and octet_length(domain) <= 1000),
    title text not null default '',
    body text not null default '',
    attributes jsonb not null default '{}' check (jsonb_typeof(attributes) = 'object'),
    tags text[] not null default '{}',
    available boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    content_hash bytea not null
        generated always as (rec_internal.item_hash(title, body, attributes, tags)) stored,
    encoded_hash bytea,
    stale boolean not null generated always as (
        encoded_hash is distinct from rec_internal.item_hash(title, body, attributes, tags)) stored,
    encode_error text
);
create index items_failed on rec.items (item_id) where encode_error is not null;
create index items_to_encode on rec.items (item_id) where stale;
create index items_newest on rec.items (domain, created_at desc, item_id) where available;
create index items_latest on rec.items (created_at desc, item_id) where available;
create index items_attributes on rec.items using gin (attributes jsonb_path_ops);

create table rec.item_vectors (
    item_id text primary key references rec.items on delete cascade,
    embedding halfvec({dims}) not null check (l2_norm(embedding) > 0)
);
alter table rec.item_vectors alter column embedding set storage plain;
create index item_vectors_hnsw on rec.item_vectors
    using hnsw (embedding halfvec_cosine_ops) with (m = 16, ef_construction = 100);
"""

# A product of weights, masses and shares of time stays within the range of a double precision as
# long as no factor is too small or too large by itself. So every weight is 0 or bounded from below.
INTEREST = """
create table rec.event_kinds (
    kind text primary key check (kind <> '' and octet_length(kind) <= 200),
    weight double precision not null check (weight = 0 or abs(weight) between 1e-9 and 1000),
    marks_seen boolean not null default true,
    neutral double precision check (abs(neutral) <= 1e9),
    scale double precision check (scale between 1e-9 and 1e9),
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
    horizon text primary key check (horizon <> '' and octet_length(horizon) <= 200),
    half_life interval not null check (half_life between '1 second' and '10000 years'),
    weight double precision not null check (weight = 0 or weight between 1e-9 and 1e9)
);
insert into rec.horizons (horizon, half_life, weight) values
    ('short', '2 hours', 0.5),
    ('long', '30 days', 0.5);

create table rec.user_interests (
    user_id text not null,
    horizon text not null,
    interest vector({dims}) not null,
    mass double precision not null check (mass >= 0),
    as_of timestamptz not null,
    primary key (user_id, horizon)
) with (
    fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000
);
alter table rec.user_interests alter column interest set storage plain;

-- The part of each interest whose events were dropped from the log.
create table rec_internal.interest_bases (like rec.user_interests including all);

create table rec_internal.texts (
    text_hash bytea primary key,
    embedding halfvec({dims}) not null check (l2_norm(embedding) > 0)
);
alter table rec_internal.texts alter column embedding set storage plain;
"""

EVENTS = """
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
create table rec_internal.events_default partition of rec.events default;

-- The server reads and plans each CHECK of a table, and each condition of a trigger, in every
-- statement, and opens each index even for rows that the index leaves out. So the queue has no
-- CHECK, and only the indexes that it cannot do without.
create table rec_internal.pending (
    user_id text not null,
    event_id bigint not null,
    occurred_at timestamptz not null,
    has_text boolean not null,
    enqueued_at timestamptz not null default clock_timestamp(),
    attempts smallint not null default 0,
    retry_at timestamptz not null default '-infinity',
    error text,
    primary key (user_id, event_id)
) with (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1
);
create index pending_texts_and_parked on rec_internal.pending (retry_at, user_id, event_id)
    where has_text or retry_at = 'infinity';

create table rec_internal.paused_users (
    user_id text primary key check (user_id <> '' and octet_length(user_id) <= 1000),
    paused_at timestamptz not null default now()
);

-- Whoever pauses a user changes this row first, so that an INSERT with an older snapshot notices.
create table rec_internal.admissions (
    singleton boolean primary key default true check (singleton),
    changes bigint not null default 0
);
insert into rec_internal.admissions default values;

-- One row for each dedupe key of a user. Its primary key spans all partitions, so that one of two
-- events with the same dedupe key is stored, however and at whatever isolation level they come.
create table rec_internal.dedupe_keys (
    user_id text not null check (octet_length(user_id) <= 1000),
    dedupe_key text not null check (octet_length(dedupe_key) <= 1000),
    event_id bigint not null,
    primary key (user_id, dedupe_key)
);

-- The sequence has a value while every event is admitted, so that an INSERT need not query for
-- pauses.
create sequence rec_internal.admits_all;
"""

COUNTS = """
create table rec_internal.item_deltas (
    user_id text not null,
    delta_id bigint not null generated always as identity,
    to_item text not null,
    amount double precision not null,
    from_items text[] not null default '{}',
    step double precision not null default 1,
    at timestamptz not null,
    primary key (user_id, delta_id)
) with (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1
);

-- A merge updates popularity twice. A new mass needs a new index entry; sums of steps do not if the
-- page has room.
create table rec_internal.popularity (
    item_id text primary key,
    log_mass double precision not null,
    log_outgoing double precision,
    log_incoming double precision
) with (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000
);
create index popularity_trending on rec_internal.popularity (log_mass desc, item_id);

create table rec_internal.item_transitions (
    from_item text not null,
    to_item text not null,
    log_mass double precision not null,
    primary key (from_item, to_item)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
create index item_transitions_strongest on rec_internal.item_transitions (from_item, log_mass desc);
create index item_transitions_arriving on rec_internal.item_transitions (to_item, log_mass desc);
"""

RANKING = """
create table rec.rankers (
    ranker text primary key default 'default' check (ranker <> '' and octet_length(ranker) <= 200),
    content_weight double precision not null default 0.5
        check (content_weight = 0 or abs(content_weight) between 1e-100 and 100),
    latest_weight double precision not null default 0.5
        check (latest_weight = 0 or abs(latest_weight) between 1e-100 and 100),
    closest_weight double precision not null default 0.5
        check (closest_weight = 0 or abs(closest_weight) between 1e-100 and 100),
    transition_weight double precision not null default 1.5
        check (transition_weight = 0 or abs(transition_weight) between 1e-100 and 100),
    together_weight double precision not null default 0
        check (together_weight = 0 or abs(together_weight) between 1e-100 and 100),
    trend_weight double precision not null default 0.2
        check (trend_weight = 0 or abs(trend_weight) between 1e-100 and 100),
    newness_weight double precision not null default 0
        check (newness_weight = 0 or abs(newness_weight) between 1e-100 and 100),
    repeat_weight double precision not null default 0
        check (repeat_weight = 0 or abs(repeat_weight) between 1e-100 and 100),
    aversion_weight double precision not null default 0.5
        check (aversion_weight = 0 or abs(aversion_weight) between 1e-100 and 100),
    session_weight double precision not null default 0.5
        check (session_weight = 0 or session_weight between 0.001 and 0.99),
    session_half_life interval not null default '1 day'
        check (session_half_life between '1 second' and '10000 years'),
    latest_items integer not null default 10 check (latest_items between 1 and 50),
    latest_decay double precision not null default 0.7 check (latest_decay between 0.01 and 1),
    transition_prior double precision not null default 5
        check (transition_prior between 0.01 and 1000),
    topics integer not null default 5 check (topics between 1 and 20),
    topic_events integer not null default 50 check (topic_events between 1 and 500),
    topic_similarity double precision not null default 0.2
        check (topic_similarity between -1 and 1),
    candidates integer not null default 60 check (candidates between 1 and 1000),
    ef_search integer not null default 400 check (ef_search between 1 and 1000),
    exact_limit integer not null default 5000 check (exact_limit between 0 and 100000),
    reranked integer not null default 100 check (reranked between 1 and 400),
    diversity double precision not null default 0.05
        check (diversity = 0 or diversity between 1e-100 and 1),
    balance double precision not null default 0.05
        check (balance = 0 or balance between 1e-100 and 100),
    exploration double precision not null default 0
        check (exploration = 0 or exploration between 1e-100 and 1)
);
insert into rec.rankers default values;

create table rec.tunings (
    tuning_id bigint not null generated always as identity primary key,
    ranker text not null,
    tuned_at timestamptz not null default now(),
    before jsonb not null,
    after jsonb not null,
    figures jsonb not null,
    adopted boolean not null,
    undone_at timestamptz check (undone_at is null or adopted)
);
"""

DEPLOYMENT = """
create table rec.settings (
    singleton boolean primary key default true check (singleton),
    popularity_half_life interval not null default '7 days'
        check (popularity_half_life between '1 second' and '10000 years'),
    transition_half_life interval not null default '1000 days'
        check (transition_half_life between '1 second' and '10000 years'),
    transition_window integer not null default 10 check (transition_window between 1 and 50),
    max_attempts smallint not null default 5 check (max_attempts between 1 and 1000),
    keep_text boolean not null default true,
    events_kept interval check (events_kept >= '1 day'),
    keep_interests boolean not null default true,
    minimum_cohort integer not null default 10 check (minimum_cohort between 2 and 1000000),
    privacy_budget double precision not null default 1
        check (privacy_budget > 0 and privacy_budget <= 100)
);
insert into rec.settings default values;

create table rec_internal.state (
    singleton boolean primary key default true check (singleton),
    sql_digest text,
    recount boolean not null default false
);
comment on table rec_internal.state is
    'What pgrec records about itself, in one row.';
comment on column rec_internal.state.sql_digest is
    'The version of functions and views, written by pgrec migrate.';
comment on column rec_internal.state.recount is
    'Whether events were dropped that popularity and transitions still count.';
insert into rec_internal.state default values;

create table rec_internal.made (
    kind text not null check (kind in ('routine', 'view', 'type')),
    signature text not null,
    primary key (kind, signature)
);
comment on table rec_internal.made is
    'Objects that the last run of sql/ made; what the next run does not make again is dropped.';

-- A calibration, fitted on this catalogue, turns the vectors of the encoder `base` into those that
-- are stored: float32, the mean (dims), then the matrix (dims, dims).
create table rec_internal.encoders (
    fingerprint text primary key check (fingerprint ~ '^[0-9a-f]{64}$'),
    name text not null,
    record jsonb not null,
    dims integer not null check (dims > 0),
    active boolean not null default false,
    created_at timestamptz not null default now(),
    base text references rec_internal.encoders,
    calibration bytea check (octet_length(calibration) = 4 * dims * (dims + 1)),
    check ((base is null) = (calibration is null))
);
create unique index encoders_one_active on rec_internal.encoders (active) where active;
"""

PRIVACY = """
-- An erasure names no user; the rows that it deleted have its xmin as their xmax.
create table rec_internal.erasures (
    erasure_id bigint not null generated always as identity primary key,
    erased_at timestamptz not null default now(),
    cleared_at timestamptz
);
create index erasures_open on rec_internal.erasures (erasure_id) where cleared_at is null;

create table rec.releases (
    release_id bigint not null generated always as identity primary key,
    released_at timestamptz not null default now(),
    question jsonb not null unique,
    epsilon double precision not null check (epsilon > 0),
    answer jsonb not null
);
"""

PARTS = (HASHES, CATALOGUE, INTEREST, EVENTS, COUNTS, RANKING, DEPLOYMENT, PRIVACY)

DROP_EVERYTHING = """
do $$
declare
    v_drop text;
begin
    foreach v_drop in array array(
        select format('drop view if exists %s cascade', c.oid::regclass) from pg_class c
        where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)
            and c.relkind = 'v'
    ) || array(
        select format('drop table if exists %s cascade', c.oid::regclass) from pg_class c
        where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)
            and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> 'alembic_version'
    ) || array(
        select format('drop routine if exists %s cascade', p.oid::regprocedure) from pg_proc p
        where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)
    ) || array(
        select format('drop type if exists %s cascade', c.reltype::regtype) from pg_class c
        where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)
            and c.relkind = 'c'
    ) || array['drop sequence if exists rec_internal.admits_all'] loop
        execute v_drop;
    end loop;
end $$;
"""


def upgrade() -> None:
    dims = str(op.get_context().config.attributes["dims"])
    cursor = op.get_bind().connection.cursor()
    for part in PARTS:
        cursor.execute(part.replace("{dims}", dims))


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(DROP_EVERYTHING)
