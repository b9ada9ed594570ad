-- Which items may be listed. Every source of items asks passes(), and leaves out the excluded items by
--
--     i.item_id not in (
--         select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
--
-- The server hashes that subquery once for all rows. Without its condition, a single NULL in p_exclude
-- would leave out every item.

-- Whether an item is available, of the domain (NULL: any), and has attributes that contain p_filter. The body
-- is bound at creation and the planner inlines it, so that the partial indexes and the GIN index serve it.
create or replace function rec_internal.passes(p_item rec.items, p_domain text, p_filter jsonb)
returns boolean language sql immutable parallel safe
return (p_item).available
    and (p_domain is null or (p_item).domain = p_domain)
    and (p_filter = '{}' or (p_item).attributes @> p_filter);

-- The first p_n of these items that pass and are not excluded, in the given order.
create or replace function rec_internal.passing(
    p_items text[], p_n integer, p_domain text, p_filter jsonb, p_exclude text[])
returns table (item_id text)
language sql stable
set search_path from current
as $$
    -- The items are looked up one by one until there are enough.
    select t.item_id from (
        select u.item_id, u.place from unnest(p_items) with ordinality as u (item_id, place)
        where u.item_id not in (
            select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
        order by u.place
    ) t
    cross join lateral (
        select from rec.items i
        where i.item_id = t.item_id and rec_internal.passes(i, p_domain, p_filter)
        offset 0
    ) i
    order by t.place limit p_n;
$$;

-- The newest p_n items that pass and are not excluded, the newest first.
create or replace function rec_internal.newest(
    p_n integer, p_domain text, p_filter jsonb, p_exclude text[])
returns table (item_id text)
language plpgsql stable
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
begin
    if p_n = 0 then
        return;
    end if;
    return query
    select i.item_id from rec.items i
    where rec_internal.passes(i, p_domain, p_filter)
        and i.item_id not in (
            select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
    order by i.created_at desc, i.item_id limit p_n;
end $$;
