-- Interest sums. An event at time t_e with weight w and vector x adds w * 2^(-(t - t_e) / half_life) * x to
-- the sum of each horizon. replay() computes the sums from the log alone, current_sums() from the stored
-- sums and the queue, add_shares() adds events to the stored sums. The three agree to rounding.

-- The interest sums of a user, one row per horizon, computed from the event log alone, as of the last event
-- at or before p_as_of. Events that were dropped from the log count by their sums in
-- rec_internal.interest_bases. By default the result equals the stored sums plus the queued events; with
-- p_pending false, it equals the stored sums alone. As of a moment before the last dropped event, only
-- events that are still in the log count.
create or replace function rec_internal.replay(
    p_user_id text, p_as_of timestamptz default 'infinity', p_pending boolean default true)
returns table (horizon text, interest vector, mass double precision, as_of timestamptz)
language sql stable
set search_path from current
as $$
    with event as materialized (
        select e.at, e.weight, e.embedding
        from rec_internal.event_vectors e
        where e.user_id = p_user_id and e.at <= p_as_of
            and e.embedding is not null and e.weight is not null
            and (p_pending or not exists (
                select from rec_internal.pending p
                where p.user_id = p_user_id and p.event_id = e.event_id))
    ), base as materialized (
        select b.horizon, b.interest, b.mass, b.as_of
        from rec_internal.interest_bases b where b.user_id = p_user_id and b.as_of <= p_as_of
    ), latest as (
        select max(m.at) as as_of
        from (select e.at from event e union all select b.as_of from base b) m
    ), share as (
        select h.horizon, h.half_life, l.as_of - e.at as age, e.weight, e.embedding, l.as_of
        from event e cross join latest l cross join rec.horizons h
    )
    select t.horizon, sum(t.interest), sum(t.mass), t.as_of
    from (
        select s.horizon, rec_internal.share(s.embedding, s.weight, s.age, s.half_life) as interest,
            rec_internal.share_mass(s.weight, s.age, s.half_life) as mass, s.as_of
        from share s
        union all
        select b.horizon,
            rec_internal.decayed_sum(b.interest, rec_internal.decay(l.as_of - b.as_of, h.half_life)),
            rec_internal.decayed_mass(b.mass, rec_internal.decay(l.as_of - b.as_of, h.half_life)), l.as_of
        from base b join rec.horizons h using (horizon) cross join latest l
    ) t
    group by t.horizon, t.as_of;
$$;

-- The interest sums of a user as of their last event, one row per horizon: the stored sums plus the queued
-- events whose vectors are known. Both are read in one statement, so that each event counts once, folded or
-- not.
create or replace function rec_internal.current_sums(p_user_id text)
returns table (horizon text, interest vector, mass double precision, as_of timestamptz)
language sql stable
set search_path from current
as $$
    with share as (
        select u.horizon, u.interest, u.mass, u.as_of
        from rec.user_interests u where u.user_id = p_user_id
        union all
        select h.horizon, rec_internal.scaled(e.embedding, e.weight), abs(e.weight), e.at
        from rec_internal.pending p
        join rec_internal.event_vectors e using (user_id, event_id, occurred_at)
        cross join rec.horizons h
        where p.user_id = p_user_id and e.embedding is not null and e.weight is not null
    ), dated as (
        select s.*, max(s.as_of) over () as latest from share s
    )
    select d.horizon,
        sum(rec_internal.decayed_sum(d.interest, rec_internal.decay(d.latest - d.as_of, h.half_life))),
        sum(rec_internal.decayed_mass(d.mass, rec_internal.decay(d.latest - d.as_of, h.half_life))),
        d.latest
    from dated d join rec.horizons h using (horizon)
    group by d.horizon, d.latest;
$$;

-- Add weight * 2^(-age / half_life) * vector of each of these claimed events to the stored sum of each
-- horizon, and return the added events as arrays of equal length, NULL if there are none. An event that lacks
-- a vector, or whose kind is unknown, is left out.
create or replace function rec_internal.add_shares(
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
        -- read the log once for each user
        select e.user_id, e.event_id, e.occurred_at, e.item_id, k.weight > 0 as chosen, e.at,
            rec_internal.event_weight(k.weight, k.neutral, k.scale, e.value) as weight,
            rec_internal.event_vector(e.item_id, v.embedding, e.text_hash, t.embedding) as embedding
        from span s
        cross join lateral (
            select e.*, least(e.occurred_at, e.received_at) as at from rec.events e
            where e.user_id = s.user_id and e.occurred_at between s.first_at and s.last_at
                and (e.event_id in (select unnest(s.events))) is true  -- hashed, not joined
            offset 0
        ) e
        join rec.event_kinds k on k.kind = e.kind
        left join rec.item_vectors v on v.item_id = e.item_id
        left join rec_internal.texts t on t.text_hash = e.text_hash
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
            rec_internal.decay(l.as_of - e.at, h.half_life) as decay
        from event e join latest l using (user_id) cross join rec.horizons h
        union all
        select s.user_id, h.horizon, l.as_of, s.interest, 1, s.mass,
            rec_internal.decay(l.as_of - s.as_of, h.half_life)
        from stored s join latest l using (user_id) join rec.horizons h using (horizon)
        offset 0
    ), sixteenth as (
        -- This is rec_internal.scaled() for many vectors. array_fill() takes longer than the multiplication,
        -- so it fills only a sixteenth of the vector of factors, and four copies of four copies of that make
        -- the whole. The latest event of a user usually has the factor 1 and needs no vector of factors.
        select s.*, case when s.weight * s.decay <> 1 then array_fill(
            (case when abs(s.weight * s.decay) < rec_internal.negligible() then 0
                else s.weight * s.decay end)::real,
            array[(vector_dims(s.embedding) + 15) / 16])::vector end as factor
        from share s offset 0
    ), quarter as (
        select s.user_id, s.horizon, s.as_of, s.embedding, s.mass, s.decay,
            s.factor || s.factor || s.factor || s.factor as factor
        from sixteenth s offset 0
    ), total as materialized (
        select q.user_id, q.horizon, max(q.as_of) as as_of,
            sum(rec_internal.decayed_mass(q.mass, q.decay)) as mass,
            sum(case when q.factor is null then q.embedding else subvector(
                q.factor || q.factor || q.factor || q.factor, 1, vector_dims(q.embedding))
                * q.embedding end) as interest
        from quarter q group by q.user_id, q.horizon
    ), flush as (
        -- as in rec_internal.decayed_sum()
        select array_fill(rec_internal.negligible()::real, array[vector_dims(t.interest)])::vector as tiny
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
