-- What people go on to, and what is rising: counts that are kept up to date event by event. A mass
-- is stored as log2(mass) + t / half_life, so that it never has to be aged and sorts as it stands
-- (forward decay; Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009).

-- rec.log_mass(amount, at, half_life) -> the time-invariant form of an amount as of that moment
create or replace function rec.log_mass(
    p_amount double precision, p_at timestamptz, p_half_life interval)
returns double precision language sql immutable parallel safe
return ln(p_amount) / ln(2::double precision)
    + extract(epoch from p_at)::double precision / extract(epoch from p_half_life)::double precision;
comment on function rec.log_mass is 'log2(p_amount) + p_at / p_half_life, the form in which masses are stored.';

-- rec.mass_at(log_mass, half_life, at) -> the decayed amount as of that moment
create or replace function rec.mass_at(
    p_log_mass double precision, p_half_life interval, p_at timestamptz)
returns double precision language sql immutable parallel safe
return rec.pow2(p_log_mass
    - extract(epoch from p_at)::double precision / extract(epoch from p_half_life)::double precision);
comment on function rec.mass_at is 'The amount that a stored mass has decayed to by p_at.';

-- rec.add_mass(log_mass, change, at, half_life) -> the stored mass after a change, NULL if none is left
create or replace function rec.add_mass(
    p_log_mass double precision, p_change double precision, p_at timestamptz, p_half_life interval)
returns double precision language sql immutable parallel safe
set search_path from current
as $$
    select case when m.mass > 1e-9 then m.reference + ln(m.mass) / ln(2::double precision) end
    from (
        select r.reference,
            coalesce(rec.pow2(p_log_mass - r.reference), 0)
            + p_change * rec.pow2(r.log_unit - r.reference) as mass
        from (
            select u.log_unit, greatest(p_log_mass, u.log_unit) as reference
            from (select rec.log_mass(1, p_at, p_half_life) as log_unit) u
        ) r
    ) m;
$$;
comment on function rec.add_mass is
    'Add p_change as of p_at, which may be negative, to a stored mass, which may be NULL.';

-- rec.liked_events: events that speak for an item
create or replace view rec.liked_events with (security_invoker = true) as
select e.user_id, e.event_id, e.occurred_at, e.item_id, least(e.occurred_at, e.received_at) as at,
    rec.event_weight(k.weight, k.neutral, k.scale, e.value) as weight
from rec.events e
join rec.event_kinds k on k.kind = e.kind
where e.item_id is not null and rec.event_weight(k.weight, k.neutral, k.scale, e.value) > 0;
comment on view rec.liked_events is 'Events on an item with a positive weight.';

-- rec.folded_events: of these, the ones that are part of the stored state
create or replace view rec.folded_events with (security_invoker = true) as
select e.* from rec.liked_events e
where not exists (
    select from rec.pending p where p.user_id = e.user_id and p.event_id = e.event_id);
comment on view rec.folded_events is 'Events on an item with a positive weight that are folded.';

