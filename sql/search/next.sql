-- What users went on to, and what goes together, among the items that pass.

-- The strongest p_n of these items that pass and are not excluded, the strongest first.
create or replace function rec_internal.strongest(
    p_items text[], p_strengths double precision[], p_n integer, p_domain text, p_filter jsonb,
    p_exclude text[])
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    with asked as materialized (
        select rec_internal.attribute_filter(p_filter) as attributes, rec_internal.list_length(p_n) as n
    )
    select f.item_id, f.strength
    from unnest(p_items, p_strengths) as f (item_id, strength)
    join rec.items i on i.item_id = f.item_id
    cross join asked a
    where rec_internal.passes(i, p_domain, a.attributes)
        and i.item_id not in (
            select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
    order by f.strength desc, f.item_id
    limit (select a.n from asked a);
$$;

-- The p_n available items that users most often went on to from p_items, the strongest first, in a domain and
-- with attributes that contain p_filter. The first of p_items is the latest and counts most. p_as_of gives
-- the strengths as of a past moment, from the counts of today.
create or replace function rec.next_items(
    p_items text[], p_n integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}', p_as_of timestamptz default null,
    p_ranker text default 'default')
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select s.item_id, s.strength from (
        select array_agg(f.item_id) as items, array_agg(f.strength) as strengths
        from rec_internal.transitions(p_items, rec_internal.ranker(p_ranker), p_as_of) f
    ) f
    cross join lateral rec_internal.strongest(
        f.items, f.strengths, p_n, p_domain, p_filter, p_exclude) s;
$$;

-- The p_n available items that users most often had shortly before or after p_items, the strongest first, in
-- a domain and with attributes that contain p_filter. The first of p_items is the latest and counts most.
-- p_as_of gives the strengths as of a past moment, from the counts of today.
create or replace function rec.companion_items(
    p_items text[], p_n integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}', p_as_of timestamptz default null,
    p_ranker text default 'default')
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select s.item_id, s.strength from (
        select array_agg(f.item_id) as items, array_agg(f.strength) as strengths
        from rec_internal.companions(p_items, rec_internal.ranker(p_ranker), p_as_of) f
    ) f
    cross join lateral rec_internal.strongest(
        f.items, f.strengths, p_n, p_domain, p_filter, p_exclude) s;
$$;
