-- Queued events that cannot be folded now. log/queue.sql has the map of their states.

-- How many queued events rec.apply_pending() and rec_internal.oldest_pending() look at, in the order in
-- which they lie.
create or replace function rec_internal.part_of_queue(p_limit integer)
returns bigint language sql immutable parallel safe
return greatest(20::bigint * p_limit, 10000);

-- An event that was deleted leaves the queue. One that lacks a vector waits, and one that never can
-- have one is parked.
create or replace function rec_internal.requeue(
    p_users text[], p_events bigint[], p_times timestamptz[], p_folded bigint[])
returns void language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
declare
    v_own text[] := array(select distinct unnest(p_users));
begin
    delete from rec_internal.pending p
    using unnest(p_users, p_events, p_times) as c (user_id, event_id, occurred_at)
    where p.user_id = c.user_id and p.event_id = c.event_id
        and p.user_id = any(v_own)
        and (c.event_id = any(p_folded)) is not true
        and not exists (
            select from rec.events e
            where e.user_id = c.user_id and e.occurred_at = c.occurred_at and e.event_id = c.event_id);
    perform rec_internal.postpone(
        array_agg(c.user_id), array_agg(c.event_id), array_agg(c.occurred_at))
    from unnest(p_users, p_events, p_times) as c (user_id, event_id, occurred_at)
    where (c.event_id = any(p_folded)) is not true;
end $$;

-- Put off the events that wait for a vector until rec_internal.retry_waiting(), at most a minute (a text, which
-- another worker may have begun and not finished, for seconds), and park those that name an unknown
-- item or kind, with the reason.
create or replace function rec_internal.postpone(p_users text[], p_events bigint[], p_times timestamptz[])
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_own text[] := array(select distinct unnest(p_users));
    v_postponed integer;
begin
    update rec_internal.pending p set
        attempts = case when d.problem is null then p.attempts else least(p.attempts + 1, 30000) end,
        retry_at = case when d.problem is not null then 'infinity'
            when p.has_text then now() + interval '5 seconds' else now() + interval '1 minute' end,
        error = d.problem
    from (
        select e.user_id, e.event_id,
            case when e.weight is null then format('unknown event kind %L', e.kind)
                when e.item_id is not null and i.item_id is null
                    then format('unknown item %L', e.item_id)
                when i.encode_error is not null
                    then format('item %L cannot be encoded: %s', e.item_id, i.encode_error)
            end as problem
        from unnest(p_users, p_events, p_times) as c (user_id, event_id, occurred_at)
        join rec_internal.event_vectors e using (user_id, event_id, occurred_at)
        left join rec.items i on i.item_id = e.item_id
        where e.embedding is null or e.weight is null
    ) d
    where p.user_id = d.user_id and p.event_id = d.event_id
        and p.user_id = any(v_own);
    get diagnostics v_postponed = row_count;
    return v_postponed;
end $$;

-- Try the postponed events again at once; a worker calls it when nothing is left to encode.
create or replace function rec_internal.retry_waiting()
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_retried integer;
begin
    with waiting as (
        select p.user_id, p.event_id from rec_internal.pending p
        where rec_internal.is_waiting(p)
        for update skip locked
    )
    update rec_internal.pending p set retry_at = '-infinity' from waiting w
    where p.user_id = w.user_id and p.event_id = w.event_id;
    get diagnostics v_retried = row_count;
    return v_retried;
end $$;

-- Put parked events back whose item has come. rec_internal.store_items() does so for those that it sees; an
-- event may be parked in the same instant by a session that has not committed yet.
create or replace function rec_internal.retry_known()
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_retried integer;
begin
    with found as (
        select p.user_id, p.event_id from rec_internal.pending p
        join rec.events e using (user_id, occurred_at, event_id)
        join rec.items i on i.item_id = e.item_id
        where rec_internal.is_parked(p) and p.error = format('unknown item %L', e.item_id)
        for update of p skip locked
    )
    update rec_internal.pending p set retry_at = '-infinity', error = null, attempts = 0 from found f
    where p.user_id = f.user_id and p.event_id = f.event_id;
    get diagnostics v_retried = row_count;
    return v_retried;
end $$;

-- Put parked events back into the queue: all, those of some users, or those on some items.
create or replace function rec.retry(p_users text[] default null, p_items text[] default null)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_retried integer;
begin
    with parked as (
        select p.user_id, p.event_id from rec_internal.pending p
        where rec_internal.is_parked(p)
            and (p_users is null or p.user_id = any(p_users))
            and (p_items is null or exists (
                select from rec.events e
                where e.user_id = p.user_id and e.event_id = p.event_id
                    and e.occurred_at = p.occurred_at and e.item_id = any(p_items)))
        for update skip locked
    )
    update rec_internal.pending p set retry_at = '-infinity', error = null, attempts = 0 from parked k
    where p.user_id = k.user_id and p.event_id = k.event_id;
    get diagnostics v_retried = row_count;
    if v_retried > 0 then
        notify rec_events;
    end if;
    return v_retried;
end $$;

-- Count a failure for these events: they are tried again after a growing pause, and parked with the
-- error after settings.max_attempts.
create or replace function rec_internal.park(p_users text[], p_events bigint[], p_error text)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_parked integer;
begin
    -- A row that another session holds is left to it, so that nobody waits with locks in hand.
    with failed as (
        select p.user_id, p.event_id from rec_internal.pending p
        join unnest(p_users, p_events) as c (user_id, event_id) using (user_id, event_id)
        where p.user_id = any(p_users)
        for update of p skip locked
    )
    update rec_internal.pending p set
        attempts = p.attempts + 1,
        error = coalesce(p_error, 'no reason given'),
        retry_at = case when p.attempts + 1 >= s.max_attempts then 'infinity'::timestamptz
            else now() + make_interval(secs => 0.1 * 2 ^ least(p.attempts, 12)) end
    from failed f, rec.settings s
    where p.user_id = f.user_id and p.event_id = f.event_id;
    get diagnostics v_parked = row_count;
    return v_parked;
end $$;

-- The queued events that are due, oldest first; used to find the one that cannot be folded.
create or replace function rec_internal.oldest_pending(p_limit integer)
returns table (user_id text, event_id bigint)
language sql stable
set search_path from current
as $$
    select o.user_id, o.event_id from (
        select p.user_id, p.event_id from rec_internal.pending p
        where rec_internal.is_due(p) limit rec_internal.part_of_queue(p_limit)
    ) o
    order by o.event_id limit greatest(p_limit, 0);
$$;
