-- Tables for vectors of another space. They are filled beside the live ones, get the same indexes,
-- rights and policies, and are swapped in at the end, so that readers wait only for a few renames.

-- The quoted name of a table or index with its schema; p_suffix is appended to the name.
create or replace function rec_internal.qualified(p_relation regclass, p_suffix text default '')
returns text language sql stable strict
set search_path from current
as $$
    select format('%s.%I', c.relnamespace::regnamespace, c.relname || p_suffix)
    from pg_class c where c.oid = p_relation;
$$;

-- Raise an error if something is attached to a table that its replacement would lose: triggers, publications,
-- policies of another table and the like. Keys, checks, indexes, privileges, policies and views are carried
-- over.
create or replace function rec_internal.check_movable(p_table regclass)
returns void language plpgsql stable
set search_path from current
as $$
declare
    v_lost text;
begin
    select string_agg(distinct pg_describe_object(d.classid, d.objid, 0), ', ') into v_lost
    from pg_depend d
    left join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
    left join pg_constraint n on d.classid = 'pg_constraint'::regclass and n.oid = d.objid
    left join pg_trigger t on d.classid = 'pg_trigger'::regclass and t.oid = d.objid
    left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    left join pg_class w on w.oid = r.ev_class
    left join pg_policy o on d.classid = 'pg_policy'::regclass and o.oid = d.objid
    where d.refclassid = 'pg_class'::regclass and d.refobjid = p_table
        and d.classid not in ('pg_type'::regclass, 'pg_attrdef'::regclass)
        and not coalesce(
            c.relkind in ('i', 't') or n.conrelid = p_table or t.tgisinternal or w.relkind = 'v'
            or o.polrelid = p_table, false);
    if v_lost is not null then
        raise exception 'replacing % would lose %', p_table, v_lost
            using errcode = 'dependent_objects_still_exist',
            hint = 'Drop it, move the vectors, and create it again.';
    end if;
end $$;

-- Create rec.item_vectors_next and rec_internal.texts_next, empty and without indexes, for the vectors of
-- another space, and the view rec_internal.event_vectors_next, which reads them. It is an error if
-- something is attached to the live tables that cannot be carried over.
create or replace function rec_internal.make_next_vectors()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    perform rec_internal.check_movable('rec.item_vectors');
    perform rec_internal.check_movable('rec_internal.texts');
    create table rec.item_vectors_next (like rec.item_vectors including all excluding indexes);
    create table rec_internal.texts_next (like rec_internal.texts including all excluding indexes);
    execute 'create view rec_internal.event_vectors_next as ' || regexp_replace(
        pg_get_viewdef('rec_internal.event_vectors'::regclass),
        '\m(item_vectors|texts)\M', '\1_next', 'g');
end $$;

-- Give the tables beside the live ones the indexes and primary keys of the live ones. Call this after they
-- are filled, because an HNSW index is built much faster than it grows.
create or replace function rec_internal.index_next_vectors()
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_make text;
begin
    for v_make in
        select unnest(array[
            regexp_replace(
                pg_get_indexdef(i.indexrelid), '^(CREATE (?:UNIQUE )?INDEX )\S+ ON \S+',
                format('\1%I on %s', c.relname || '_next', rec_internal.qualified(t.oid, '_next'))),
            case when i.indisprimary then format('alter table %s add primary key using index %I',
                rec_internal.qualified(t.oid, '_next'), c.relname || '_next') end])
        from pg_index i
        join pg_class c on c.oid = i.indexrelid
        join pg_class t on t.oid = i.indrelid
        where i.indrelid in ('rec.item_vectors'::regclass, 'rec_internal.texts'::regclass)
    loop
        continue when v_make is null;
        execute v_make;
    end loop;
    analyze rec.item_vectors_next, rec_internal.texts_next;
end $$;

-- The views that read the tables of vectors, those of the application included, each with the statement
-- that creates it again. Run after the tables were renamed, the statement creates a view on the new tables,
-- because it refers to them by name.
create or replace function rec_internal.dependent_views()
returns table (name text, owner text, remake text)
language sql stable
set search_path from current
as $$
    select distinct format('%I.%I', n.nspname, c.relname), format('%I', pg_get_userbyid(c.relowner)),
        format('create or replace view %I.%I %s as %s', n.nspname, c.relname,
            'with (' || array_to_string(c.reloptions, ', ') || ')', pg_get_viewdef(c.oid))
    from pg_depend d
    join pg_rewrite r on r.oid = d.objid
    join pg_class c on c.oid = r.ev_class
    join pg_namespace n on n.oid = c.relnamespace
    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
        and d.refobjid in ('rec.item_vectors'::regclass, 'rec_internal.texts'::regclass)
    order by 1;
$$;

-- Lock the tables of vectors and their views against everybody, and rec.items against writers, until the
-- end of the transaction. Each attempt takes either all locks or none; if attempts fail for a minute, that
-- is an error. So readers never queue for long behind this session, and a session that holds one of the
-- locks and wants another goes first.
create or replace function rec_internal.lock_vectors()
returns void language plpgsql volatile
set search_path from current
set lock_timeout = '100ms'
as $$
declare
    v_end timestamptz := clock_timestamp() + interval '60 seconds';
    v_view record;
begin
    while clock_timestamp() < v_end loop
        begin
            lock table rec.items in share row exclusive mode;
            -- The owner stays the same. No other statement locks a view without the tables that it reads.
            for v_view in select v.name, v.owner from rec_internal.dependent_views() v loop
                execute format('alter view %s owner to %s', v_view.name, v_view.owner);
            end loop;
            lock table rec.item_vectors, rec_internal.texts in access exclusive mode;
            return;
        exception when lock_not_available then
            perform pg_sleep(0.1);
        end;
    end loop;
    raise exception 'transactions that use vectors or items did not end within a minute'
        using errcode = 'lock_not_available',
        hint = 'pg_stat_activity shows which have been open for long. Nothing was changed.';