-- rec.add_deltas(users, events, times) -> records what these events add to popularity and transitions
create or replace function rec.add_deltas(p_users text[], p_events bigint[], p_times timestamptz[])
returns void language sql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
    with fresh as materialized (
        select e.user_id, e.event_id, e.occurred_at, e.item_id, e.at, e.weight
        from unnest(p_users, p_events, p_times) as c (user_id, event_id, occurred_at)
        join rec.liked_events e using (user_id, event_id, occurred_at)
    ), span as (
        select f.user_id, min(f.occurred_at) as first_at, max(f.occurred_at) as last_at, s.transition_window as reach
        from fresh f cross join rec.settings s group by f.user_id, s.transition_window
    ), around as (
        select n.* from span s cross join lateral (
            (select e.user_id, e.event_id, e.occurred_at, e.item_id, e.at from rec.folded_events e
            where e.user_id = s.user_id and e.occurred_at < s.first_at
            order by e.occurred_at desc, e.event_id desc limit s.reach)
            union all
            select e.user_id, e.event_id, e.occurred_at, e.item_id, e.at from rec.folded_events e
            where e.user_id = s.user_id and e.occurred_at between s.first_at and s.last_at
            union all
            (select e.user_id, e.event_id, e.occurred_at, e.item_id, e.at from rec.folded_events e
            where e.user_id = s.user_id and e.occurred_at > s.last_at
            order by e.occurred_at, e.event_id limit s.reach)
        ) n
    ), sequence as (
        select e.*,
            row_number() over (
                partition by e.user_id order by e.occurred_at, e.event_id) as place,
            count(*) filter (where not e.is_fresh) over (
                partition by e.user_id order by e.occurred_at, e.event_id) as old_place
        from (
            select f.user_id, f.event_id, f.occurred_at, f.item_id, f.at, true as is_fresh from fresh f
            union all
            select a.user_id, a.event_id, a.occurred_at, a.item_id, a.at, false from around a
        ) e
    ), step as (
        select b.user_id, a.item_id as from_item, b.item_id as to_item, b.at,
            1.0::double precision / d.distance as amount
        from sequence a join span s on s.user_id = a.user_id
        cross join lateral generate_series(1, s.reach) as d (distance)
        join sequence b on b.user_id = a.user_id and b.place = a.place + d.distance
        union all
        select b.user_id, a.item_id, b.item_id, b.at, -1.0::double precision / d.distance
        from sequence a join span s on s.user_id = a.user_id
        cross join lateral generate_series(1, s.reach) as d (distance)
        join sequence b on b.user_id = a.user_id and b.old_place = a.old_place + d.distance
        where not a.is_fresh and not b.is_fresh
    )
    insert into rec.item_deltas (user_id, from_item, to_item, amount, at)
    select t.user_id, t.from_item, t.to_item, sum(t.amount), t.at from step t
    group by t.user_id, t.from_item, t.to_item, t.at having abs(sum(t.amount)) > 1e-9
    union all
    select f.user_id, null, f.item_id, f.weight, f.at from fresh f;
$$;
comment on function rec.add_deltas is
    'Record what newly folded events add: to popularity their weight, to transitions 1 / distance '
    'from each of the items shortly before. A late event also takes back what it comes between.';

-- rec.merge_deltas(limit) -> number of deltas merged into popularity and transitions
create or replace function rec.merge_deltas(p_limit integer default 100000)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_merged integer;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('rec.merge_deltas', 0)) then
        return 0;
    end if;
    with taken as materialized (
        delete from rec.item_deltas d
        where (d.user_id, d.delta_id) in (
            select o.user_id, o.delta_id from rec.item_deltas o limit greatest(p_limit, 0))
        returning d.from_item, d.to_item, d.amount, d.at
    ), dated as (
        select t.*, max(t.at) over (partition by t.from_item, t.to_item) as latest,
            case when t.from_item is null then s.popularity_half_life else s.transition_half_life
            end as half_life
        from taken t cross join rec.settings s
    ), change as (
        select d.from_item, d.to_item, d.latest, d.half_life,
            sum(d.amount * rec.decay(d.latest - d.at, d.half_life)) as change
        from dated d group by d.from_item, d.to_item, d.latest, d.half_life
    ), outgoing as (
        select d.from_item as item_id, max(d.at) as latest, d.half_life,
            sum(d.amount * rec.decay(m.latest - d.at, d.half_life)) as change
        from dated d join (
            select n.from_item, max(n.at) as latest from taken n group by n.from_item
        ) m on m.from_item = d.from_item
        group by d.from_item, d.half_life
    ), popular as (
        select coalesce(c.to_item, g.item_id) as item_id,
            case when c.to_item is null then o.log_mass
                else rec.add_mass(o.log_mass, c.change, c.latest, c.half_life) end as log_mass,
            case when g.item_id is null then o.log_outgoing
                else rec.add_mass(o.log_outgoing, g.change, g.latest, g.half_life) end as log_outgoing
        from (select * from change where from_item is null) c
        full join outgoing g on g.item_id = c.to_item
        left join rec.popularity o on o.item_id = coalesce(c.to_item, g.item_id)
    ), follow as (
        select c.from_item, c.to_item, rec.add_mass(o.log_mass, c.change, c.latest, c.half_life) as log_mass
        from change c left join rec.item_transitions o
            on o.from_item = c.from_item and o.to_item = c.to_item
        where c.from_item is not null
    ), unpopular as (
        delete from rec.popularity o using popular n
        where o.item_id = n.item_id and n.log_mass is null
    ), unfollow as (
        delete from rec.item_transitions o using follow n
        where o.from_item = n.from_item and o.to_item = n.to_item and n.log_mass is null
    ), popularity as (
        insert into rec.popularity (item_id, log_mass, log_outgoing)
        select n.item_id, n.log_mass, n.log_outgoing from popular n where n.log_mass is not null
        on conflict (item_id) do update set
            log_mass = excluded.log_mass, log_outgoing = excluded.log_outgoing
    ), transitions as (
        insert into rec.item_transitions (from_item, to_item, log_mass)
        select n.from_item, n.to_item, n.log_mass from follow n where n.log_mass is not null
        on conflict (from_item, to_item) do update set log_mass = excluded.log_mass
    )
    select count(*) into v_merged from taken;
    return v_merged;
