-- Moving all vectors into another space, as a calibration does: they are copied into tables beside the
-- live ones, indexed there, and swapped in, in one transaction. Vectors of two spaces are never
-- compared: interests are made anew from the moved vectors in the same transaction.

-- rec.space_lock() -> key of the advisory lock of whoever moves the vectors into another space
create or replace function rec.space_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381876;
comment on function rec.space_lock() is
    'Key of the advisory lock that is held while vectors are moved into another space. Whoever stores '
    'vectors or interests shares it, and takes it before every other lock.';

-- rec.try_share_space() -> whether the vectors now stay in their space until the end of the transaction
create or replace function rec.try_share_space()
returns boolean language sql volatile
set search_path from current
as $$ select pg_try_advisory_xact_lock_shared(rec.space_lock()); $$;
comment on function rec.try_share_space is
    'Keep the vectors in their space until the end of the transaction; false if they are being moved '
    'at this moment.';

-- rec.share_space() -> nothing, or the error that the vectors are being moved; never waits
create or replace function rec.share_space()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    if not rec.try_share_space() then
        raise exception 'the vectors are being moved into another space'
            using errcode = 'lock_not_available',
            hint = 'Roll back, and try again when a calibration has ended.';
    end if;
end $$;
comment on function rec.share_space is
    'Keep the vectors in their space until the end of the transaction. It does not wait: a session '
    'that waited here with locks on the tables of vectors would never be let in.';

-- rec.active_encoder() -> the active encoder, the one beneath it, and the calibration between them
create or replace function rec.active_encoder()
returns table (fingerprint text, base text, calibration bytea, dims integer)
language sql stable
set search_path from current
as $$ select e.fingerprint, e.base, e.calibration, e.dims from rec.encoders e where e.active; $$;
comment on function rec.active_encoder is
    'The active encoder. Where the catalogue is calibrated, base is the encoder that reads the texts '
    'and calibration turns its vectors into those that are stored.';

-- rec.lock_space() -> nothing; until the end of the transaction nobody stores vectors or interests
create or replace function rec.lock_space()
returns void language plpgsql volatile
set search_path from current
set lock_timeout = '60s'
as $$
begin
    perform pg_advisory_xact_lock(rec.space_lock());
    perform pg_advisory_xact_lock(hashtextextended('rec.migrate', 0));
    -- An autovacuum gives way to someone who waits for long, which nobody does in rec.lock_vectors().
    lock table rec.items, rec.item_vectors, rec.texts in share update exclusive mode;
end $$;
comment on function rec.lock_space is
    'Keep everyone from storing vectors and interests, and from migrating. Readers and writers of '
    'events and items go on. Take it before every other lock.';

-- rec.vectors_to_move() -> how many there are, and how many items have no vector of their content yet
create or replace function rec.vectors_to_move()
returns table (items bigint, texts bigint, users bigint, items_to_encode bigint)
language sql stable
set search_path from current
as $$
    select (select count(*) from rec.item_vectors), (select count(*) from rec.texts),
        (select count(distinct u.user_id) from rec.user_interests u),
        (select count(*) from rec.items i where i.stale);
$$;
comment on function rec.vectors_to_move is
    'Numbers of items and texts with a vector, of users with an interest, and of items that wait.';

-- rec.sample_vectors(limit) -> vectors of items in binary form, the same uniform sample every time
create or replace function rec.sample_vectors(p_limit integer)
returns table (embedding bytea)
language sql stable
set search_path from current
as $$
    select halfvec_send(v.embedding) from rec.item_vectors v
    order by hashtextextended(v.item_id, 0), v.item_id limit p_limit;
$$;
comment on function rec.sample_vectors is
    'A uniform sample of the vectors of items, in the binary form of halfvec, drawn by the hash of '
    'the item_id.';

-- rec.item_vectors_after(item, limit) -> the next vectors of items, in binary form
create or replace function rec.item_vectors_after(p_item_id text, p_limit integer)
returns table (item_id text, embedding bytea)
language sql stable
set search_path from current
as $$
    select v.item_id, halfvec_send(v.embedding) from rec.item_vectors v
    where p_item_id is null or v.item_id > p_item_id order by v.item_id limit p_limit;
$$;
comment on function rec.item_vectors_after is
    'Vectors of items in the binary form of halfvec, by item_id; NULL starts.';

-- rec.text_vectors_after(hash, limit) -> the next vectors of texts, in binary form
create or replace function rec.text_vectors_after(p_hash bytea, p_limit integer)
returns table (text_hash bytea, embedding bytea)
language sql stable
set search_path from current
as $$
    select t.text_hash, halfvec_send(t.embedding) from rec.texts t
    where p_hash is null or t.text_hash > p_hash order by t.text_hash limit p_limit;
