-- What `pgrec doctor` finds inside the database. A finding is green, yellow (check it) or red (something
-- does not work as promised) and says what to do. Everything is read with the rights of the caller.

-- A finding as a row: its level is red if p_red, else yellow if p_yellow, else green; the advice of a green
-- one is NULL.
create or replace function rec_internal.finding(
    p_what text, p_red boolean, p_yellow boolean, p_found text, p_advice text)
returns table (what text, level text, found text, advice text)
language sql immutable
set search_path = rec, pg_temp
as $$
    select p_what,
        case when p_red then 'red' when p_yellow then 'yellow' else 'green' end, p_found,
        case when p_red or p_yellow then p_advice end;
$$;

-- Findings on the server: versions of PostgreSQL and pgvector, and autovacuum.
create or replace function rec_internal.health_server()
returns table (what text, level text, found text, advice text)
language sql stable
set search_path = rec, pg_temp
as $$
    select f.* from (
        select current_setting('server_version_num')::integer / 10000 as major) v
    cross join lateral rec_internal.finding('server', v.major < 15, v.major < 18,
        'PostgreSQL ' || current_setting('server_version'),
        case when v.major < 15 then 'Upgrade the server: PostgreSQL 15 is the oldest that can work.'
            else 'It may work, but pgrec is tested on PostgreSQL 18.' end) f
    union all
    select f.* from (
        select (regexp_match(e.extversion, '^\d+\.\d+\.\d+'))[1] as version,
            e.extnamespace::regnamespace::text as home
        from pg_extension e where e.extname = 'vector') e
    cross join lateral rec_internal.finding('pgvector',
        coalesce(string_to_array(e.version, '.')::integer[] < '{0,8,4}', true), false,
        format('%s in schema %s', coalesce(e.version, 'unknown'), e.home),
        'Install 0.8.4 or newer, then: alter extension vector update; reindex the HNSW index.') f
    union all
    select f.* from rec_internal.finding('autovacuum',
        current_setting('autovacuum') = 'off' or current_setting('track_counts') = 'off', false,
        current_setting('autovacuum'),
        'Switch autovacuum and track_counts on: rows leave rec_internal.pending all the time.') f;
$$;

-- Findings on tables that change a lot: dead rows, and whether autovacuum is off.
create or replace function rec_internal.health_tables()
returns table (what text, level text, found text, advice text)
language sql stable
set search_path = rec, pg_temp
as $$
    select f.* from pg_class c
    left join pg_stat_user_tables t on t.relid = c.oid
    cross join lateral rec_internal.finding('dead rows of ' || c.relname,
        'autovacuum_enabled=false' = any(c.reloptions),
        coalesce(t.n_dead_tup > 50000 and t.n_dead_tup > 2 * t.n_live_tup, false),
        format('%s dead, %s live', coalesce(t.n_dead_tup, 0), coalesce(t.n_live_tup, 0)),
        format('vacuum %s; then find out why autovacuum does not do so: a transaction stays open, or '
            'autovacuum_enabled is false.', c.oid::regclass)) f
    where c.oid in ('rec_internal.pending'::regclass, 'rec.user_interests'::regclass);
$$;

-- Findings on workers, their lag, parked events, and items that cannot be encoded.
create or replace function rec_internal.health_queue()
returns table (what text, level text, found text, advice text)
language sql stable
set search_path = rec, pg_temp
as $$
    with queue as (
        select q.*, (
            select count(*) from pg_stat_activity a
            where a.datname = current_database() and a.application_name = 'pgrec worker') as workers
        from rec_internal.queue q
    )
    select f.* from queue q cross join lateral rec_internal.finding('worker',
        q.workers = 0 and (q.pending > 0 or q.items_to_encode > 0), q.workers = 0,
        format('%s connected; %s events and %s items wait', q.workers, q.pending, q.items_to_encode),
        'Start `pgrec worker`; without one nothing is encoded or folded.') f
    union all
    select f.* from queue q cross join lateral rec_internal.finding('lag',
        q.lag_seconds > 600, q.lag_seconds > 60,
        format('the oldest event has waited for %s s', round(q.lag_seconds::numeric)),
        'Check the log of the worker; if it is busy all the time, start another one.') f
    union all
    select f.* from queue q cross join lateral rec_internal.finding('parked', false, q.parked > 0,
        format('%s events cannot be folded', q.parked),
        'select * from rec.parked says why; pgrec retry tries again.') f
    union all
    select f.* from (select count(*) as items from rec.items i where i.encode_error is not null) n
    cross join lateral rec_internal.finding('failed items', false, n.items > 0,
        format('%s items cannot be encoded', n.items),
        'rec.items says why in encode_error; change the items, or run pgrec retry.') f;
$$;

