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
set plan_cache_mode = force_generic_plan
as $$
declare
    v_ranker rec.rankers := rec_internal.ranker(p_ranker);
    v_query halfvec;
begin
    if p_query is null or vector_norm(p_query) = 0 or rec_internal.list_length(p_n) = 0 then
        return;
    end if;
    p_filter := rec_internal.attribute_filter(p_filter);
    v_query := l2_normalize(p_query)::halfvec;
    -- A single search has to find all of the closest, so it goes twice as far as one direction of a list. The
    -- distance is materialized; otherwise the planner might take the order from the approximate index.
    return query
    with found as materialized (
        select n.item_id, n.path, d.distance
        from rec_internal.neighbours(
            array[p_query], v_ranker, p_n, p_domain, p_filter, p_exclude, 2) n
        cross join lateral (
            select v.embedding <=> v_query as distance from rec.item_vectors v
            where v.item_id = n.item_id offset 0) d
    )
    select f.item_id, 1 - f.distance, f.path from found f order by f.distance, f.item_id limit p_n;
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
