-- The interest of a user: now, at any past moment, and rebuilt from the log.

-- The interest of a user now, or at a past moment p_as_of: one row per horizon, the shortest first.
-- interest is the decayed sum of the event vectors, mass the decayed sum of their absolute weights, both as
-- of the last event, as_of; weight is the share of the horizon in the mix, from 0 to 1. A user without
-- events has no rows. The present interest is computed from the stored sums and the queued events; a past
-- one is replayed from the log. While the user is away, the direction of a horizon stays the same, and its
-- weight changes. If likes and dislikes cancel each other out to less than a thousandth of the mass, the
-- horizon has no direction, and its weight is 0.
create or replace function rec.interest(p_user_id text, p_as_of timestamptz default null)
returns table (
    horizon text, interest vector, mass double precision, as_of timestamptz,
    weight double precision)
language sql stable
set search_path from current
as $$
    with sums as (
        select s.* from rec_internal.current_sums(p_user_id) s where p_as_of is null
        union all
        select s.* from rec_internal.replay(p_user_id, p_as_of) s where p_as_of is not null
    ), mixed as (
        select s.*, h.half_life, d.has_direction,
            h.weight * d.has_direction * s.mass
            * rec_internal.decay(rec_internal.moment(p_as_of) - s.as_of, h.half_life) as share
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

-- Compute the stored interest of a user again from the event log, and return the number of events with a
-- vector and a weight. Due events in the queue are folded first. Call this after the weight of an event kind
-- or the half-life of a horizon has changed.
create or replace function rec.rebuild_user(p_user_id text)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_events integer;
begin
    perform rec_internal.require_read_committed();
    perform pg_advisory_xact_lock_shared(rec_internal.space_lock());
    perform pg_advisory_xact_lock(rec_internal.user_lock(p_user_id));
    perform rec.apply_users(array[p_user_id]);
    delete from rec.user_interests u where u.user_id = p_user_id;
    insert into rec.user_interests (user_id, horizon, interest, mass, as_of)
    select p_user_id, r.horizon, r.interest, r.mass, r.as_of
    from rec_internal.replay(p_user_id, p_pending => false) r;
    select count(*) into v_events from rec_internal.event_vectors e
    where e.user_id = p_user_id and e.embedding is not null and e.weight is not null;
    return v_events;
end $$;
