-- Queued events that cannot be folded now. log/queue.sql has the map of their states.

-- The number of queued events that rec.apply_pending() and rec_internal.oldest_pending() read, in the order
-- in which they are stored, to find the oldest p_limit of them.
create or replace function rec_internal.part_of_queue(p_limit integer)
returns bigint language sql immutable parallel safe
return greatest(20::bigint * p_limit, 10000);

-- Sort out claimed events that were not folded: a deleted event leaves the queue, an event that lacks a
-- vector waits for it, and an event that can never have one is parked.
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

-- Postpone those of these events that wait for a vector, park those that can never have one or whose kind is
-- unknown, with the reason, and return how many were postponed or parked. An event with a text is due again
-- after 5 seconds, because another worker may have begun to encode the text without finishing, and any other
-- event after a minute; rec_internal.retry_waiting() makes them due earlier.
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

-- Make the events that wait for a vector due at once, and return how many. A worker calls this when nothing
-- is left to encode.
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

-- Put parked events back into the queue if their unknown item has been added since, and return how many.
-- rec_internal.store_items() does the same for the parked events that it sees; this finds an event that
-- another session was parking at that moment, and had not committed yet.
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

-- Put parked events back into the queue, and return how many: all of them, or only those of p_users, on
-- p_items, or of p_users on p_items.
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

-- Record a failure for these events, and return how many. They are tried again after a pause that doubles
-- with each failure; after settings.max_attempts failures they are parked with the error.
create or replace function rec_internal.park(p_users text[], p_events bigint[], p_error text)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_parked integer;
begin
    -- Rows that another session has locked are left to it, so that nobody waits while holding locks.
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

-- The oldest p_limit due events at the head of the queue. A worker uses them to find the event that cannot be
-- folded.
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