end $$;

-- Give table p_to the owner, the privileges, the comment and the storage options of table p_from, and
-- revoke all its other privileges.
create or replace function rec_internal.copy_privileges(p_from regclass, p_to regclass)
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_change text;
begin
    execute (
        select format('alter table %s owner to %I', p_to, pg_get_userbyid(c.relowner))
        from pg_class c where c.oid = p_from);
    for v_change in
        select format('alter table %s set (%s)', p_to, array_to_string(c.reloptions, ', '))
        from pg_class c where c.oid = p_from and c.reloptions is not null
        union all
        select format('comment on table %s is %L', p_to, obj_description(p_from, 'pg_class'))
        where obj_description(p_from, 'pg_class') is not null
        union all
        select distinct format('revoke all on %s from %s', p_to, rec_internal.role_name(a.grantee))
        from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
        where c.oid = p_to
        union all
        select format('grant %s on %s to %s%s', a.privilege_type, p_to, rec_internal.role_name(a.grantee),
            case when a.is_grantable then ' with grant option' end)
        from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
        where c.oid = p_from
        union all
        select format('grant %s (%I) on %s to %s%s', a.privilege_type, b.attname, p_to,
            rec_internal.role_name(a.grantee), case when a.is_grantable then ' with grant option' end)
        from pg_attribute b, aclexplode(b.attacl) a
        where b.attrelid = p_from
    loop
        execute v_change;
    end loop;
end $$;

-- The quoted name of a role as GRANT takes it; public for 0.
create or replace function rec_internal.role_name(p_role oid)
returns text language sql stable
set search_path from current
as $$ select case when p_role = 0 then 'public' else format('%I', pg_get_userbyid(p_role)) end; $$;

-- The statements that create the row-level policies of a table. To give them to another table, run them when
-- that table has the name of this one, because a policy that contains a query names its own table.
create or replace function rec_internal.policies(p_table regclass)
returns setof text language sql stable
set search_path from current
as $$
    select format('create policy %I on %s as %s for %s to %s%s%s', p.polname, p_table,
        case when p.polpermissive then 'permissive' else 'restrictive' end,
        case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
            when 'd' then 'delete' else 'all' end,
        (select string_agg(rec_internal.role_name(r.role), ', ') from unnest(p.polroles) as r (role)),
        ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')',
        ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
    from pg_policy p where p.polrelid = p_table
    union all
    select format('comment on policy %I on %s is %L', p.polname, p_table,
        obj_description(p.oid, 'pg_policy'))
    from pg_policy p where p.polrelid = p_table and obj_description(p.oid, 'pg_policy') is not null
    union all
    select format('alter table %s %s row level security', p_table, v.mode)
    from pg_class c cross join lateral (
        values ('enable', c.relrowsecurity), ('force', c.relforcerowsecurity)) as v (mode, is_set)
    where c.oid = p_table and v.is_set;
$$;

-- Put the table with the suffix _next into the place of the live one, with its owner, privileges, foreign
-- keys and policies; the live one gets the suffix _previous.
create or replace function rec_internal.take_place(p_table regclass)
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_policies text[] := array(select rec_internal.policies(p_table));
    v_live text := rec_internal.qualified(p_table);
    v_next text := rec_internal.qualified(p_table, '_next');
    v_name name := (select c.relname from pg_class c where c.oid = p_table);
    v_change text;
begin
    perform rec_internal.copy_privileges(p_table, v_next::regclass);
    for v_change in
        select format('alter table %s add constraint %I %s',
            v_next, n.conname, pg_get_constraintdef(n.oid))
        from pg_constraint n where n.conrelid = p_table and n.contype = 'f'
    loop
        execute v_change;
    end loop;
    execute format('alter table %s rename to %I', v_live, v_name || '_previous');
    execute format('alter table %s rename to %I', v_next, v_name);
    foreach v_change in array v_policies loop
        execute v_change;
    end loop;
end $$;

-- Drop the table that was replaced, and give the names of its indexes to those of the new one.
create or replace function rec_internal.drop_previous(p_table text)
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_change text;
begin
    execute format('drop table %s', rec_internal.qualified(p_table::regclass, '_previous'));
    for v_change in
        select format('alter index %s rename to %I',
            rec_internal.qualified(c.oid), left(c.relname, -length('_next')))
        from pg_index i join pg_class c on c.oid = i.indexrelid
        where i.indrelid = p_table::regclass
    loop
        execute v_change;
    end loop;
end $$;

-- Replace the tables of vectors by the ones beside them, without the rows that were deleted meanwhile, and
-- wake the workers. Readers wait from here to the end of the transaction.
create or replace function rec_internal.swap_vectors()
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_views text[];
    v_view text;
begin
    drop view rec_internal.event_vectors_next;
    perform rec_internal.lock_vectors();
    delete from rec.item_vectors_next n
    where not exists (select from rec.item_vectors v where v.item_id = n.item_id);
    delete from rec_internal.texts_next n
    where not exists (select from rec_internal.texts t where t.text_hash = n.text_hash);
    select array_agg(v.remake) into v_views from rec_internal.dependent_views() v;
    perform rec_internal.take_place('rec.item_vectors'), rec_internal.take_place('rec_internal.texts');
    foreach v_view in array v_views loop
        execute v_view;
    end loop;
    perform rec_internal.drop_previous('rec.item_vectors'), rec_internal.drop_previous('rec_internal.texts');
    perform rec.wake();
end $$;
