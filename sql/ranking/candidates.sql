-- Which items compete for a place on a list.

-- The candidates for a list, each once. The sources are the rows of the union `found`, in the order in
-- which they claim an item: neighbours of each topic, horizon and of the latest events; what users went on
-- to; what goes together with the latest items; what is trending. The newest items fill the remaining
-- places, or are a source like the others if the ranker explores. Each source contributes `candidates`
-- items, or p_k if that is more.
create or replace function rec_internal.candidates(
    p_profile rec_internal.profile, p_ranker rec.rankers, p_k integer, p_domain text, p_filter jsonb,
    p_exclude text[])
returns table (item_id text, path text)
language sql stable
set search_path from current
as $$
    with size as materialized (
        select greatest((p_ranker).candidates, p_k) as n
    ), found as (
        select 1 as source, f.item_id, f.path
        from size s cross join lateral rec_internal.neighbours(
            (p_profile).centres || (p_profile).interests || (p_profile).latest,
            p_ranker, s.n, p_domain, p_filter, p_exclude) f
        union all
        select 2, f.item_id, 'transition'
        from size s cross join lateral rec_internal.passing(
            (p_profile).next_items, s.n, p_domain, p_filter, p_exclude) f
        union all
        select 3, f.item_id, 'companion'
        from size s cross join lateral rec_internal.passing(
            (p_profile).companions, s.n, p_domain, p_filter, p_exclude) f
        union all
        select 4, f.item_id, 'trend'
        from size s cross join lateral rec.popular(s.n, p_domain, p_filter, p_exclude) f
    ), best as materialized (
        select distinct on (f.item_id) f.item_id, f.path from found f order by f.item_id, f.source
    )
    select b.item_id, b.path from best b
    union all
    select n.item_id, 'newest'
    from rec_internal.newest(
        (select case when (p_ranker).exploration > 0 then s.n
            else greatest(s.n - (select count(*) from best b), 0)::integer end
        from size s),
        p_domain, p_filter,
        array(select unnest(p_exclude) union all select b.item_id from best b)) n;
$$;