-- Findings on the partitions of rec.events.
create or replace function rec_internal.health_log()
returns table (what text, level text, found text, advice text)
language sql stable
set search_path = rec, pg_temp
set timezone = 'UTC'
as $$
    with month as (
        select n.ahead, to_regclass('rec_internal.' || to_char(
            date_trunc('month', now()) + make_interval(months => n.ahead), '"events_"YYYY_MM')) as part
        from generate_series(0, 1) as n (ahead)
    ), missing as (
        select array_agg(m.ahead) as ahead from month m
        where not exists (
            select from pg_inherits i
            where i.inhparent = 'rec.events'::regclass and i.inhrelid = m.part
                and not i.inhdetachpending)
    )
    select f.* from missing m cross join lateral rec_internal.finding('partitions',
        0 = any(m.ahead), m.ahead is not null,
        case when m.ahead is null then 'made for this month and the next'
            when 0 = any(m.ahead) then 'none for this month' else 'none for the next month' end,
        'select rec.make_partitions(); a worker does so every six hours.') f;
$$;

-- Findings on the encoder, the dimensions of vectors, and the HNSW index.
create or replace function rec_internal.health_vectors()
returns table (what text, level text, found text, advice text)
language sql stable
set search_path = rec, pg_temp
as $$
    select f.* from (select count(*) as active, max(e.name) as name, max(e.dims) as dims
        from rec_internal.encoders e where e.active) e
    cross join (
        select array_agg(distinct a.atttypmod) as dims from pg_attribute a
        where (a.attrelid, a.attname) in (
            ('rec.item_vectors'::regclass, 'embedding'), ('rec_internal.texts'::regclass, 'embedding'),
            ('rec.user_interests'::regclass, 'interest'))) t
    cross join lateral rec_internal.finding('encoder',
        e.active > 0 and t.dims <> array[e.dims], e.active = 0,
        coalesce(e.name || ', ', 'none yet; ') || array_to_string(t.dims, ' and ') || ' dimensions stored',
        case when e.active = 0 then 'The first worker registers its own.'
            else 'Vectors of two encoders are mixed: restore rec_internal.encoders, or migrate a new database.'
        end) f
    union all
    select f.* from (
        select count(*) as indexes, coalesce(bool_and(i.indisvalid and i.indisready), false) as valid,
            coalesce(sum(pg_relation_size(i.indexrelid)), 0) as bytes
        from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
        where i.indrelid = 'rec.item_vectors'::regclass and a.amname = 'hnsw') i
    cross join lateral rec_internal.finding('vector index', i.indexes = 0 or not i.valid,
        i.bytes > pg_size_bytes(current_setting('shared_buffers')),
        case when i.indexes = 0 then 'missing' when not i.valid then 'invalid'
            else pg_size_pretty(i.bytes) end,
        case when i.indexes = 0 then 'create index item_vectors_hnsw on rec.item_vectors using hnsw '
                '(embedding halfvec_cosine_ops) with (m = 16, ef_construction = 100);'
            when not i.valid then 'reindex index concurrently rec.item_vectors_hnsw;'
            else 'The index does not fit into shared_buffers: increase them.' end) f;
$$;

-- Whether the planner uses the HNSW index for the vector search, as a finding.
create or replace function rec_internal.health_plan()
returns table (what text, level text, found text, advice text)
language plpgsql volatile
set search_path from current
as $$
declare
    v_line text;
    v_scan text;
    v_items real := (select c.reltuples from pg_class c where c.oid = 'rec.item_vectors'::regclass);
begin
    for v_line in
        explain select v.item_id from rec.item_vectors v
        order by v.embedding <=> (
            select array_fill(1, array[e.dims])::halfvec from rec_internal.encoders e where e.active)
        limit 10
    loop
        v_scan := coalesce(substring(v_line from 'Index Scan using (\S+) on item_vectors'), v_scan);
    end loop;
    -- A few pages are read faster than an index.
    return query select f.* from rec_internal.finding('search plan',
        v_scan is null and v_items >= 2000, v_scan is null,
        coalesce('index scan by ' || v_scan, 'all rows are compared'),
        'Nothing to do while the catalogue is small; otherwise analyze rec.item_vectors, and check that '
        'enable_indexscan is on and the index is valid.') f;
end $$;

