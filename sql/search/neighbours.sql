-- The vector search for several directions at once.

-- The p_n available items closest by cosine to each of several vectors, in a domain and with attributes that
-- contain p_filter. Each item is returned once, and each direction searched once (directions with a cosine
-- above 0.999 count as one). path is `hnsw`, or `exact` where few items pass.
create or replace function rec_internal.neighbours(
    p_queries vector[], p_ranker rec.rankers, p_n integer, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}', p_depth double precision default 1)
returns table (item_id text, path text)
language plpgsql stable rows 500
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_sort = on
as $$
declare
    v_queries halfvec[];
    v_items text[];
begin
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
    -- The items that pass are read once for all directions, so comparing is worthwhile for more of them.
    if not rec_internal.matches_few(
        (p_ranker.exact_limit * sqrt(cardinality(v_queries)))::integer, p_domain, p_filter)
    then
        v_items := rec_internal.indexed_neighbours(
            v_queries, p_ranker, p_n, p_domain, p_filter, p_exclude, p_depth);
        if v_items is not null then
            return query select distinct u.item_id, 'hnsw' from unnest(v_items) as u (item_id);
            return;
        end if;
    end if;
    if rec_internal.is_partial(p_domain, p_filter) then
        perform rec_internal.plan_for(true);
    end if;
    -- Few items pass, or the approximate scan ended before it had p_n of them: compare all that pass.
    return query
    with matching as materialized (
        select i.item_id, v.embedding
        from rec.items i join rec.item_vectors v on v.item_id = i.item_id
        where rec_internal.passes(i, p_domain, p_filter)
            and i.item_id not in (
                select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
    )
    select /* exact search */ distinct n.item_id, 'exact'
    from unnest(v_queries) as q (query) cross join lateral (
        select m.item_id from matching m
        order by m.embedding <=> q.query, m.item_id limit p_n
    ) n;
end $$;

-- The p_n items that the index returns for each direction, found in one statement; NULL if it returns fewer
-- for one of them.
create or replace function rec_internal.indexed_neighbours(
    p_queries halfvec[], p_ranker rec.rankers, p_n integer, p_domain text, p_filter jsonb,
    p_exclude text[], p_depth double precision)
returns text[] language plpgsql stable
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_sort = off
set enable_material = off
as $$
declare
    v_before text[];
    v_items text[];
begin
    perform rec_internal.plan_for(rec_internal.is_partial(p_domain, p_filter));
    -- The best items of a list are among the closest of their directions, which are found first. So half of
    -- `ef_search` is enough; the closest items that pass a filter are further away than the closest of all.
    v_before := rec_internal.set_depth(p_ranker, p_n, p_depth
        * case when p_domain is not null or p_filter <> '{}' then 1 else 0.5 end);
    select array_agg(n.item_id) into v_items
    from unnest(p_queries) as q (query) cross join lateral (
        select /* search */ v.item_id from rec.item_vectors v
        join rec.items i on i.item_id = v.item_id
        where rec_internal.passes(i, p_domain, p_filter)
            and v.item_id not in (
                select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
        order by v.embedding <=> q.query
        limit p_n
    ) n;
    perform rec_internal.restore_depth(v_before);
    return case when cardinality(v_items) = p_n::bigint * cardinality(p_queries) then v_items end;
end $$;
