-- The interest of a user: as stored, as of this moment, and as of any moment of the past.

-- rec.replay(user, as_of, pending) -> the sums of each horizon, computed from the log alone
create or replace function rec.replay(
    p_user_id text, p_as_of timestamptz default 'infinity', p_pending boolean default true)
returns table (horizon text, interest vector, mass double precision, as_of timestamptz)
language sql stable
set search_path from current
as $$
    with event as materialized (
        select e.at, e.weight, e.embedding
        from rec.event_vectors e
        where e.user_id = p_user_id and e.at <= p_as_of
            and e.embedding is not null and e.weight is not null
            and (p_pending or not exists (
                select from rec.pending p
                where p.user_id = p_user_id and p.event_id = e.event_id))
    ), base as materialized (
        select b.horizon, b.interest, b.mass, b.as_of
        from rec.interest_bases b where b.user_id = p_user_id and b.as_of <= p_as_of
    ), latest as (
        select max(m.at) as as_of
        from (select e.at from event e union all select b.as_of from base b) m
    ), share as (
        select h.horizon, e.weight * rec.decay(l.as_of - e.at, h.half_life) as weight, e.embedding,
            l.as_of
        from event e cross join latest l cross join rec.horizons h
    )
    select t.horizon, sum(t.interest), sum(t.mass), t.as_of
    from (
        select s.horizon, rec.scaled(s.embedding, s.weight) as interest, abs(s.weight) as mass, s.as_of
        from share s
        union all
        select b.horizon, rec.decayed(b.interest, rec.decay(l.as_of - b.as_of, h.half_life)),
            rec.faded(b.mass, rec.decay(l.as_of - b.as_of, h.half_life)), l.as_of
        from base b join rec.horizons h using (horizon) cross join latest l
    ) t
    group by t.horizon, t.as_of;
$$;
comment on function rec.replay is
    'The interest sums of a user as of his last event up to p_as_of, from the event log alone, or '
    'from the log and rec.interest_bases where events were dropped. Until infinity it equals what is '
    'stored plus what is pending; without the pending events, what is stored. Of the time before the '
    'last dropped event it knows only what the log still holds.';

-- rec.current_sums(user) -> the stored sums plus the pending events whose vectors are known
create or replace function rec.current_sums(p_user_id text)
returns table (horizon text, interest vector, mass double precision, as_of timestamptz)
language sql stable
set search_path from current
as $$
    with share as (
        select u.horizon, u.interest, u.mass, u.as_of
        from rec.user_interests u where u.user_id = p_user_id
        union all
        select h.horizon, rec.scaled(e.embedding, e.weight), abs(e.weight), e.at
        from rec.pending p
        join rec.event_vectors e using (user_id, event_id, occurred_at)
        cross join rec.horizons h
        where p.user_id = p_user_id and e.embedding is not null and e.weight is not null
    ), dated as (
        select s.*, max(s.as_of) over () as latest from share s
    )
    select d.horizon,
        sum(rec.decayed(d.interest, rec.decay(d.latest - d.as_of, h.half_life))),
        sum(rec.faded(d.mass, rec.decay(d.latest - d.as_of, h.half_life))),
        d.latest
    from dated d join rec.horizons h using (horizon)
    group by d.horizon, d.latest;
$$;
comment on function rec.current_sums is
    'The interest sums of a user as of his last event: stored and pending, read in one statement, '
    'so that each event counts once whether or not it is folded.';

-- rec.interest(user, as_of) -> one row per horizon: its sum, mass, and weight in the mix
create or replace function rec.interest(p_user_id text, p_as_of timestamptz default null)
returns table (
    horizon text, interest vector, mass double precision, as_of timestamptz,
    weight double precision)
language sql stable
set search_path from current
as $$
    with sums as (
        select s.* from rec.current_sums(p_user_id) s where p_as_of is null
        union all
        select s.* from rec.replay(p_user_id, p_as_of) s where p_as_of is not null
    ), mixed as (
        select s.*, h.half_life, d.has_direction,
            h.weight * d.has_direction * s.mass
            * rec.decay(rec.moment(p_as_of) - s.as_of, h.half_life) as share
        from sums s join rec.horizons h using (horizon)
        cross join lateral (
            select (vector_norm(s.interest) > 1e-3 * s.mass)::integer as has_direction) d
    )
    select m.horizon, m.interest, m.mass, m.as_of,
        case when sum(m.share) over () > 0 then m.share / sum(m.share) over ()
            when m.half_life = max(m.half_life) over () then m.has_direction else 0 end
    from mixed m
    order by m.half_life;
$$;
comment on function rec.interest is
    'The interest of a user, shortest horizon first: now (stored and pending), or at a past moment '
    '(replayed from the log). The direction of a horizon does not change while the user is away; '
    'its weight in the mix does. Likes and dislikes that cancel each other to less than a '
    'thousandth of the mass have no direction, and weight 0.';

-- rec.latest_shares(user, as_of) -> the last events that speak for something, and their weights
create or replace function rec.latest_shares(p_user_id text, p_as_of timestamptz default null)
returns table (event_id bigint, embedding vector, weight double precision)
language sql stable
set search_path from current
as $$
    select l.event_id, l.embedding, s.latest_decay ^ (l.place - 1)
    from rec.settings s cross join lateral (
        select e.event_id, e.embedding,
            row_number() over (order by e.at desc, e.occurred_at desc, e.event_id desc) as place
        from (
            select v.* from rec.event_vectors v
            where v.user_id = p_user_id and v.weight > 0 and v.embedding is not null
                and (p_as_of is null or v.at <= p_as_of)
            order by v.occurred_at desc, v.event_id desc
            limit s.latest_items + rec.ahead(p_user_id, p_as_of)
        ) e
        order by place limit s.latest_items
    ) l
    order by l.place;
$$;
comment on function rec.latest_shares is
    'The last settings.latest_items positive events, the latest first, with weights that fall by '
    'settings.latest_decay from one to the next, however much time lies between. Their sum is the '
    'latest interest.';

-- rec.rebuild_user(user) -> number of events from which the stored interest was made anew
create or replace function rec.rebuild_user(p_user_id text)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_events integer;
begin
    perform pg_advisory_xact_lock_shared(rec.space_lock());
    perform pg_advisory_xact_lock(rec.user_lock(p_user_id));
    perform rec.apply_users(array[p_user_id]);
    delete from rec.user_interests u where u.user_id = p_user_id;
    insert into rec.user_interests (user_id, horizon, interest, mass, as_of)
    select p_user_id, r.horizon, r.interest, r.mass, r.as_of
    from rec.replay(p_user_id, p_pending => false) r;
    select count(*) into v_events from rec.event_vectors e
    where e.user_id = p_user_id and e.embedding is not null and e.weight is not null;
    return v_events;
end $$;
comment on function rec.rebuild_user is
    'Make the stored interest of a user anew from the event log and return the number of events.';
