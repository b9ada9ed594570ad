-- The vacuum without which deleted rows could still be read from files, indexes and statistics.

-- Every table with a column user_id, the vectors of texts, and the counts. A role may vacuum what
-- it owns, and from PostgreSQL 17 on what it has MAINTAIN on.
create or replace function rec_internal.personal_tables()
returns table (name text, may_vacuum boolean)
language sql stable
set search_path from current
as $$
    select rec_internal.qualified(c.oid),
        (select bool_and(case
            when pg_has_role(l.relowner, 'usage') then true
            when current_setting('server_version_num')::integer >= 170000
                then has_table_privilege(l.oid, 'MAINTAIN')
            else false end)
        from pg_class l
        where l.oid = c.oid or l.oid in (select t.relid from pg_partition_tree(c.oid) t))
    from pg_class c
    where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)
        and c.relkind in ('r', 'p') and not c.relispartition
        and (c.relname in ('texts', 'popularity', 'item_transitions') or exists (
            select from pg_attribute a
            where a.attrelid = c.oid and a.attname = 'user_id' and a.attnum > 0))
    order by c.relname;
$$;

-- Age of the oldest transaction or snapshot that is open: of a session, a replica or a prepared
-- transaction. A vacuum clears what was deleted by older transactions. A session that the role may
-- not look into, for want of pg_read_all_stats, might hold anything.
create or replace function rec_internal.held_age()
returns integer language sql volatile
set search_path from current
as $$
    select coalesce(max(greatest(h.age, 0)), 0)
    from (
        select case when a.query = '<insufficient privilege>' then 2147483647
            else greatest(age(a.backend_xmin), age(a.backend_xid)) end as age
        from pg_stat_activity a
        where a.pid <> pg_backend_pid()
            and (a.datid is null or a.datname = current_database())
        union all
        select age(r.xmin) from pg_replication_slots r
        union all
        select age(p.transaction) from pg_prepared_xacts p where p.database = current_database()
    ) h;
$$;

-- Whether erasures left rows that a vacuum can clear: nobody can still read them.
create or replace function rec_internal.vacuum_due()
returns boolean language sql volatile
set search_path from current
as $$
    select exists (
        select from rec_internal.erasures e
        where e.cleared_at is null and age(e.xmin) > (select rec_internal.held_age()));
$$;

-- Statements for a session of its own, in autocommit, one after the other; then call
-- rec_internal.end_vacuum(erasures). Without index_cleanup a vacuum may leave index entries of few deleted
-- rows. p_full rewrites the tables, which locks them, and leaves no old bytes in the files either.
-- No rows: nothing is to be cleared, or something open still holds it.
create or replace function rec_internal.begin_vacuum(p_full boolean default false)
returns table (statement text, erasures bigint[])
language plpgsql volatile
set search_path from current
as $$
declare
    v_how text := case when p_full then 'full' else 'index_cleanup on' end;
    v_erasures bigint[];
begin
    select array_agg(e.erasure_id) into v_erasures from rec_internal.erasures e
    where e.cleared_at is null and age(e.xmin) > rec_internal.held_age();
    if v_erasures is not null and exists (
        select from rec_internal.personal_tables() t where not t.may_vacuum) then
        raise exception 'role % may not vacuum the tables of users', current_user
            using errcode = 'insufficient_privilege',
            hint = 'Their owner may, and from PostgreSQL 17 on whoever has MAINTAIN on all of them.';
    end if;
    if v_erasures is null then
        return;
    end if;
    return query
    select s.statement, v_erasures
    from (
        select 1, format('vacuum (%s, analyze) %s', v_how, t.name) from rec_internal.personal_tables() t
        union all
        select 2, 'select rec_internal.forget_statistics()'
        union all
        select 3, format('vacuum (%s) pg_catalog.pg_statistic', v_how)
        where pg_has_role(
            (select d.datdba from pg_database d where d.datname = current_database()), 'usage')
    ) s (place, statement)
    order by s.place, s.statement;
end $$;

-- ANALYZE leaves the statistics of a table that became empty as they were, with the values of its
-- last rows in them. From PostgreSQL 18 on they can be dropped; before, they stay until there are
-- rows again.
create or replace function rec_internal.forget_statistics()
returns integer language plpgsql volatile security definer
set search_path = rec, pg_temp
as $$
declare
    v_table record;
    v_dropped integer := 0;
    v_empty boolean;
begin
    if to_regproc('pg_catalog.pg_clear_attribute_stats') is null then
        return 0;
    end if;
    for v_table in
        select m.relid, array_agg(s.attname) as columns, s.schemaname, s.tablename, s.inherited
        from rec_internal.personal_tables() t
        cross join lateral (
            select t.name::regclass as relid
            union select p.relid from pg_partition_tree(t.name::regclass) p) m
        join pg_class c on c.oid = m.relid
        join pg_stats s on s.schemaname = c.relnamespace::regnamespace::text and s.tablename = c.relname
        group by m.relid, s.schemaname, s.tablename, s.inherited
    loop
        execute format('select not exists (select from %s)', v_table.relid::regclass) into v_empty;
        continue when not v_empty;
        perform pg_clear_attribute_stats(
            v_table.schemaname, v_table.tablename, a.attname, v_table.inherited)
        from unnest(v_table.columns) as a (attname);
        v_dropped := v_dropped + cardinality(v_table.columns);
    end loop;
    return v_dropped;
end $$;

-- Note that the statements of rec_internal.begin_vacuum() were run for these erasures.
create or replace function rec_internal.end_vacuum(p_erasures bigint[])
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_cleared integer;
begin
    update rec_internal.erasures e set cleared_at = clock_timestamp()
    where e.cleared_at is null and e.erasure_id = any(p_erasures);
    get diagnostics v_cleared = row_count;
    return v_cleared;
end $$;

-- held: a transaction from before the end of the erasure is open, here or on a replica, and may
-- still read the rows; to vacuum: the next vacuum of a worker or of `pgrec vacuum` clears them;
-- cleared: tables, indexes and statistics hold nothing of them any more.
create or replace view rec.erasure_status with (security_invoker = true) as
select e.erasure_id, e.erased_at, e.cleared_at,
    case when e.cleared_at is not null then 'cleared'
        when age(e.xmin) > h.age then 'to vacuum'
        else 'held' end as state
from rec_internal.erasures e cross join (select rec_internal.held_age() as age) h;
