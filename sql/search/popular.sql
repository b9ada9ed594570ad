-- The trending items.

-- The p_n trending available items, the most popular first, in a domain and with attributes that contain
-- p_filter. The mass of an item is the sum of the weights of its positive events, decayed by
-- settings.popularity_half_life.
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
    p_n := rec_internal.list_length(p_n);
    p_filter := rec_internal.attribute_filter(p_filter);
    perform rec_internal.plan_for(rec_internal.is_partial(p_domain, p_filter));
    return query
    select /* trending */ p.item_id,
        rec_internal.mass_at(p.log_mass, s.popularity_half_life, now())
    from rec_internal.popularity p
    join rec.items i on i.item_id = p.item_id
    cross join rec.settings s
    where p.log_mass > '-infinity' and rec_internal.passes(i, p_domain, p_filter)
        and p.item_id not in (
            select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
    order by p.log_mass desc, p.item_id
    limit p_n;
end $$;