-- Findings on horizons, event kinds and rankers that cannot give a useful list.
create or replace function rec_internal.health_settings()
returns table (what text, level text, found text, advice text)
language sql stable
set search_path = rec, pg_temp
as $$
    select f.* from (
        select (select count(*) from rec.horizons h where h.weight > 0) as horizons,
            (select count(*) from rec.event_kinds k where k.weight > 0) as kinds) n
    cross join lateral rec_internal.finding('horizons and kinds', n.horizons = 0 or n.kinds = 0, false,
        format('%s horizons and %s kinds of events have a positive weight', n.horizons, n.kinds),
        'rec.horizons and rec.event_kinds each need a row with a positive weight.') f
    union all
    select f.* from rec_internal.finding('default ranker',
        not exists (select from rec.rankers r where r.ranker = 'default'), false,
        case when exists (select from rec.rankers r where r.ranker = 'default')
            then 'there' else 'missing' end,
        'insert into rec.rankers default values;') f
    union all
    select f.* from rec.rankers r
    cross join lateral (
        select string_agg(format('%s %s', left(w.key, -length('_weight')), w.value), ', ' order by w.key)
                as told,
            max(w.value::double precision) as greatest
        from jsonb_each(to_jsonb(r)) as w
        where w.key like '%\_weight' and w.key not in ('aversion_weight', 'session_weight')
    ) w
    cross join lateral rec_internal.finding('weights of ranker ' || r.ranker, w.greatest <= 0, false,
        w.told, 'No term has a positive weight: choose weights in rec.rankers, or run pgrec tune --undo.') f;
$$;

-- Findings on roles, the owner, the schema of pgvector, and row-level policies.
create or replace function rec_internal.health_rights()
returns table (what text, level text, found text, advice text)
language sql stable
set search_path = rec, pg_temp
as $$
    select f.* from (
        select array_agg(r.name) as names
        from unnest('{rec_owner,rec_worker,rec_app,rec_analyst}'::text[]) as r (name)
        where to_regrole(r.name) is null) m
    cross join lateral rec_internal.finding('roles', false, m.names is not null,
        coalesce('missing: ' || array_to_string(m.names, ', '), 'all there'),
        'pgrec migrate makes them, or says what an administrator has to run.') f
    union all
    select f.* from pg_class c join pg_roles r on r.oid = c.relowner
    cross join lateral rec_internal.finding('owner', false, r.rolsuper,
        format('%s owns rec.events', r.rolname),
        'Its triggers run with the rights of a superuser: pgrec migrate hands them to rec_owner.') f
    where c.oid = 'rec.events'::regclass
    union all
    select f.* from pg_extension e join pg_namespace n on n.oid = e.extnamespace
    cross join lateral (
        select coalesce(bool_or(a.grantee = 0 and a.privilege_type = 'CREATE'), false) as is_open
        from aclexplode(n.nspacl) a) a
    cross join lateral rec_internal.finding('schema of pgvector', a.is_open, false,
        format('%I, in which %s may create', n.nspname, case when a.is_open then 'everybody'
            else 'not everybody' end),
        format('revoke create on schema %I from public; a role that may create there can shadow '
            'functions that pgrec calls.', n.nspname)) f
    where e.extname = 'vector'
    union all
    select f.* from (
        select string_agg(c.relname, ', ') filter (where c.relforcerowsecurity) as forced,
            string_agg(c.relname, ', ') filter (where not exists (
                select from pg_policy p
                where p.polrelid = c.oid and p.polroles && array[0::oid, w.oid])) as unseen
        from pg_class c left join pg_roles w on w.rolname = 'rec_worker'
        where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace) and c.relrowsecurity
            and c.relname in ('items', 'item_vectors', 'popularity', 'item_transitions', 'events',
                'pending', 'user_interests', 'interest_bases', 'item_deltas', 'paused_users', 'texts')) p
    cross join lateral rec_internal.finding('policies', p.forced is not null, p.unseen is not null,
        coalesce('forced on the owner: ' || p.forced, 'no policy for rec_worker: ' || p.unseen,
            'none in the way'),
        case when p.forced is not null then 'The triggers run as the owner: set no force row level security.'
            else 'create policy worker on ... to rec_worker using (true), or give the worker BYPASSRLS.'
        end) f;
$$;

-- Checks of the recommender, one row each: what was checked, its level, what was found, and advice. The level
-- is green, yellow (check it) or red (it does not work as promised); the advice says what to do, and is NULL
-- if green. A part that the caller may not read is yellow. `pgrec doctor` shows these findings and adds those
-- from outside the database.
create or replace function rec.health()
returns table (what text, level text, found text, advice text)
language plpgsql volatile
set search_path = rec, pg_temp
as $$
declare
    v_part text;
begin
    foreach v_part in array
        '{server,rights,settings,vectors,plan,log,queue,tables}'::text[]
    loop
        begin
            return query execute format('select * from rec_internal.%I()', 'health_' || v_part);
        exception when insufficient_privilege then
            return query select f.* from rec_internal.finding(v_part, false, true, 'not checked: ' || sqlerrm,
                'Call it as a member of rec_owner.') f;
        end;
    end loop;
end $$;