$$;
comment on function rec.text_vectors_after is
    'Vectors of texts in the binary form of halfvec, by hash; NULL starts.';

-- rec.interested_after(user, limit) -> the next users with a stored interest
create or replace function rec.interested_after(p_user_id text, p_limit integer)
returns table (user_id text)
language sql stable
set search_path from current
as $$
    select distinct u.user_id from rec.user_interests u
    where p_user_id is null or u.user_id > p_user_id order by u.user_id limit p_limit;
$$;
comment on function rec.interested_after is
    'Users with a stored interest, by user_id; NULL starts.';

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
    where d.refclassid = 'pg_class'::regclass and d.refobjid = p_table
        and d.classid not in ('pg_type'::regclass, 'pg_attrdef'::regclass)
        and not coalesce(
            c.relkind in ('i', 't') or n.conrelid = p_table or t.tgisinternal or w.relkind = 'v', false);
    if v_lost is not null or (select c.relrowsecurity from pg_class c where c.oid = p_table) then
        raise exception '% would lose %', p_table, coalesce(v_lost, 'row level security')
            using errcode = 'dependent_objects_still_exist',
            hint = 'Drop it, move the vectors, and make it again.';
    end if;
end $$;
comment on function rec.check_movable is
    'Raise if policies, triggers, publications or the like are attached to a table that is to be '
    'replaced. Keys, checks, indexes, privileges and views are taken over.';

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

-- rec.move_interests(users) -> nothing; their interests are those of the vectors beside the live ones
create or replace function rec.move_interests(p_users text[])
returns void language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
begin
    delete from rec.user_interests u where u.user_id = any(p_users);
    with event as materialized (
        select e.user_id, e.at, e.weight, e.embedding,
            max(e.at) over (partition by e.user_id) as as_of
        from rec.event_vectors_next e
        where e.user_id = any(p_users) and e.embedding is not null and e.weight is not null
            and not exists (
                select from rec.pending p
                where p.user_id = e.user_id and p.event_id = e.event_id)
    )
    insert into rec.user_interests (user_id, horizon, interest, mass, as_of)
    select e.user_id, h.horizon,
        sum(rec.scaled(e.embedding, e.weight * rec.decay(e.as_of - e.at, h.half_life))),
        sum(abs(e.weight) * rec.decay(e.as_of - e.at, h.half_life)),
        e.as_of
    from event e cross join rec.horizons h
    group by e.user_id, h.horizon, e.as_of;
end $$;
comment on function rec.move_interests is
    'Make the stored interests of users anew from their folded events and the moved vectors: what '
    'rec.replay will give once these are live.';

-- rec.activate_calibration(calibration) -> fingerprint of the encoder that is active now
create or replace function rec.activate_calibration(p_calibration bytea)
returns text language plpgsql volatile
set search_path from current
as $$
declare
    v_base rec.encoders;
    v_fingerprint text;
begin
    select b.* into strict v_base
    from rec.encoders e join rec.encoders b on b.fingerprint = coalesce(e.base, e.fingerprint)
    where e.active;
    v_fingerprint := coalesce(
        encode(sha256(convert_to(v_base.fingerprint, 'UTF8') || p_calibration), 'hex'),
        v_base.fingerprint);
    insert into rec.encoders (fingerprint, name, record, dims, base, calibration)
    select v_fingerprint, v_base.name || ', calibrated on the catalogue', v_base.record, v_base.dims,
        v_base.fingerprint, p_calibration
    where p_calibration is not null
    on conflict do nothing;
    update rec.encoders e set active = false where e.active;
    update rec.encoders e set active = true where e.fingerprint = v_fingerprint;
    return v_fingerprint;
end $$;
comment on function rec.activate_calibration is
    'Make the encoder beneath the active one, followed by this calibration, the active encoder; '
    'without a calibration, when p_calibration is NULL.';

-- rec.dependent_views() -> views on the live tables of vectors, and the statement that makes each again
create or replace function rec.dependent_views()
returns table (name text, owner text, remake text)
language sql stable
set search_path from current
as $$
    select distinct format('%I.%I', n.nspname, c.relname), format('%I', c.relowner::regrole::name),
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
        select format('alter table %s owner to %I', p_to, c.relowner::regrole::name)
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
as $$ select case when p_role = 0 then 'public' else format('%I', p_role::regrole::name) end; $$;
comment on function rec.role_name is 'The quoted name of a role; public for 0.';

-- rec.take_place(table) -> nothing; the table beside it has its name, keys, indexes and rights
create or replace function rec.take_place(p_table text)
returns void language plpgsql volatile
set search_path from current
as $$
declare
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
