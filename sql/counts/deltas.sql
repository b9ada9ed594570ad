-- Counts of what users choose and what they go on to, kept up to date event by event.

-- Record what newly folded events add to the counts: their weight to popularity, and 1 / distance to the
-- transitions from each of the items shortly before. An event that is folded late also corrects what the
-- events after it have added, because it is now one of the items before them.
create or replace function rec_internal.add_deltas(
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
            select p.event_id from rec_internal.pending p where p.user_id = f.user_id) as waiting
        from (
            select user_id, min(occurred_at) as first_at, max(occurred_at) as last_at
            from fresh group by user_id
        ) f cross join rec.settings s
    ), known as materialized (
        -- the items before the first fresh event
        select s.*, array(
            select n.item_id from (
                select e.item_id, e.occurred_at, e.event_id from rec_internal.chosen_events e
                where e.user_id = s.user_id and e.occurred_at < s.first_at
                    and e.event_id not in (select unnest(s.waiting))
                order by e.occurred_at desc, e.event_id desc limit s.reach
            ) n order by n.occurred_at, n.event_id
        ) as items
        from span s
    ), late as materialized (
        -- the folded events after the first fresh one: their steps change
        select n.* from known s cross join lateral (
            (select e.user_id, e.event_id, e.occurred_at, e.item_id, e.at from rec_internal.chosen_events e
            where e.user_id = s.user_id and e.occurred_at between s.first_at and s.last_at
                and e.event_id not in (select unnest(s.waiting))
            offset 0)
            union all
            (select e.user_id, e.event_id, e.occurred_at, e.item_id, e.at from rec_internal.chosen_events e
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
    insert into rec_internal.item_deltas (user_id, to_item, amount, from_items, step, at)
    select s.user_id, s.item_id, greatest(s.weight, 0), s.from_items, 1, s.at
    from step s where s.fresh and (s.weight > 0 or s.from_items <> '{}')
    union all
    -- the steps to late events with the fresh ones between, less the steps without them
    select s.user_id, s.item_id, 0, s.from_items, sum(s.step), s.at
    from step s where not s.fresh and s.from_items <> '{}'
    group by s.user_id, s.event_id, s.item_id, s.at, s.from_items having sum(s.step) <> 0;
$$;

-- Merge what folded events have added into rec_internal.popularity and rec_internal.item_transitions, and
-- return the number of changed counts; 0 if there is nothing to merge, or if another session is merging.
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
    if not pg_try_advisory_xact_lock(rec_internal.counts_lock()) then
        return 0;
    end if;
    select * into v_settings from rec.settings;
    -- One row for each item and pair, passed on in arrays, because the planner knows the length of an array.
    with taken as (
        delete from rec_internal.item_deltas d
        returning d.*
    ), added as (
        select null as from_item, t.to_item, t.amount,
            rec_internal.log_mass(1, t.at, v_settings.popularity_half_life) as unit
        from taken t where t.amount <> 0
        union all
        select f.item_id, t.to_item, t.step / (cardinality(t.from_items) - f.place + 1), t.unit
        from (
            select t.*, rec_internal.log_mass(1, t.at, v_settings.transition_half_life) as unit from taken t
            offset 0
        ) t cross join lateral unnest(t.from_items) with ordinality as f (item_id, place)
    ), dated as (
        select a.*, max(a.unit) over (partition by a.from_item, a.to_item) as latest from added a
    ), change as (
        select d.from_item, d.to_item, d.latest, sum(d.amount * rec_internal.pow2(d.unit - d.latest)) as change
        from dated d group by d.from_item, d.to_item, d.latest
    )
    select array_agg(c.from_item), array_agg(c.to_item), array_agg(c.latest), array_agg(c.change)
    into v_from, v_to, v_latest, v_change from change c;
    if v_to is null then
        return 0;
    end if;
    perform rec_internal.merge_changes(v_from, v_to, v_latest, v_change);
    return cardinality(v_to);
end $$;

-- Add changes to the masses of items (from is NULL) and of pairs, and to the sums of the steps from each
-- item and of the steps to it. latest is the stored form of a mass of one as of each change. A mass of
-- which nothing is left is deleted; an item that is left with transitions alone keeps a popularity of
-- -infinity.
create or replace function rec_internal.merge_changes(
    p_from text[], p_to text[], p_latest double precision[], p_change double precision[])
returns void language sql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
    insert into rec_internal.popularity (item_id, log_mass)
    select c.to_item, coalesce(rec_internal.add_mass(o.log_mass, c.change, c.latest), '-infinity')
    from unnest(p_from, p_to, p_latest, p_change) as c (from_item, to_item, latest, change)
    left join rec_internal.popularity o on o.item_id = c.to_item
    where c.from_item is null
    on conflict (item_id) do update set log_mass = excluded.log_mass;

    -- Pairs are found by their key, one by one; otherwise the planner would read all of them.
    insert into rec_internal.item_transitions as t (from_item, to_item, log_mass)
    select c.from_item, c.to_item, rec_internal.add_mass(null, c.change, c.latest)
    from unnest(p_from, p_to, p_latest, p_change) as c (from_item, to_item, latest, change)
    where c.from_item is not null and c.change > 1e-9
    on conflict (from_item, to_item) do update
    set log_mass = rec_internal.add_mass(t.log_mass, 1, excluded.log_mass);

    with lessened as materialized (
        select c.from_item, c.to_item, rec_internal.add_mass(t.log_mass, c.change, c.latest) as log_mass
        from unnest(p_from, p_to, p_latest, p_change) as c (from_item, to_item, latest, change)
        cross join lateral (
            select t.log_mass from rec_internal.item_transitions t
            where t.from_item = c.from_item and t.to_item = c.to_item offset 0
        ) t
        where c.change <= 1e-9
    ), gone as (
        delete from rec_internal.item_transitions t using lessened l
        where l.log_mass is null and t.from_item = l.from_item and t.to_item = l.to_item
    )
    insert into rec_internal.item_transitions (from_item, to_item, log_mass)
    select l.from_item, l.to_item, l.log_mass from lessened l where l.log_mass is not null
    on conflict (from_item, to_item) do update set log_mass = excluded.log_mass;

    with going as (
        select g.item_id, g.outgoing, c.latest, c.change,
            max(c.latest) over (partition by g.item_id, g.outgoing) as newest
        from unnest(p_from, p_to, p_latest, p_change) as c (from_item, to_item, latest, change)
        cross join lateral (values (c.from_item, true), (c.to_item, false)) as g (item_id, outgoing)
        where c.from_item is not null
    ), flow as (
        select g.item_id, g.outgoing, g.newest, sum(g.change * rec_internal.pow2(g.latest - g.newest)) as change
        from going g group by g.item_id, g.outgoing, g.newest
    ), passed as (
        select f.item_id,
            max(f.newest) filter (where f.outgoing) as latest_out,
            max(f.change) filter (where f.outgoing) as change_out,
            max(f.newest) filter (where not f.outgoing) as latest_in,
            max(f.change) filter (where not f.outgoing) as change_in
        from flow f group by f.item_id
    ), known as (
        update rec_internal.popularity p set
            log_outgoing = rec_internal.add_mass(p.log_outgoing, f.change_out, f.latest_out),
            log_incoming = rec_internal.add_mass(p.log_incoming, f.change_in, f.latest_in)
        from passed f where p.item_id = f.item_id
        returning p.item_id
    )
    insert into rec_internal.popularity (item_id, log_mass, log_outgoing, log_incoming)
    select f.item_id, '-infinity', rec_internal.add_mass(null, f.change_out, f.latest_out),
        rec_internal.add_mass(null, f.change_in, f.latest_in)
    from passed f where f.item_id not in (select k.item_id from known k)
    on conflict (item_id) do nothing;

    delete from rec_internal.popularity p
    where p.log_mass = '-infinity' and p.log_outgoing is null and p.log_incoming is null;
$$;
