-- Retention: how raw texts and old events are dropped. Each call takes one short step.

-- Drop the next part of the data that settings.events_kept and settings.keep_text do not keep, and return
-- what it was; NULL if nothing is left to drop, or if another session does this or moves the vectors. Call
-- it until it returns NULL; a worker does so once a day. With events_kept, months of events that are older
-- as a whole are dropped with their partition; interests keep their share of them unless keep_interests is
-- off, and popularity and transitions are counted again from the rest of the log. With keep_text off, raw
-- texts are dropped once they are encoded. A step that would have to wait for locks raises an error and
-- changes nothing. The function runs with the rights of the owner.
create or replace function rec.apply_retention()
returns text language plpgsql volatile security definer
set search_path = rec, pg_temp
set timezone = 'UTC'
as $$
begin
    perform rec_internal.require_read_committed();
    if not pg_try_advisory_xact_lock(rec_internal.retention_lock())
        or not pg_try_advisory_xact_lock(rec_internal.erasure_lock())
        or not rec_internal.try_share_space() then
        return null;
    end if;
    return coalesce(
        rec_internal.drop_partition(), rec_internal.drop_strays(), rec_internal.recount(),
        rec_internal.drop_bases(), rec_internal.drop_orphans(), rec_internal.drop_raw_texts());
end $$;

-- The monthly partitions of rec.events with their bounds, oldest first, without the default partition.
create or replace function rec_internal.months()
returns table (partition regclass, first_at timestamptz, end_at timestamptz)
language sql stable
set search_path from current
set timezone = 'UTC'
as $$
    select b.partition, b.bounds[1]::timestamptz, b.bounds[2]::timestamptz
    from (
        select t.relid as partition, regexp_match(
            pg_get_expr(c.relpartbound, c.oid), 'FROM \(''(.+)''\) TO \(''(.+)''\)') as bounds
        from pg_partition_tree('rec.events') t join pg_class c on c.oid = t.relid
        where t.isleaf
    ) b
    where b.bounds is not null
    order by 2;
$$;

-- Drop the oldest partition if all of it is older than settings.events_kept, and return its name; NULL if
-- none is old enough. This needs a lock on the whole log. It asks for the lock at the end, for a tenth of a
-- second at a time, and raises an error after 3 seconds.
create or replace function rec_internal.drop_partition()
returns text language plpgsql volatile
set search_path from current
set lock_timeout = '100ms'
as $$
declare
    v_month record;
    v_end timestamptz;
begin
    select m.partition, m.partition::text as name, m.first_at, m.end_at into v_month
    from rec_internal.months() m, rec.settings s
    where m.end_at <= now() - s.events_kept order by m.first_at limit 1;
    if v_month.partition is null then
        return null;
    end if;
    -- This lets readers go on; only a late import still writes into an old month.
    execute format('lock table %s in share row exclusive mode', v_month.partition);
    perform rec_internal.move_to_bases(v_month.first_at, v_month.end_at);
    execute format(
        'delete from rec_internal.dedupe_keys k using %s e '
        'where k.user_id = e.user_id and k.dedupe_key = e.dedupe_key', v_month.partition);
    v_end := clock_timestamp() + interval '3 seconds';
    loop
        begin
            execute format('drop table %s', v_month.partition);
            exit;
        exception when lock_not_available then
            if clock_timestamp() > v_end then
                raise;
            end if;
            perform pg_sleep(0.1);
        end;
    end loop;
    update rec_internal.state set recount = true;
    insert into rec_internal.erasures default values;
    return v_month.name;
end $$;

-- Delete events that lie before the first partition and are older than settings.events_kept, those of 200
-- users at most, and return 'strays'; NULL if there are none.
create or replace function rec_internal.drop_strays()
returns text language plpgsql volatile
set search_path from current
as $$
declare
    v_before timestamptz;
    v_users text[];
begin
    select least(now() - s.events_kept, (select min(m.first_at) from rec_internal.months() m)) into v_before
    from rec.settings s where s.events_kept is not null;
    select array_agg(d.user_id) into v_users
    from (
        select distinct e.user_id from rec_internal.events_default e where e.occurred_at < v_before limit 200
    ) d
    where pg_try_advisory_xact_lock(rec_internal.user_lock(d.user_id));
    if v_users is null then
        return null;
    end if;
    perform rec_internal.move_to_bases('-infinity', v_before, v_users);
    perform rec_internal.erasing(true);
    with gone as (
        delete from rec.events e where e.user_id = any(v_users) and e.occurred_at < v_before
        returning e.user_id, e.dedupe_key
    )
    delete from rec_internal.dedupe_keys k using gone g
    where k.user_id = g.user_id and k.dedupe_key = g.dedupe_key;
    perform rec_internal.erasing(false);
    update rec_internal.state set recount = true where not recount;
    insert into rec_internal.erasures default values;
    return 'strays';
end $$;

-- Prepare to drop the events from p_from up to p_before: fold what can be folded, add the folded events to
-- rec_internal.interest_bases, and remove the other ones from the queue. Stored interests stay equal to base
-- and log together. It is an error if another session is folding these events.
create or replace function rec_internal.move_to_bases(
    p_from timestamptz, p_before timestamptz, p_users text[] default null)
returns void language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
declare
    v_waiting text[];
