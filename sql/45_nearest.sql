-- The vector search, over catalogue tables alone.

-- rec.nearest(query, n, domain, filter, exclude) -> the n available items closest by cosine, and the path
create or replace function rec.nearest(
    p_query vector, p_n integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude text[] default '{}')
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
    v_query halfvec;
    v_items text[];
    v_similarities double precision[];
    v_filtered boolean;
    v_few boolean;
begin
    if p_query is null or vector_norm(p_query) = 0 or rec.list_length(p_n) = 0 then
        return;
    end if;
    p_filter := rec.attribute_filter(p_filter);
    v_query := l2_normalize(p_query)::halfvec;
    v_filtered := p_domain is not null or p_filter <> '{}';
    -- The closest that pass a filter are further away than the closest of all.
    perform rec.prepare_search(v_filtered, p_n, case when v_filtered then 2 else 1 end);
    select rec.matches_few(s.exact_limit, p_domain, p_filter) into v_few from rec.settings s;
    if not v_few then
        select array_agg(h.item_id order by h.distance), array_agg(1 - h.distance order by h.distance)
        into v_items, v_similarities
        from (
            select v.item_id, v.embedding <=> v_query as distance
            from rec.item_vectors v
            join rec.items i on i.item_id = v.item_id
            where i.available
                and (p_domain is null or i.domain = p_domain)
                and (p_filter = '{}' or i.attributes @> p_filter)
                and (v.item_id = any(p_exclude)) is not true
            order by v.embedding <=> v_query
            limit p_n
        ) h;
        if cardinality(v_items) = p_n then
            return query select u.*, 'hnsw' from unnest(v_items, v_similarities) u;
            return;
        end if;
    end if;
    -- Few rows match, or the approximate scan gave up before it had p_n: compare all that match. Were
    -- the distance not materialized, the planner might take the order from the approximate index.
    return query
    with matching as materialized (
        select i.item_id from rec.items i
        where i.available
            and (p_domain is null or i.domain = p_domain)
            and (p_filter = '{}' or i.attributes @> p_filter)
            and (i.item_id = any(p_exclude)) is not true
    ), compared as materialized (
        select m.item_id, v.embedding <=> v_query as distance
        from matching m join rec.item_vectors v on v.item_id = m.item_id
    )
    select c.item_id, 1 - c.distance, 'exact'
    from compared c order by c.distance, c.item_id limit p_n;
end $$;
comment on function rec.nearest is
    'The p_n available items closest to a vector by cosine, of a domain and with attributes that '
    'contain p_filter. path says how they were found: hnsw, or exact where few rows match. Row-level '
    'policies hold, and a role to which they leave few rows gets all of these compared.';

-- rec.hides_items() -> whether row-level policies may hide items from the current role
create or replace function rec.hides_items()
returns boolean language sql stable
return row_security_active('rec.items') or row_security_active('rec.item_vectors');
comment on function rec.hides_items is
    'Whether row-level policies may hide items from the current role. The index gives rows that they '
    'hide, so it is looked through further then.';

-- rec.prepare_search(filtered, n, depth) -> nothing; how far searches for n items look through the index until
-- the function returns
create or replace function rec.prepare_search(
    p_filtered boolean, p_n integer, p_depth double precision)
returns void language sql stable
set search_path from current
as $$
    -- How many items pass a filter or a policy is known only to a plan of its own. One for all cases
    -- keeps to the index only if sorting is discouraged, and without enable_material = off it would
    -- read a small catalogue again for each candidate.
    select set_config(
            'plan_cache_mode', case when p_filtered or rec.hides_items()
                then 'force_custom_plan' else 'force_generic_plan' end, true),
        set_config(
            'enable_sort',
            case when p_filtered or rec.hides_items() then 'on' else 'off' end, true),
        set_config(
            'hnsw.ef_search', case when rec.hides_items() then 1000
                else least(greatest(s.ef_search * greatest(least(p_depth, 2), 0), p_n, 1), 1000)
            end::integer::text, true),
        set_config(
            'hnsw.iterative_scan',
            case when rec.hides_items() then 'relaxed_order' else 'strict_order' end, true)
    from rec.settings s;
$$;
comment on function rec.prepare_search is
    'Set how many candidates HNSW keeps: settings.ef_search times p_depth (at most 2), no fewer than '
    'p_n, and as many as there can be where policies hide items; and whether searches are planned '
    'anew, as those among a part of the items are. For a caller that has a set clause for each of these settings.';

-- rec.matches_few(limit, domain, filter) -> whether at most limit available items match
create or replace function rec.matches_few(p_limit integer, p_domain text, p_filter jsonb)
returns boolean language plpgsql stable
set search_path from current
set plan_cache_mode = force_generic_plan
as $$
begin
    -- Where all items match the index has none to skip, and is the faster way from a thousand on.
    if p_domain is null and p_filter = '{}' and not rec.hides_items() then
        return not exists (
            select from rec.items i where i.available offset least(p_limit, 1000));
    end if;
    perform set_config('plan_cache_mode', 'force_custom_plan', true);
    return not exists (
        select from rec.items i
        where i.available
            and (p_domain is null or i.domain = p_domain)
            and (p_filter = '{}' or i.attributes @> p_filter)
        offset p_limit);
end $$;
comment on function rec.matches_few is
    'Whether so few items match that comparing all of them is faster than the index.';

-- rec.similar_items(item, k, domain, filter) -> the items most like this one
create or replace function rec.similar_items(
    p_item_id text, p_k integer default 10, p_domain text default null, p_filter jsonb default '{}')
returns table (rank integer, item_id text, similarity double precision, path text)
language sql stable
set search_path from current
as $$
    select (row_number() over ())::integer, n.item_id, n.similarity, n.path
    from rec.nearest(
        (select v.embedding::vector from rec.item_vectors v where v.item_id = p_item_id),
        p_k, p_domain, p_filter, array[p_item_id]) n;
$$;
comment on function rec.similar_items is 'The items most like p_item_id, the most similar first.';