end $$;
comment on function rec.merge_deltas is
    'Merge what folded events have added into rec.popularity and rec.item_transitions, in one '
    'statement and by one session at a time.';

-- rec.popular(n, domain, filter, exclude) -> the items with the greatest decayed mass, best first
create or replace function rec.popular(
    p_n integer default 10, p_domain text default null, p_filter jsonb default '{}',
    p_exclude text[] default '{}')
returns table (item_id text, mass double precision)
language sql stable
set search_path from current
as $$
    select p.item_id, rec.mass_at(p.log_mass, s.popularity_half_life, now())
    from rec.popularity p
    join rec.items i on i.item_id = p.item_id
    cross join rec.settings s
    where i.available
        and (p_domain is null or i.domain = p_domain)
        and i.attributes @> rec.attribute_filter(p_filter)
        and p.item_id <> all(coalesce(p_exclude, '{}'))
    order by p.log_mass desc, p.item_id
    limit rec.list_length(p_n);
$$;
comment on function rec.popular is
    'The trending items: weights of positive events, decayed by settings.popularity_half_life.';

-- rec.next_items(items, n, domain, filter, exclude, as_of) -> what people went on to from these items
create or replace function rec.next_items(
    p_items text[], p_n integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}', p_as_of timestamptz default null)
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select t.to_item, sqrt(sum(t.weight * t.mass / (t.outgoing + t.prior))) as strength
    from (
        select o.to_item, s.latest_decay ^ (f.place - 1) as weight, s.transition_prior as prior,
            rec.mass_at(o.log_mass, s.transition_half_life, coalesce(p_as_of, now())) as mass,
            coalesce(rec.mass_at(p.log_outgoing, s.transition_half_life, coalesce(p_as_of, now())), 0)
                as outgoing
        from unnest(p_items) with ordinality as f (item_id, place)
        cross join rec.settings s
        cross join lateral (
            select x.to_item, x.log_mass from rec.item_transitions x
            where x.from_item = f.item_id order by x.log_mass desc limit s.candidates * 4
        ) o
        left join rec.popularity p on p.item_id = f.item_id
    ) t
    join rec.items i on i.item_id = t.to_item
    where i.available
        and (p_domain is null or i.domain = p_domain)
        and i.attributes @> rec.attribute_filter(p_filter)
        and t.to_item <> all(coalesce(p_exclude, '{}'))
    group by t.to_item
    order by strength desc, t.to_item
    limit rec.list_length(p_n);
$$;
comment on function rec.next_items is
    'Where people went on to from these items, the latest first. The strength is the square root of '
    'the sum of latest_decay^place * transitions / (all transitions from that item + prior).';
