-- Which items go with which, from the counts of what users went on to.

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

-- rec.companion_items(items, n, domain, filter, exclude, as_of) -> what goes together with these items
create or replace function rec.companion_items(
    p_items text[], p_n integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}', p_as_of timestamptz default null)
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select t.item_id, sqrt(sum(t.weight * t.mass / (t.going + t.coming + t.prior))) as strength
    from (
        select o.item_id, s.latest_decay ^ (f.place - 1) as weight, s.transition_prior as prior,
            rec.mass_at(o.log_mass, s.transition_half_life, coalesce(p_as_of, now())) as mass,
            coalesce(rec.mass_at(p.log_outgoing, s.transition_half_life, coalesce(p_as_of, now())), 0)
                as going,
            coalesce(rec.mass_at(p.log_incoming, s.transition_half_life, coalesce(p_as_of, now())), 0)
                as coming
        from unnest(p_items) with ordinality as f (item_id, place)
        cross join rec.settings s
        cross join lateral (
            (select x.to_item as item_id, x.log_mass from rec.item_transitions x
            where x.from_item = f.item_id order by x.log_mass desc limit s.candidates * 4)
            union all
            (select x.from_item, x.log_mass from rec.item_transitions x
            where x.to_item = f.item_id order by x.log_mass desc limit s.candidates * 4)
        ) o
        left join rec.popularity p on p.item_id = f.item_id
    ) t
    join rec.items i on i.item_id = t.item_id
    where i.available
        and (p_domain is null or i.domain = p_domain)
        and i.attributes @> rec.attribute_filter(p_filter)
        and t.item_id <> all(coalesce(p_exclude, '{}'))
    group by t.item_id
    order by strength desc, t.item_id
    limit rec.list_length(p_n);
$$;
comment on function rec.companion_items is
    'What users had shortly before or after these items, the latest first. The strength is the square '
    'root of the sum of latest_decay^place * transitions both ways / (all transitions from and to '
    'that item + prior).';
