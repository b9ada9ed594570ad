-- What people go on to, and what is rising: counts that are kept up to date event by event. A mass
-- is stored as log2(mass) + t / half_life, so that it never has to be aged and sorts as it stands
-- (forward decay; Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009). The functions of masses are as
-- stable as extract() from a timestamptz, for otherwise the planner would not inline them.

-- rec.log_mass(amount, at, half_life) -> the time-invariant form of an amount as of that moment
create or replace function rec.log_mass(
    p_amount double precision, p_at timestamptz, p_half_life interval)
returns double precision language sql stable parallel safe
return ln(p_amount) / ln(2::double precision)
    + extract(epoch from p_at)::double precision / rec.seconds(p_half_life);
comment on function rec.log_mass is 'log2(p_amount) + p_at / p_half_life, the form in which masses are stored.';

-- rec.mass_at(log_mass, half_life, at) -> the decayed amount as of that moment
create or replace function rec.mass_at(
    p_log_mass double precision, p_half_life interval, p_at timestamptz)
returns double precision language sql stable parallel safe
return rec.pow2(p_log_mass
    - extract(epoch from p_at)::double precision / rec.seconds(p_half_life));
comment on function rec.mass_at is 'The amount that a stored mass has decayed to by p_at.';

-- rec.add_mass(log_mass, change, latest) -> the stored mass after a change, NULL if none is left
create or replace function rec.add_mass(
    p_log_mass double precision, p_change double precision, p_latest double precision)
returns double precision language sql immutable parallel safe
return case when coalesce(rec.pow2(p_log_mass - greatest(p_log_mass, p_latest)), 0)
        + coalesce(p_change * rec.pow2(p_latest - greatest(p_log_mass, p_latest)), 0) > 1e-9
    then greatest(p_log_mass, p_latest)
        + ln(coalesce(rec.pow2(p_log_mass - greatest(p_log_mass, p_latest)), 0)
            + coalesce(p_change * rec.pow2(p_latest - greatest(p_log_mass, p_latest)), 0))
        / ln(2::double precision) end;
comment on function rec.add_mass is
    'Add p_change, which may be negative, to a stored mass; each may be NULL. p_latest is the form '
    'in which a mass of one would be stored as of the moment of the change. Written out so that the '
    'planner inlines it.';

-- rec.chosen_events: events in which a user chose an item
create or replace view rec.chosen_events with (security_invoker = true) as
select e.user_id, e.event_id, e.occurred_at, e.item_id, least(e.occurred_at, e.received_at) as at,
    rec.event_weight(k.weight, k.neutral, k.scale, e.value) as weight
from rec.events e
join rec.event_kinds k on k.kind = e.kind
where e.item_id is not null and k.weight > 0;
comment on view rec.chosen_events is
    'Events on an item of a kind with a positive weight, whatever their value: a bad rating, too, tells '
    'where people went. Its own weight is negative, and it adds nothing to popularity.';

-- rec.folded_events: of these, the ones that are part of the stored state
create or replace view rec.folded_events with (security_invoker = true) as
select e.* from rec.chosen_events e
where not exists (
    select from rec.pending p where p.user_id = e.user_id and p.event_id = e.event_id);
comment on view rec.folded_events is 'Events in which a user chose an item, and that are folded.';

-- rec.add_deltas(users, events, times, items, chosen, ats, weights) -> nothing; what these newly folded
-- events add to popularity and transitions is recorded
create or replace function rec.add_deltas(
    p_users text[], p_events bigint[], p_times timestamptz[], p_items text[], p_chosen boolean[],
    p_ats timestamptz[], p_weights double precision[])
