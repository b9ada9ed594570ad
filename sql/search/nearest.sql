-- The vector search for one direction. It reads only tables of the catalogue.

-- The p_n available items closest to a vector by cosine, in a domain and with attributes that contain
-- p_filter; none if the vector is NULL or zero. path says how they were found: `hnsw`, or `exact` where few
-- items pass. Row-level policies hold; if they leave only few items visible to a role, all of these are
-- compared.
create or replace function rec.nearest(
    p_query vector, p_n integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}', p_ranker text default 'default')
returns table (item_id text, similarity double precision, path text)
language plpgsql stable rows 60
set search_path from current
set hnsw.iterative_scan = 'strict_order'
set hnsw.ef_search = 100
set plan_cache_mode = force_generic_plan
set enable_sort = off
set enable_material = off
as $$
declare
    v_ranker rec.rankers := rec_internal.ranker(p_ranker);
    v_query halfvec;
    v_items text[];
    v_similarities double precision[];
begin
    if p_query is null or vector_norm(p_query) = 0 or rec_internal.list_length(p_n) = 0 then
        return;
    end if;
    p_filter := rec_internal.attribute_filter(p_filter);
    v_query := l2_normalize(p_query)::halfvec;
    -- The closest items that pass a filter are further away than the closest of all.
    perform rec_internal.prepare_search(v_ranker, p_domain, p_filter, p_n,
        case when p_domain is not null or p_filter <> '{}' then 2 else 1 end);
    if not rec_internal.matches_few(v_ranker.exact_limit, p_domain, p_filter) then
        select array_agg(h.item_id order by h.distance), array_agg(1 - h.distance order by h.distance)
        into v_items, v_similarities
        from (
            select /* search */ v.item_id, v.embedding <=> v_query as distance
            from rec.item_vectors v
            join rec.items i on i.item_id = v.item_id
            where rec_internal.passes(i, p_domain, p_filter)
                and v.item_id not in (select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
            order by v.embedding <=> v_query
            limit p_n
        ) h;
        if cardinality(v_items) = p_n then
            return query select u.*, 'hnsw' from unnest(v_items, v_similarities) u;
            return;
        end if;
    end if;
    -- Few items pass, or the approximate scan ended before it had p_n of them: compare all that pass. The
    -- distance is materialized; otherwise the planner might take the order from the approximate index.
    return query
    with matching as materialized (
        select i.item_id from rec.items i
        where rec_internal.passes(i, p_domain, p_filter)
            and i.item_id not in (select x.item_id from unnest(p_exclude) as x (item_id) where x.item_id is not null)
    ), compared as materialized (
        select m.item_id, v.embedding <=> v_query as distance
        from matching m join rec.item_vectors v on v.item_id = m.item_id
    )
    select /* exact search */ c.item_id, 1 - c.distance, 'exact'
    from compared c order by c.distance, c.item_id limit p_n;
end $$;

-- The p_k available items most like an item, the most similar first; none if the item is unknown or not
-- encoded yet.
create or replace function rec.similar_items(
    p_item_id text, p_k integer default 10, p_domain text default null, p_filter jsonb default '{}',
    p_ranker text default 'default')
returns table (rank integer, item_id text, similarity double precision, path text)
language sql stable
set search_path from current
as $$
    select (row_number() over ())::integer, n.item_id, n.similarity, n.path
    from rec.nearest(
        (select v.embedding::vector from rec.item_vectors v where v.item_id = p_item_id),
        p_k, p_domain, p_filter, array[p_item_id], p_ranker) n;
$$;
