-- How a search is planned, and how far it goes through the index.

-- Whether row-level policies may hide items from the current role. The index also returns rows that they
-- hide, so a search then has to go further through the index.
create or replace function rec_internal.hides_items()
returns boolean language sql stable
return row_security_active('rec.items') or row_security_active('rec.item_vectors');

-- Whether a filter or a policy leaves only a part of the items.
create or replace function rec_internal.is_partial(p_domain text, p_filter jsonb)
returns boolean language sql stable
return p_domain is not null or p_filter <> '{}' or rec_internal.hides_items();

-- If p_partial, plan the statements that follow for the values of their parameters, because only such a
-- plan can take into account how many items pass a filter or a policy. Otherwise plan them once for all
-- values; that plan uses the index only if sorting is discouraged. Call this only from a function with SET
-- clauses for plan_cache_mode and enable_sort; otherwise the settings leak into the caller's transaction.
create or replace function rec_internal.plan_for(p_partial boolean)
returns void language sql stable
set search_path from current
as $$
    select set_config(
            'plan_cache_mode',
            case when p_partial then 'force_custom_plan' else 'force_generic_plan' end, true),
        set_config('enable_sort', case when p_partial then 'on' else 'off' end, true);
$$;

-- Set how many candidates HNSW keeps in searches for p_n items: `ef_search` times p_depth, at least p_n, and the
-- maximum where policies hide items. The result is what was set before; hand it to restore_depth() before the
-- calling function returns. A SET clause would do the same, but without a superuser such a function cannot be
-- created, nor restored from a dump, before the library of pgvector is loaded.
create or replace function rec_internal.set_depth(
    p_ranker rec.rankers, p_n integer, p_depth double precision)
returns text[] language plpgsql stable
set search_path from current
as $$
declare
    v_before text[] := array[
        current_setting('hnsw.ef_search', true), current_setting('hnsw.iterative_scan', true)];
begin
    perform set_config(
            'hnsw.ef_search', case when rec_internal.hides_items() then 1000
                else least(greatest(p_ranker.ef_search * greatest(least(p_depth, 2), 0), p_n, 1), 1000)
            end::integer::text, true),
        set_config(
            'hnsw.iterative_scan',
            case when rec_internal.hides_items() then 'relaxed_order' else 'strict_order' end, true);
    return v_before;
end $$;

-- Set the depth of searches to what set_depth() found; to the defaults of pgvector where it was not loaded.
create or replace function rec_internal.restore_depth(p_before text[])
returns void language sql stable
set search_path from current
as $$
    select set_config('hnsw.ef_search', coalesce(p_before[1], '40'), true),
        set_config('hnsw.iterative_scan', coalesce(p_before[2], 'off'), true);
$$;

-- Whether at most p_limit items pass, so few that comparing all of them is faster than the index.
create or replace function rec_internal.matches_few(p_limit integer, p_domain text, p_filter jsonb)
returns boolean language plpgsql stable
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_sort = off
as $$
begin
    -- Without a filter the index skips no item, and is the faster way from a thousand items on.
    if not rec_internal.is_partial(p_domain, p_filter) then
        return not exists (
            select from rec.items i where i.available offset least(p_limit, 1000));
    end if;
    perform rec_internal.plan_for(true);
    return not exists (
        select from rec.items i where rec_internal.passes(i, p_domain, p_filter) offset p_limit);
end $$;