returns void language sql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
set work_mem = '64MB'
as $$
    with fresh as materialized (
        select c.user_id, c.event_id, c.occurred_at, c.item_id, c.at, c.weight
        from unnest(p_users, p_events, p_times, p_items, p_chosen, p_ats, p_weights)
            as c (user_id, event_id, occurred_at, item_id, chosen, at, weight)
        where c.chosen and c.item_id is not null
    ), span as materialized (
        select f.*, s.transition_window as reach, array(
            select p.event_id from rec.pending p where p.user_id = f.user_id) as waiting
        from (
            select user_id, min(occurred_at) as first_at, max(occurred_at) as last_at
            from fresh group by user_id
        ) f cross join rec.settings s
    ), known as materialized (
        -- the items before all that is fresh
        select s.*, array(
            select n.item_id from (
                select e.item_id, e.occurred_at, e.event_id from rec.chosen_events e
                where e.user_id = s.user_id and e.occurred_at < s.first_at
                    and e.event_id not in (select unnest(s.waiting))
                order by e.occurred_at desc, e.event_id desc limit s.reach
            ) n order by n.occurred_at, n.event_id
        ) as items
        from span s
    ), late as materialized (
        -- folded before, and not before all that is fresh: their steps change
        select n.* from known s cross join lateral (
            (select e.user_id, e.event_id, e.occurred_at, e.item_id, e.at from rec.chosen_events e
            where e.user_id = s.user_id and e.occurred_at between s.first_at and s.last_at
                and e.event_id not in (select unnest(s.waiting))
            offset 0)
            union all
            (select e.user_id, e.event_id, e.occurred_at, e.item_id, e.at from rec.chosen_events e
            where e.user_id = s.user_id and e.occurred_at > s.last_at
                and e.event_id not in (select unnest(s.waiting))
            order by e.occurred_at, e.event_id limit s.reach)
        ) n
    ), sequence as (
        select e.*, k.reach, k.items || array_agg(e.item_id) over (
            partition by e.user_id, e.step order by e.occurred_at, e.event_id
            rows between (select s.transition_window from rec.settings s) preceding and 1 preceding
        ) as previous
        from (
            select f.user_id, f.event_id, f.occurred_at, f.item_id, f.at, f.weight, 1 as step, true as fresh
            from fresh f
            union all
            select l.*, 0, n.step, false from late l cross join (values (1), (-1)) as n (step)
        ) e join known k using (user_id)
    ), step as (
        select q.*, q.previous[greatest(cardinality(q.previous) - q.reach, 0) + 1:] as from_items
        from sequence q
    )
    insert into rec.item_deltas (user_id, to_item, amount, from_items, step, at)
    select s.user_id, s.item_id, greatest(s.weight, 0), s.from_items, 1, s.at
    from step s where s.fresh and (s.weight > 0 or s.from_items <> '{}')
    union all
    -- the steps of late events with the fresh ones, less the steps without them
    select s.user_id, s.item_id, 0, s.from_items, sum(s.step), s.at
    from step s where not s.fresh and s.from_items <> '{}'
    group by s.user_id, s.event_id, s.item_id, s.at, s.from_items having sum(s.step) <> 0;
$$;
comment on function rec.add_deltas is
    'Record what newly folded events add: to popularity their weight, to transitions 1 / distance '
    'from each of the items shortly before. A late event also takes back what it comes between.';

-- rec.merge_deltas() -> number of changes merged into popularity and transitions
create or replace function rec.merge_deltas()
returns integer language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
declare
    v_from text[];
    v_to text[];
    v_latest double precision[];
    v_change double precision[];
    v_settings rec.settings;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('rec.merge_deltas', 0)) then
        return 0;
    end if;
    select * into v_settings from rec.settings;
    -- One row for each item and pair, handed on as arrays: of those the planner knows the length.
    with taken as (
        delete from rec.item_deltas d
        returning d.*
    ), added as (
        select null as from_item, t.to_item, t.amount,
            rec.log_mass(1, t.at, v_settings.popularity_half_life) as unit
        from taken t where t.amount <> 0
        union all
        select f.item_id, t.to_item, t.step / (cardinality(t.from_items) - f.place + 1), t.unit
        from (
            select t.*, rec.log_mass(1, t.at, v_settings.transition_half_life) as unit from taken t
            offset 0
        ) t cross join lateral unnest(t.from_items) with ordinality as f (item_id, place)
    ), dated as (
        select a.*, max(a.unit) over (partition by a.from_item, a.to_item) as latest from added a
    ), change as (
        select d.from_item, d.to_item, d.latest, sum(d.amount * rec.pow2(d.unit - d.latest)) as change
        from dated d group by d.from_item, d.to_item, d.latest
    )
    select array_agg(c.from_item), array_agg(c.to_item), array_agg(c.latest), array_agg(c.change)
    into v_from, v_to, v_latest, v_change from change c;
    if v_to is null then
        return 0;
    end if;
    perform rec.merge_changes(v_from, v_to, v_latest, v_change);
    return cardinality(v_to);
end $$;
comment on function rec.merge_deltas is
    'Merge what folded events have added into rec.popularity and rec.item_transitions, by one '
    'session at a time.';

-- rec.merge_changes(from, to, latest, change) -> adds changes to popularity and transitions
create or replace function rec.merge_changes(
    p_from text[], p_to text[], p_latest double precision[], p_change double precision[])
