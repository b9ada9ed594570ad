-- Folding: committed events become part of the stored interests, each exactly once.

-- rec.user_lock(user) -> key of the advisory lock of whoever changes what is stored of a user
create or replace function rec.user_lock(p_user_id text)
returns bigint language sql immutable parallel safe
return hashtextextended(p_user_id, 3);
comment on function rec.user_lock is
    'Key of the advisory lock under which events of a user are folded, undone or erased.';

-- rec.texts_lock() -> key of the advisory lock of whoever drops vectors of texts
create or replace function rec.texts_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381877;
comment on function rec.texts_lock() is
    'Key of the advisory lock that is held while vectors of texts are dropped to which no event refers. '
    'Folding shares it, so that no event is folded by a vector that is just going.';

-- rec.drop_raw_texts_of(users, events, times) -> number of events of which only the hash of the text is left
create or replace function rec.drop_raw_texts_of(
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
comment on function rec.drop_raw_texts_of is
    'Drop the raw texts of events that are encoded; the vectors stay under the hashes of the texts.';

-- rec.apply_users(users) -> number of events of these users that left the queue
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
    if not rec.try_share_space() then
        return 0;
    end if;
    v_texts := pg_try_advisory_xact_lock_shared(rec.texts_lock());
    -- Claim. A user on whom another session works is left to it; this never waits.
    select array_agg(distinct u.user_id) into v_users from unnest(p_users) as u (user_id)
    where pg_try_advisory_xact_lock(rec.user_lock(u.user_id));
    select array_agg(c.user_id), array_agg(c.event_id), array_agg(c.occurred_at)
    into v_users, v_events, v_times
    from (
        select p.user_id, p.event_id, p.occurred_at from rec.pending p
        where p.user_id = any(v_users) and p.retry_at <= now() and (v_texts or not p.has_text)
        for update skip locked
    ) c;
    return rec.fold_claimed(v_users, v_events, v_times);
end $$;
comment on function rec.apply_users is
    'Fold the queued events of these users into their stored interests and return how many. '
    'Users on whom another session works are left to it; none are folded while a calibration moves '
    'the vectors. Each user takes an advisory lock: name '
    'hundreds at a time, not tens of thousands.';

-- rec.apply_event(user, event) -> whether this event left the queue
create or replace function rec.apply_event(p_user_id text, p_event_id bigint)
returns boolean language plpgsql volatile
set search_path from current
as $$
declare
    v_time timestamptz;
begin
    if not rec.try_share_space() or not pg_try_advisory_xact_lock(rec.user_lock(p_user_id)) then
        return false;
    end if;
    select p.occurred_at into v_time from rec.pending p
    where p.user_id = p_user_id and p.event_id = p_event_id and p.retry_at <= now()
        and (not p.has_text or pg_try_advisory_xact_lock_shared(rec.texts_lock()))
    for update skip locked;
    return v_time is not null
        and rec.fold_claimed(array[p_user_id], array[p_event_id], array[v_time]) > 0;
end $$;
comment on function rec.apply_event is
    'Fold one queued event. A worker does so with the events of a user whom the server refuses, to '
    'find the one that is to blame.';

-- rec.fold_claimed(users, events, times) -> number of these claimed events that were folded
create or replace function rec.fold_claimed(
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
    from rec.add_shares(p_users, p_events, p_times);
    if cardinality(v_events) is distinct from cardinality(p_events) then
        perform rec.set_aside(p_users, p_events, p_times, v_events);
    end if;
    if v_events is null then
        return 0;
    end if;
    perform rec.add_deltas(v_users, v_events, v_times, v_items, v_chosen, v_ats, v_weights);
    if not (select s.keep_text from rec.settings s) then
        perform rec.drop_raw_texts_of(v_users, v_events, v_times);
    end if;
    delete from rec.pending p
    using unnest(v_users, v_events) as c (user_id, event_id)
    where p.user_id = c.user_id and p.event_id = c.event_id
        and p.user_id = any(v_own);
    get diagnostics v_folded = row_count;
    return v_folded;
end $$;
comment on function rec.fold_claimed is
    'Second half of rec.apply_users(): fold events whose rows in the queue, and whose users, this '
    'transaction holds.';

-- rec.add_shares(users, events, times) -> those of these events that have a vector and a weight, each of
-- which is added to the stored sums
create or replace function rec.add_shares(
    p_users text[], p_events bigint[], p_times timestamptz[],
    out users text[], out events bigint[], out times timestamptz[], out items text[],
    out chosen boolean[], out ats timestamptz[], out weights double precision[])
language sql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
set work_mem = '64MB'
as $$
    with span as (
        select c.user_id, array_agg(c.event_id) as events, min(c.occurred_at) as first_at,
            max(c.occurred_at) as last_at
        from unnest(p_users, p_events, p_times) as c (user_id, event_id, occurred_at)
        group by c.user_id
    ), event as materialized (
        -- the log is read once for each user
        select e.user_id, e.event_id, e.occurred_at, e.item_id, k.weight > 0 as chosen, e.at,
            rec.event_weight(k.weight, k.neutral, k.scale, e.value) as weight,
            case
                when e.text_hash is null then v.embedding::vector
                when e.item_id is null then t.embedding::vector
                else l2_normalize(v.embedding::vector + t.embedding::vector)
            end as embedding
        from span s
        cross join lateral (
            select e.*, least(e.occurred_at, e.received_at) as at from rec.events e
            where e.user_id = s.user_id and e.occurred_at between s.first_at and s.last_at
                and (e.event_id in (select unnest(s.events))) is true  -- hashed, not joined
            offset 0
        ) e
        join rec.event_kinds k on k.kind = e.kind
        left join rec.item_vectors v on v.item_id = e.item_id
        left join rec.texts t on t.text_hash = e.text_hash
        where (e.item_id is null or v.item_id is not null)
            and (e.text_hash is null or t.text_hash is not null)
    ), stored as (
        select u.* from rec.user_interests u
        where u.user_id = any(array(select distinct e.user_id from event e))
        for update
    ), latest as (
        select m.user_id, max(m.at) as as_of from (
            select e.user_id, e.at from event e
            union all
            select s.user_id, s.as_of from stored s
        ) m group by m.user_id
    ), share as (
        select e.user_id, h.horizon, l.as_of, e.embedding, e.weight, abs(e.weight) as mass,
            rec.decay(l.as_of - e.at, h.half_life) as decay
        from event e join latest l using (user_id) cross join rec.horizons h
        union all
        select s.user_id, h.horizon, l.as_of, s.interest, 1, s.mass,
            rec.decay(l.as_of - s.as_of, h.half_life)
        from stored s join latest l using (user_id) join rec.horizons h using (horizon)
        offset 0
    ), sixteenth as (
        -- rec.scaled(), with the vector of its factor made from a short one: array_fill() is slow. The
        -- latest event of a user mostly has the factor 1 and needs none.
        select s.*, case when s.weight * s.decay <> 1 then array_fill(
            (case when abs(s.weight * s.decay) < 8.7e-19 then 0 else s.weight * s.decay end)::real,
            array[(vector_dims(s.embedding) + 15) / 16])::vector end as factor
        from share s offset 0
    ), quarter as (
        select s.user_id, s.horizon, s.as_of, s.embedding, s.mass, s.decay,
            s.factor || s.factor || s.factor || s.factor as factor
        from sixteenth s offset 0
    ), total as materialized (
        select q.user_id, q.horizon, max(q.as_of) as as_of, sum(rec.faded(q.mass, q.decay)) as mass,
            sum(case when q.factor is null then q.embedding else subvector(
                q.factor || q.factor || q.factor || q.factor, 1, vector_dims(q.embedding))
                * q.embedding end) as interest
        from quarter q group by q.user_id, q.horizon
    ), flush as (
        -- as in rec.decayed()
        select array_fill(8.7e-19::real, array[vector_dims(t.interest)])::vector as tiny
        from total t limit 1
    ), folded as (
        insert into rec.user_interests (user_id, horizon, interest, mass, as_of)
        select t.user_id, t.horizon, (t.interest + f.tiny) - f.tiny, t.mass, t.as_of
        from total t cross join flush f
        order by t.user_id, t.horizon
        on conflict (user_id, horizon) do update
        set interest = excluded.interest, mass = excluded.mass, as_of = excluded.as_of
    )
    select array_agg(e.user_id), array_agg(e.event_id), array_agg(e.occurred_at),
        array_agg(e.item_id), array_agg(e.chosen), array_agg(e.at), array_agg(e.weight)
    from event e;
$$;
comment on function rec.add_shares is
    'Add weight * 2^(-age / half_life) * vector of each of these claimed events to the sum of each '
    'horizon, and return the events, as arrays of one length: those that lack a vector, or are of an '
    'unknown kind, are left out.';

-- rec.apply_pending(limit) -> number of events folded into the stored interests
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
    -- Users are locked as they are chosen: sessions that fold at once share them, and leave no rest of one.
    -- Of a long queue a part is read, or each call would read all that is left of an import; the whole of
    -- it if other sessions work on all users of that part.
    foreach v_part in array array[rec.part_of_queue(p_limit), 9223372036854775807] loop
        for v_user, v_waiting, v_found in
            select f.user_id, case when f.found < v_part then f.waiting else (
                select count(*) from rec.pending p
                where p.user_id = f.user_id and p.retry_at <= now()) end, f.found
            from (
                select o.user_id, count(*) as waiting, sum(count(*)) over () as found
                from (
                    select p.user_id, p.event_id from rec.pending p
                    where p.retry_at <= now() limit v_part
                ) o
                group by o.user_id order by min(o.event_id) offset 0
            ) f
        loop
            exit when v_events >= p_limit or cardinality(v_chosen) = 500;
            if pg_try_advisory_xact_lock(rec.user_lock(v_user)) then
                v_chosen := v_chosen || v_user;
                v_events := v_events + v_waiting;
            end if;
        end loop;
        exit when v_chosen <> '{}' or v_found < v_part;
    end loop;
    return case when v_chosen = '{}' then 0 else rec.apply_users(v_chosen) end;
end $$;
comment on function rec.apply_pending is
    'Fold the oldest queued events, of a long queue the oldest of a part, about p_limit of them, user by '
    'user, and return how many. Anyone with the right to write may call it: a worker, pg_cron, an analyst '
    'in psql.';

-- rec.part_of_queue(limit) -> how many queued events are looked at to fold so many
create or replace function rec.part_of_queue(p_limit integer)
returns bigint language sql immutable parallel safe
return greatest(20::bigint * p_limit, 10000);
comment on function rec.part_of_queue is
    'How many queued events rec.apply_pending() and rec.oldest_pending() look at, in the order in which they lie.';
