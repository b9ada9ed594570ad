-- Places on a list for items that few users have chosen.

-- The first p_k places of a list, some of them given to items further down. p_share of the places, evenly
-- spread and never the first unless p_share is 1, go to items that are drawn from the others without
-- replacement, with weights 1 / (1 + mass) (Efraimidis and Spirakis, Information Processing Letters 2006).
-- The same seed draws the same items for a user.
create or replace function rec_internal.explore(
    p_items text[], p_masses double precision[], p_k integer, p_share double precision,
    p_user_id text, p_seed integer default 0)
returns table (rank integer, place integer, explored boolean)
language sql immutable rows 10
set search_path from current
as $$
    with list as (
        select n.places, greatest(least(
            round((p_share * n.places)::numeric)::bigint, n.places - (p_share < 1)::integer), 0) as explored
        from (select least(p_k, coalesce(cardinality(p_items), 0))::bigint as places) n
    ), drawn as (
        select array_agg(d.place order by d.key, d.place) as places from (
            select i.place, -ln(h.uniform) * (1 + i.mass) as key
            from unnest(p_items, p_masses) with ordinality as i (item_id, mass, place)
            cross join lateral (
                select ((hashtextextended(i.item_id, hashtextextended(
                    coalesce(p_user_id, ''), coalesce(p_seed, 0))) & (2::bigint ^ 52 - 1)::bigint)
                    + 0.5::double precision) / 2 ^ 52 as uniform) h
            where i.place > (select l.places - l.explored from list l)
                and (select l.explored from list l) > 0
            order by key, i.place limit (select l.explored from list l)
        ) d
    )
    select t.rank::integer,
        case when t.turn > t.before then d.places[t.turn] else t.rank - t.turn end::integer,
        t.turn > t.before
    from drawn d cross join (
        select r.rank, r.rank * l.explored / l.places as turn,
            (r.rank - 1) * l.explored / l.places as before
        from list l cross join lateral generate_series(1, l.places) as r (rank)
    ) t
    order by t.rank;
$$;
