-- The vector search for several interests at once.

-- rec.neighbours(queries, n, domain, filter, exclude) -> the n items closest to each query, and the path
create or replace function rec.neighbours(
    p_queries vector[], p_n integer, p_domain text default null, p_filter jsonb default '{}',
    p_exclude text[] default '{}')
returns table (item_id text, path text)
language plpgsql stable rows 500
set search_path from current
set plan_cache_mode = force_generic_plan
as $$
declare
    v_queries halfvec[];
    v_items text[];
begin
    -- Directions that are all but equal have the same neighbours: the first of them is searched.
    with direction as materialized (
        select l2_normalize(u.query)::halfvec as query, u.place
        from unnest(p_queries) with ordinality as u (query, place) where vector_norm(u.query) > 0
    )
    select array_agg(d.query order by d.place) into v_queries
    from direction d
    where not exists (
        select from direction e where e.place < d.place and (e.query <=> d.query) < 0.001);
    if v_queries is null or p_n = 0 then
        return;
    end if;
    -- How many items pass a filter or a policy is known only to a plan of its own.
    if p_domain is not null or p_filter <> '{}' or rec.hides_items() then
        perform set_config('plan_cache_mode', 'force_custom_plan', true);
    end if;
    -- Those that match are read once for all directions, which pays for more of them.
    if not (
        select rec.matches_few(
            (s.exact_limit * sqrt(cardinality(v_queries)))::integer, p_domain, p_filter)
        from rec.settings s) then
        v_items := rec.indexed_neighbours(v_queries, p_n, p_domain, p_filter, p_exclude);
        if v_items is not null then
            return query select distinct u.item_id, 'hnsw' from unnest(v_items) as u (item_id);
            return;
        end if;
    end if;
    -- Few items match, or the approximate scan gave up before it had p_n: compare all that match.
    return query
    with matching as materialized (
        select i.item_id, v.embedding
        from rec.items i join rec.item_vectors v on v.item_id = i.item_id
        where i.available
            and (p_domain is null or i.domain = p_domain)
            and (p_filter = '{}' or i.attributes @> p_filter)
            and i.item_id not in (select unnest(p_exclude))
    )
    select distinct n.item_id, 'exact'
    from unnest(v_queries) as q (query) cross join lateral (
        select m.item_id from matching m
        order by m.embedding <=> q.query, m.item_id limit p_n
    ) n;
end $$;
comment on function rec.neighbours is
    'The p_n available items closest by cosine to each of some vectors, each item once and each '
    'direction once (up to a cosine of 0.999), of a domain '
    'and with attributes that contain p_filter. path is hnsw, or exact where few rows match.';

-- rec.indexed_neighbours(queries, n, domain, filter, exclude) -> n items for each query, NULL if it has fewer
create or replace function rec.indexed_neighbours(
    p_queries halfvec[], p_n integer, p_domain text, p_filter jsonb, p_exclude text[])
returns text[] language plpgsql stable
set search_path from current
set hnsw.iterative_scan = 'strict_order'
set hnsw.ef_search = 100
set plan_cache_mode = force_generic_plan
set enable_sort = off
set enable_material = off
as $$
declare
    v_filtered boolean;
    v_items text[];
begin
    -- The best of a list are among the closest of their directions, which are found first. So half as
    -- far is far enough, but for those that a filter leaves.
    v_filtered := p_domain is not null or p_filter <> '{}';
    perform rec.prepare_search(v_filtered, p_n, case when v_filtered then 1 else 0.5 end);
    -- What is to be left out is hashed once for all queries.
    select array_agg(n.item_id) into v_items
    from unnest(p_queries) as q (query) cross join lateral (
        select v.item_id from rec.item_vectors v
        join rec.items i on i.item_id = v.item_id
        where i.available
            and (p_domain is null or i.domain = p_domain)
            and (p_filter = '{}' or i.attributes @> p_filter)
            and v.item_id not in (select unnest(p_exclude))
        order by v.embedding <=> q.query
        limit p_n
    ) n;
    return case when cardinality(v_items) = p_n::bigint * cardinality(p_queries) then v_items end;
end $$;
comment on function rec.indexed_neighbours is
    'The items that the index gives for each query, in one statement; NULL if it gave fewer than '
    'p_n for one of them.';
