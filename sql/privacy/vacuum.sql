-- The vacuum without which deleted rows could still be read from files, indexes and statistics.

-- The tables that hold data of users, and whether the current role may vacuum each: every table with a column
-- user_id, the vectors of texts, and the counts. A role may vacuum the tables that it owns and, from
-- PostgreSQL 17 on, those on which it has MAINTAIN.
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

-- Age, in transactions, of the oldest transaction or snapshot that is still open in a session, on a replica,
-- or as a prepared transaction. A vacuum clears what older transactions deleted. A session that the role may
-- not inspect without pg_read_all_stats might hold anything, and counts as older than all.
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

-- Whether erasures left rows that a vacuum can clear, because no open transaction can still read them.
create or replace function rec_internal.vacuum_due()
returns boolean language sql volatile
set search_path from current
as $$
    select exists (
        select from rec_internal.erasures e
        where e.cleared_at is null and age(e.xmin) > (select rec_internal.held_age()));
$$;

-- The statements that clear the rows that erasures left, in order, and the ids of these erasures; no rows if
-- there is nothing to clear, or if an open transaction may still read it. Run them one by one in autocommit
-- on a connection of their own, then call rec_internal.end_vacuum(erasures). They set index_cleanup, because
-- a vacuum may otherwise leave index entries of a few deleted rows. p_full rewrites the tables, which locks
-- them, so that the files hold no old bytes either. It is an error if the role may not vacuum one of the
-- tables.
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
            hint = 'Their owner may, and from PostgreSQL 17 on any role with MAINTAIN on all of them.';
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

-- Drop the statistics of empty tables that hold data of users, and return the number of columns. ANALYZE does
-- not replace the statistics of a table that became empty, which contain values of its last rows. Before
-- PostgreSQL 18 they cannot be dropped and stay until the table has rows again; the result is 0.
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

-- Record that the statements of rec_internal.begin_vacuum() were run for these erasures, and return how
-- many erasures are now cleared.
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

-- Each erasure, and whether its deleted rows can still be read. The state is `held` while a transaction from
-- before the end of the erasure is open, here or on a replica, and may still read the rows; `to vacuum` when
-- the next vacuum by a worker or by `pgrec vacuum` can clear them; `cleared` when tables, indexes and
-- statistics hold nothing of them any more.
create or replace view rec.erasure_status with (security_invoker = true) as
select e.erasure_id, e.erased_at, e.cleared_at,
    case when e.cleared_at is not null then 'cleared'
        when age(e.xmin) > h.age then 'to vacuum'
        else 'held' end as state
from rec_internal.erasures e cross join (select rec_internal.held_age() as age) h;
