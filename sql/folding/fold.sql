-- Folding: committed events become part of the stored interests, each exactly once.

-- Fold about p_limit of the oldest queued events into the stored interests, user by user, and return how
-- many were folded; 0 if none is due. Only the head of a long queue is read, and a call folds the events of
-- 500 users at most. Users on whom another session is working are left to that session. Any role with the
-- rights of a worker may call this: a worker, pg_cron, a person in psql.
create or replace function rec.apply_pending(p_limit integer default 1000)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_user text;
    v_waiting bigint;
    v_chosen text[] := '{}';
    v_events bigint := 0;
    v_part bigint;
    v_found bigint := 0;
begin
    -- Lock each user when choosing them, so that concurrent sessions split the users and each user is folded
    -- completely. Read only the head of a long queue, or every call during an import would scan the whole
    -- backlog; scan all of it only if other sessions hold every user in the head.
    foreach v_part in array array[rec_internal.part_of_queue(p_limit), 9223372036854775807] loop
        for v_user, v_waiting, v_found in
            select f.user_id, case when f.found < v_part then f.waiting else (
                select count(*) from rec_internal.pending p
                where p.user_id = f.user_id and rec_internal.is_due(p)) end, f.found
            from (
                select o.user_id, count(*) as waiting, sum(count(*)) over () as found
                from (
                    select p.user_id, p.event_id from rec_internal.pending p
                    where rec_internal.is_due(p) limit v_part
                ) o
                group by o.user_id order by min(o.event_id) offset 0
            ) f
        loop
            exit when v_events >= p_limit or cardinality(v_chosen) = 500;
            if pg_try_advisory_xact_lock(rec_internal.user_lock(v_user)) then
                v_chosen := v_chosen || v_user;
                v_events := v_events + v_waiting;
            end if;
        end loop;
        exit when v_chosen <> '{}' or v_found < v_part;
    end loop;
    return case when v_chosen = '{}' then 0 else rec.apply_users(v_chosen) end;
end $$;

-- Fold the queued events of these users into their stored interests, and return how many were folded; 0
-- while a calibration moves the vectors. Users on whom another session is working are left to that session.
-- Each user takes an advisory lock, so name hundreds of users at a time, not tens of thousands.
create or replace function rec.apply_users(p_users text[])
returns integer language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
declare
    v_users text[];
    v_events bigint[];
    v_times timestamptz[];
    v_texts boolean;
begin
    if not rec_internal.try_share_space() then
        return 0;
    end if;
    v_texts := pg_try_advisory_xact_lock_shared(rec_internal.texts_lock());
    -- Claim users and events without ever waiting for another session.
    select array_agg(distinct u.user_id) into v_users from unnest(p_users) as u (user_id)
    where pg_try_advisory_xact_lock(rec_internal.user_lock(u.user_id));
    select array_agg(c.user_id), array_agg(c.event_id), array_agg(c.occurred_at)
    into v_users, v_events, v_times
    from (
        select p.user_id, p.event_id, p.occurred_at from rec_internal.pending p
        where p.user_id = any(v_users) and rec_internal.is_due(p) and (v_texts or not p.has_text)
        for update skip locked
    ) c;
    return rec_internal.fold_claimed(v_users, v_events, v_times);
end $$;

-- Fold one queued event, and return whether it was folded. A worker calls this for each event of a user if
-- folding them together fails, to find the event that causes the failure.
create or replace function rec_internal.apply_event(p_user_id text, p_event_id bigint)
returns boolean language plpgsql volatile
set search_path from current
as $$
declare
    v_time timestamptz;
begin
    if not rec_internal.try_share_space() or not pg_try_advisory_xact_lock(rec_internal.user_lock(p_user_id)) then
        return false;
    end if;
    select p.occurred_at into v_time from rec_internal.pending p
    where p.user_id = p_user_id and p.event_id = p_event_id and rec_internal.is_due(p)
        and (not p.has_text or pg_try_advisory_xact_lock_shared(rec_internal.texts_lock()))
    for update skip locked;
    return v_time is not null
        and rec_internal.fold_claimed(array[p_user_id], array[p_event_id], array[v_time]) > 0;
end $$;

-- Fold claimed events, and return how many were folded. This is the second half of rec.apply_users(): the
-- transaction holds the rows of the events in the queue, and the locks of their users. An event that cannot
-- be folded is postponed or parked.
create or replace function rec_internal.fold_claimed(
    p_users text[], p_events bigint[], p_times timestamptz[])
returns integer language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
declare
    v_users text[];
    v_events bigint[];
    v_times timestamptz[];
    v_items text[];
    v_chosen boolean[];
    v_ats timestamptz[];
    v_weights double precision[];
    v_own text[] := array(select distinct unnest(p_users));
    v_folded integer;
begin
    select * into v_users, v_events, v_times, v_items, v_chosen, v_ats, v_weights
    from rec_internal.add_shares(p_users, p_events, p_times);
    if cardinality(v_events) is distinct from cardinality(p_events) then
        perform rec_internal.requeue(p_users, p_events, p_times, v_events);
    end if;
    if v_events is null then
        return 0;
    end if;
    perform rec_internal.add_deltas(v_users, v_events, v_times, v_items, v_chosen, v_ats, v_weights);
    if not (select s.keep_text from rec.settings s) then
        perform rec_internal.drop_raw_texts_of(v_users, v_events, v_times);
    end if;
    delete from rec_internal.pending p
    using unnest(v_users, v_events) as c (user_id, event_id)
    where p.user_id = c.user_id and p.event_id = c.event_id
        and p.user_id = any(v_own);
    get diagnostics v_folded = row_count;
    return v_folded;
end $$;

-- Set the raw texts of these events, which are encoded, to NULL, and return how many events had one. The
-- vectors stay under the hashes of the texts.
create or replace function rec_internal.drop_raw_texts_of(
    p_users text[], p_events bigint[], p_times timestamptz[])
returns integer language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
declare
    v_own text[] := array(select distinct unnest(p_users));
    v_dropped integer;
begin
    update rec.events e set text = null
    from unnest(p_users, p_events, p_times) as c (user_id, event_id, occurred_at)
    where e.user_id = c.user_id and e.event_id = c.event_id and e.occurred_at = c.occurred_at
        and e.user_id = any(v_own) and e.text is not null;
    get diagnostics v_dropped = row_count;
    return v_dropped;
end $$;