begin
    select array_agg(distinct p.user_id) into v_waiting from rec_internal.pending p
    where p.occurred_at >= p_from and p.occurred_at < p_before
        and (p_users is null or p.user_id = any(p_users));
    if exists (
        select from unnest(v_waiting) as w (user_id)
        where not pg_try_advisory_xact_lock(rec_internal.user_lock(w.user_id))) then
        raise exception 'another session is folding events that are to be dropped'
            using errcode = 'lock_not_available';
    end if;
    perform rec.apply_users(v_waiting);
    with event as materialized (
        select e.user_id, e.at, e.weight, e.embedding,
            max(e.at) over (partition by e.user_id) as as_of
        from rec_internal.event_vectors e
        where e.occurred_at >= p_from and e.occurred_at < p_before
            and (p_users is null or e.user_id = any(p_users))
            and e.embedding is not null and e.weight is not null
            and not exists (
                select from rec_internal.pending p
                where p.user_id = e.user_id and p.event_id = e.event_id)
    ), batch as (
        select e.user_id, h.horizon, e.as_of,
            sum(rec_internal.share(e.embedding, e.weight, e.as_of - e.at, h.half_life)) as interest,
            sum(rec_internal.share_mass(e.weight, e.as_of - e.at, h.half_life)) as mass
        from event e cross join rec.horizons h
        group by e.user_id, h.horizon, e.as_of
    )
    insert into rec_internal.interest_bases as u (user_id, horizon, interest, mass, as_of)
    select b.user_id, b.horizon, b.interest, b.mass, b.as_of from batch b
    on conflict (user_id, horizon) do update set
        (interest, mass, as_of) = (
            select
                rec_internal.decayed_sum(u.interest, rec_internal.decay(excluded.as_of - u.as_of, h.half_life))
                + rec_internal.decayed_sum(excluded.interest, rec_internal.decay(u.as_of - excluded.as_of, h.half_life)),
                rec_internal.decayed_mass(u.mass, rec_internal.decay(excluded.as_of - u.as_of, h.half_life))
                + rec_internal.decayed_mass(excluded.mass, rec_internal.decay(u.as_of - excluded.as_of, h.half_life)),
                greatest(u.as_of, excluded.as_of)
            from rec.horizons h where h.horizon = excluded.horizon);
    delete from rec_internal.pending p
    where p.user_id = any(v_waiting) and p.occurred_at >= p_from and p.occurred_at < p_before;
end $$;

-- Count popularity and transitions again if events were dropped, and return 'counts'; NULL if none were.
-- The counts then contain the events of the log alone, so that an erasure can remove all that a user added.
create or replace function rec_internal.recount()
returns text language plpgsql volatile
set search_path from current
as $$
begin
    if not (select s.recount from rec_internal.state s) then
        return null;
    end if;
    perform rec.rebuild_collaborative();
    return 'counts';
end $$;

-- If settings.keep_interests is off, compute the interests of up to 200 users again without their dropped
-- events, and return 'interests'; NULL if there is nothing to do.
create or replace function rec_internal.drop_bases()
returns text language plpgsql volatile
set search_path from current
as $$
declare
    v_users text[];
begin
    if (select s.keep_interests from rec.settings s) then
        return null;
    end if;
    select array_agg(d.user_id) into v_users
    from (select distinct b.user_id from rec_internal.interest_bases b limit 200) d
    where pg_try_advisory_xact_lock(rec_internal.user_lock(d.user_id));
    if v_users is null then
        return null;
    end if;
    delete from rec_internal.interest_bases b where b.user_id = any(v_users);
    perform rec.rebuild_user(u.user_id) from unnest(v_users) as u (user_id);
    insert into rec_internal.erasures default values;
    return 'interests';
end $$;

-- If settings.events_kept is set, drop up to 5,000 vectors of texts that no event contains any more, and
-- return 'vectors'; NULL if there are none.
create or replace function rec_internal.drop_orphans()
returns text language plpgsql volatile
set search_path from current
as $$
begin
    if not exists (select from rec.settings s where s.events_kept is not null)
        or not pg_try_advisory_xact_lock(rec_internal.texts_lock()) then
        return null;
    end if;
    if rec_internal.drop_texts(array(
        select t.text_hash from rec_internal.texts t
        where not exists (select from rec.events e where e.text_hash = t.text_hash) limit 5000
    )) = 0 then
        return null;
    end if;
    insert into rec_internal.erasures default values;
    return 'vectors';
end $$;

-- If settings.keep_text is off, drop the raw texts of up to 10,000 folded events, and return 'texts'; NULL if
-- there are none.
create or replace function rec_internal.drop_raw_texts()
returns text language plpgsql volatile
set search_path from current
as $$
declare
    v_dropped integer;
begin
    if (select s.keep_text from rec.settings s)
        or not pg_try_advisory_xact_lock_shared(rec_internal.texts_lock()) then
        return null;
    end if;
    select rec_internal.drop_raw_texts_of(
        array_agg(o.user_id), array_agg(o.event_id), array_agg(o.occurred_at))
    into v_dropped
    from (
        select e.user_id, e.event_id, e.occurred_at from rec.events e
        where e.text is not null
            and exists (select from rec_internal.texts t where t.text_hash = e.text_hash)
            and not exists (
                select from rec_internal.pending p
                where p.user_id = e.user_id and p.event_id = e.event_id)
        limit 10000
    ) o;
    -- Folding drops texts, too; once a day an erasure makes a vacuum clear them.
    insert into rec_internal.erasures (cleared_at)
    select null where v_dropped > 0 or not exists (
        select from rec_internal.erasures e where e.erased_at > now() - interval '20 hours');
    return case when v_dropped > 0 then 'texts' end;
end $$;
