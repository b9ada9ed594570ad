-- The tables of vectors in which another space is filled: beside the live ones, with all that these have,
-- and swapped in at the end, so that readers wait for no more than a few changes of names.

-- rec.check_movable(table) -> nothing, or the error that something hangs on it that a swap would lose
create or replace function rec.check_movable(p_table regclass)
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
        raise exception '% would lose %', p_table, v_lost
            using errcode = 'dependent_objects_still_exist',
            hint = 'Drop it, move the vectors, and make it again.';
    end if;
end $$;
comment on function rec.check_movable is
    'Raise if triggers, publications, policies of another table or the like are attached to a table '
    'that is to be replaced. Keys, checks, indexes, privileges, policies and views are taken over.';

-- rec.make_next_vectors() -> nothing; item_vectors_next and texts_next are there, empty, without indexes,
-- and event_vectors_next reads them
create or replace function rec.make_next_vectors()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    perform rec.check_movable('rec.item_vectors');
    perform rec.check_movable('rec.texts');
    create table rec.item_vectors_next (like rec.item_vectors including all excluding indexes);
    create table rec.texts_next (like rec.texts including all excluding indexes);
    execute 'create view rec.event_vectors_next as ' || regexp_replace(
        pg_get_viewdef('rec.event_vectors'::regclass),
        '\m(item_vectors|texts)\M', '\1_next', 'g');
end $$;
comment on function rec.make_next_vectors is
    'Make the tables into which vectors of another space are copied, and events with their vectors '
    'there.';

-- rec.index_next_vectors() -> nothing; the tables beside the live ones have the same indexes
create or replace function rec.index_next_vectors()
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
                format('\1%I on rec.%I', c.relname || '_next', t.relname || '_next')),
            case when i.indisprimary then format('alter table rec.%I add primary key using index %I',
                t.relname || '_next', c.relname || '_next') end])
        from pg_index i
        join pg_class c on c.oid = i.indexrelid
        join pg_class t on t.oid = i.indrelid
        where i.indrelid in ('rec.item_vectors'::regclass, 'rec.texts'::regclass)
    loop
        continue when v_make is null;
        execute v_make;
    end loop;
    analyze rec.item_vectors_next, rec.texts_next;
end $$;
comment on function rec.index_next_vectors is
    'Give the tables beside the live ones the indexes of these, once they are filled: an HNSW index is '
    'built much faster than it grows.';

-- rec.dependent_views() -> views on the live tables of vectors, and the statement that makes each again
create or replace function rec.dependent_views()
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
        and d.refobjid in ('rec.item_vectors'::regclass, 'rec.texts'::regclass)
    order by 1;
$$;
comment on function rec.dependent_views is
    'The views that read the tables of vectors, an application''s own among them. Made again by name '
    'they read the tables that have the names by then.';

-- rec.lock_vectors() -> nothing; nobody else reads the tables of vectors until the end of the transaction
create or replace function rec.lock_vectors()
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
            -- The owner stays the same: of all that locks a view this alone spares what it reads.
            for v_view in select v.name, v.owner from rec.dependent_views() v loop
                execute format('alter view %s owner to %s', v_view.name, v_view.owner);
            end loop;
            lock table rec.item_vectors, rec.texts in access exclusive mode;
            return;
        exception when lock_not_available then
            perform pg_sleep(0.1);
        end;
    end loop;
    raise exception 'some transactions that use vectors or items do not end'
        using errcode = 'lock_not_available',
        hint = 'pg_stat_activity shows which are open for long. Nothing was changed.';
end $$;
comment on function rec.lock_vectors is
    'Lock the tables of vectors, their views, and rec.items against writers. All or nothing, again and '
    'again for a minute: readers never queue for long behind it, and whoever holds one of the locks '
    'and wants another goes first.';

-- rec.copy_privileges(from, to) -> nothing; owner, privileges and storage options of a table are those
-- of another
create or replace function rec.copy_privileges(p_from regclass, p_to regclass)
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
        select distinct format('revoke all on %s from %s', p_to, rec.role_name(a.grantee))
        from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
        where c.oid = p_to
        union all
        select format('grant %s on %s to %s%s', a.privilege_type, p_to, rec.role_name(a.grantee),
            case when a.is_grantable then ' with grant option' end)
        from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
        where c.oid = p_from
        union all
        select format('grant %s (%I) on %s to %s%s', a.privilege_type, b.attname, p_to,
            rec.role_name(a.grantee), case when a.is_grantable then ' with grant option' end)
        from pg_attribute b, aclexplode(b.attacl) a
        where b.attrelid = p_from
    loop
        execute v_change;
    end loop;