returns void language sql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
    insert into rec.popularity (item_id, log_mass)
    select c.to_item, coalesce(rec.add_mass(o.log_mass, c.change, c.latest), '-infinity')
    from unnest(p_from, p_to, p_latest, p_change) as c (from_item, to_item, latest, change)
    left join rec.popularity o on o.item_id = c.to_item
    where c.from_item is null
    on conflict (item_id) do update set log_mass = excluded.log_mass;

    -- Pairs are found by their key, one by one: the planner would rather read them all.
    insert into rec.item_transitions as t (from_item, to_item, log_mass)
    select c.from_item, c.to_item, rec.add_mass(null, c.change, c.latest)
    from unnest(p_from, p_to, p_latest, p_change) as c (from_item, to_item, latest, change)
    where c.from_item is not null and c.change > 1e-9
    on conflict (from_item, to_item) do update
    set log_mass = rec.add_mass(t.log_mass, 1, excluded.log_mass);

    with lessened as materialized (
        select c.from_item, c.to_item, rec.add_mass(t.log_mass, c.change, c.latest) as log_mass
        from unnest(p_from, p_to, p_latest, p_change) as c (from_item, to_item, latest, change)
        cross join lateral (
            select t.log_mass from rec.item_transitions t
            where t.from_item = c.from_item and t.to_item = c.to_item offset 0
        ) t
        where c.change <= 1e-9
    ), gone as (
        delete from rec.item_transitions t using lessened l
        where l.log_mass is null and t.from_item = l.from_item and t.to_item = l.to_item
    )
    insert into rec.item_transitions (from_item, to_item, log_mass)
    select l.from_item, l.to_item, l.log_mass from lessened l where l.log_mass is not null
    on conflict (from_item, to_item) do update set log_mass = excluded.log_mass;

    with going as (
        select g.item_id, g.outgoing, c.latest, c.change,
            max(c.latest) over (partition by g.item_id, g.outgoing) as newest
        from unnest(p_from, p_to, p_latest, p_change) as c (from_item, to_item, latest, change)
        cross join lateral (values (c.from_item, true), (c.to_item, false)) as g (item_id, outgoing)
        where c.from_item is not null
    ), flow as (
        select g.item_id, g.outgoing, g.newest, sum(g.change * rec.pow2(g.latest - g.newest)) as change
        from going g group by g.item_id, g.outgoing, g.newest
    ), passed as (
        select f.item_id,
            max(f.newest) filter (where f.outgoing) as latest_out,
            max(f.change) filter (where f.outgoing) as change_out,
            max(f.newest) filter (where not f.outgoing) as latest_in,
            max(f.change) filter (where not f.outgoing) as change_in
        from flow f group by f.item_id
    ), known as (
        update rec.popularity p set
            log_outgoing = rec.add_mass(p.log_outgoing, f.change_out, f.latest_out),
            log_incoming = rec.add_mass(p.log_incoming, f.change_in, f.latest_in)
        from passed f where p.item_id = f.item_id
        returning p.item_id
    )
    insert into rec.popularity (item_id, log_mass, log_outgoing, log_incoming)
    select f.item_id, '-infinity', rec.add_mass(null, f.change_out, f.latest_out),
        rec.add_mass(null, f.change_in, f.latest_in)
    from passed f where f.item_id not in (select k.item_id from known k)
    on conflict (item_id) do nothing;

    delete from rec.popularity p
    where p.log_mass = '-infinity' and p.log_outgoing is null and p.log_incoming is null;
$$;
comment on function rec.merge_changes is
    'Add changes to the masses of items (from is NULL) and of pairs, and to what goes out of each '
    'item and what arrives at it. latest is the form of a mass of one as of each change. What falls '
    'to nothing is deleted; a popularity of -infinity is one of which only transitions are left.';

-- rec.popular(n, domain, filter, exclude) -> the items with the greatest decayed mass, best first
create or replace function rec.popular(
    p_n integer default 10, p_domain text default null, p_filter jsonb default '{}',
    p_exclude text[] default '{}')
returns table (item_id text, mass double precision)
language plpgsql stable rows 60
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_sort = off
set enable_material = off
as $$
begin
    p_n := rec.list_length(p_n);
    p_filter := rec.attribute_filter(p_filter);
    -- How many items pass a filter or a policy is known only to a plan of its own.
    if p_domain is not null or p_filter <> '{}' or rec.hides_items() then
        perform set_config('plan_cache_mode', 'force_custom_plan', true),
            set_config('enable_sort', 'on', true);
    end if;
    return query
    select p.item_id, rec.mass_at(p.log_mass, s.popularity_half_life, now())
    from rec.popularity p
    join rec.items i on i.item_id = p.item_id
    cross join rec.settings s
    where i.available and p.log_mass > '-infinity'
        and (p_domain is null or i.domain = p_domain)
        and (p_filter = '{}' or i.attributes @> p_filter)
        and p.item_id not in (select x.item_id from unnest(p_exclude) as x (item_id)
            where x.item_id is not null)
    order by p.log_mass desc, p.item_id
    limit p_n;
end $$;
comment on function rec.popular is
    'The trending items: weights of positive events, decayed by settings.popularity_half_life.';
