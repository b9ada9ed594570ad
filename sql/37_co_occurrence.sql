-- Which items go with which, from the counts of what users went on to.

-- rec.flows(items, as_of) -> for each item: its weight, and what goes out of it and arrives at it
create or replace function rec.flows(p_items text[], p_as_of timestamptz default null)
returns table (
    item_id text, weight double precision, outgoing double precision, incoming double precision,
    moment double precision, most integer)
language sql stable rows 10
set search_path from current
as $$
    select f.item_id, rec.pow2((f.place - 1) * ln(s.latest_decay) / ln(2::double precision)),
        coalesce(rec.pow2(p.log_outgoing - m.moment), 0) + s.transition_prior,
        coalesce(rec.pow2(p.log_incoming - m.moment), 0),
        m.moment, s.candidates * 4
    from unnest(p_items) with ordinality as f (item_id, place)
    cross join rec.settings s
    cross join lateral (
        select rec.log_mass(1, rec.moment(p_as_of), s.transition_half_life) as moment) m
    left join rec.popularity p on p.item_id = f.item_id;
$$;
comment on function rec.flows is
    'The latest items, the latest first, with weights that fall by settings.latest_decay; masses of '
    'all transitions from each (settings.transition_prior included) and to it; the form of a mass of '
    'one as of p_as_of; and how many transitions of each count.';

-- rec.transitions(items, as_of) -> all that people went on to from these items
create or replace function rec.transitions(p_items text[], p_as_of timestamptz default null)
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select o.to_item, sqrt(sum(f.weight / f.outgoing * rec.pow2(o.log_mass - f.moment)))
    from rec.flows(p_items, p_as_of) f cross join lateral (
        select x.to_item, x.log_mass from rec.item_transitions x
        where x.from_item = f.item_id order by x.log_mass desc limit f.most
    ) o
    group by o.to_item;
$$;
comment on function rec.transitions is
    'Where people went on to from these items, the latest first. The strength is the square root of '
    'the sum of latest_decay^place * transitions / (all transitions from that item + prior).';

-- rec.companions(items, as_of) -> all that goes together with these items
create or replace function rec.companions(p_items text[], p_as_of timestamptz default null)
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select o.item_id,
        sqrt(sum(f.weight / (f.outgoing + f.incoming) * rec.pow2(o.log_mass - f.moment)))
    from rec.flows(p_items, p_as_of) f cross join lateral (
        (select x.to_item as item_id, x.log_mass from rec.item_transitions x
        where x.from_item = f.item_id order by x.log_mass desc limit f.most)
        union all
        (select x.from_item, x.log_mass from rec.item_transitions x
        where x.to_item = f.item_id order by x.log_mass desc limit f.most)
    ) o
    group by o.item_id;
$$;
comment on function rec.companions is
    'What users had shortly before or after these items, the latest first. The strength is the square '
    'root of the sum of latest_decay^place * transitions both ways / (all transitions from and to '
    'that item + prior).';

-- rec.strongest(items, strengths, n, domain, filter, exclude) -> the first n of these items that pass
create or replace function rec.strongest(
    p_items text[], p_strengths double precision[], p_n integer, p_domain text, p_filter jsonb,
    p_exclude text[])
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    with asked as materialized (
        select rec.attribute_filter(p_filter) as attributes, rec.list_length(p_n) as n
    )
    select f.item_id, f.strength
    from unnest(p_items, p_strengths) as f (item_id, strength)
    join rec.items i on i.item_id = f.item_id
    where i.available
        and (p_domain is null or i.domain = p_domain)
        and i.attributes @> (select a.attributes from asked a)
        and (f.item_id = any(p_exclude)) is not true
    order by f.strength desc, f.item_id
    limit (select a.n from asked a);
$$;
comment on function rec.strongest is
    'The strongest p_n of these items that are available, of the domain, with attributes that contain '
    'p_filter, and not excluded.';

-- rec.next_items(items, n, domain, filter, exclude, as_of) -> the first of what people went on to, and passes
create or replace function rec.next_items(
    p_items text[], p_n integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}', p_as_of timestamptz default null)
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select s.* from (
        select array_agg(t.item_id) as items, array_agg(t.strength) as strengths
        from rec.transitions(p_items, p_as_of) t
    ) f
    cross join lateral rec.strongest(f.items, f.strengths, p_n, p_domain, p_filter, p_exclude) s;
$$;
comment on function rec.next_items is
    'The first of rec.transitions that are available and pass the filters.';

-- rec.companion_items(items, n, domain, filter, exclude, as_of) -> the first of what goes with them, and passes
create or replace function rec.companion_items(
    p_items text[], p_n integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}', p_as_of timestamptz default null)
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select s.* from (
        select array_agg(c.item_id) as items, array_agg(c.strength) as strengths
        from rec.companions(p_items, p_as_of) c
    ) f
    cross join lateral rec.strongest(f.items, f.strengths, p_n, p_domain, p_filter, p_exclude) s;
$$;
comment on function rec.companion_items is
    'The first of rec.companions that are available and pass the filters.';