end $$;
comment on function rec.copy_privileges is
    'Give a table the owner, the privileges and the storage options of another, and no others.';

-- rec.role_name(role) -> name of a role as GRANT takes it
create or replace function rec.role_name(p_role oid)
returns text language sql stable
set search_path from current
as $$ select case when p_role = 0 then 'public' else format('%I', pg_get_userbyid(p_role)) end; $$;
comment on function rec.role_name is 'The quoted name of a role; public for 0.';

-- rec.policies(table) -> the statements that give the table of that name its row-level policies
create or replace function rec.policies(p_table regclass)
returns setof text language sql stable
set search_path from current
as $$
    select format('create policy %I on %s as %s for %s to %s%s%s', p.polname, p_table,
        case when p.polpermissive then 'permissive' else 'restrictive' end,
        case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
            when 'd' then 'delete' else 'all' end,
        (select string_agg(rec.role_name(r.role), ', ') from unnest(p.polroles) as r (role)),
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
comment on function rec.policies is
    'The policies of a table as statements. Run on another table they need that to have the name of '
    'this one, for a policy with a query in it names its own table.';

-- rec.take_place(table) -> nothing; the table beside it has its name, keys, indexes and rights
create or replace function rec.take_place(p_table text)
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_policies text[] := array(select rec.policies(format('rec.%I', p_table)::regclass));
    v_change text;
begin
    perform rec.copy_privileges(
        format('rec.%I', p_table)::regclass, format('rec.%I', p_table || '_next')::regclass);
    for v_change in
        select format('alter table rec.%I add constraint %I %s',
            p_table || '_next', n.conname, pg_get_constraintdef(n.oid))
        from pg_constraint n
        where n.conrelid = format('rec.%I', p_table)::regclass and n.contype = 'f'
    loop
        execute v_change;
    end loop;
    execute format('alter table rec.%I rename to %I', p_table, p_table || '_previous');
    execute format('alter table rec.%I rename to %I', p_table || '_next', p_table);
    foreach v_change in array v_policies loop
        execute v_change;
    end loop;
end $$;
comment on function rec.take_place is
    'Put a table beside the live one into its place; the live one is called _previous then.';

-- rec.drop_previous(table) -> nothing; the indexes of the table that took its place have its names
create or replace function rec.drop_previous(p_table text)
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_change text;
begin
    execute format('drop table rec.%I', p_table || '_previous');
    for v_change in
        select format('alter index rec.%I rename to %I', c.relname, left(c.relname, -length('_next')))
        from pg_index i join pg_class c on c.oid = i.indexrelid
        where i.indrelid = format('rec.%I', p_table)::regclass
    loop
        execute v_change;
    end loop;
end $$;
comment on function rec.drop_previous is 'Drop a table whose place was taken, and take over its names.';

-- rec.swap_vectors() -> nothing; the vectors beside the live ones are live
create or replace function rec.swap_vectors()
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_views text[];
    v_view text;
begin
    drop view rec.event_vectors_next;
    perform rec.lock_vectors();
    delete from rec.item_vectors_next n
    where not exists (select from rec.item_vectors v where v.item_id = n.item_id);
    delete from rec.texts_next n
    where not exists (select from rec.texts t where t.text_hash = n.text_hash);
    select array_agg(v.remake) into v_views from rec.dependent_views() v;
    perform rec.take_place(n.name) from unnest('{item_vectors,texts}'::text[]) as n (name);
    foreach v_view in array v_views loop
        execute v_view;
    end loop;
    perform rec.drop_previous(n.name) from unnest('{item_vectors,texts}'::text[]) as n (name);
    perform rec.wake();
end $$;
comment on function rec.swap_vectors is
    'Replace the tables of vectors by those beside them, less what was deleted meanwhile. Readers wait '
    'from here to the end of the transaction.';
