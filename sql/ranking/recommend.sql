-- The list.

-- The p_k best available items for a user, in the order in which to show them, with the terms of their
-- scores. The list is diverse and divided among the topics of the user, and seen items are left out unless
-- p_exclude_seen is false. It reflects every event that the calling transaction can see, folded or not.
-- Exactly p_k rows come back if as many items qualify; path says how each was found. p_as_of gives the list
-- that follows from the events up to a past moment, with the items and counts of today. Another p_seed
-- draws other items for the places that `exploration` gives to items that few users have chosen.
create or replace function rec.recommend(
    p_user_id text, p_k integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude_seen boolean default true,
    p_diversity double precision default null, p_as_of timestamptz default null,
    p_seed integer default 0, p_ranker text default 'default')
returns table (
    rank integer, item_id text, score double precision, content double precision,
    latest double precision, closest double precision, transition double precision,
    together double precision, trend double precision, newness double precision,
    repeat double precision, aversion double precision, topic integer, path text)
language plpgsql stable rows 10
set search_path from current
set plan_cache_mode = force_generic_plan
set max_parallel_workers_per_gather = 0
set jit = off
as $$
declare
    v_ranker rec.rankers := rec_internal.ranker(p_ranker);
    v_profile rec_internal.profile;
    v_diversity double precision := rec_internal.diversity(p_diversity, v_ranker);
    v_items text[];
    v_paths text[];
begin
    p_k := rec_internal.list_length(p_k);
    p_filter := rec_internal.attribute_filter(p_filter);
    v_profile := rec_internal.profile_of(p_user_id, v_ranker, p_as_of);
    select array_agg(c.item_id order by c.place), array_agg(c.path order by c.place)
    into v_items, v_paths
    from rec_internal.candidates(
        v_profile, v_ranker, p_k, p_domain, p_filter,
        case when p_exclude_seen then v_profile.seen else '{}' end)
        with ordinality as c (item_id, path, place);
    return query
    with scored as materialized (
        select t.*, row_number() over (order by t.score desc, t.place) as turn
        from rec_internal.terms(v_items, v_profile, v_ranker, p_as_of) t
        order by t.score desc, t.place
        -- Items further down can reach the list only through exploration.
        limit case when v_ranker.exploration = 0 then greatest(v_ranker.reranked, p_k) end
    ), ranked as materialized (
        select s.*, r.rank, r.topic
        from rec_internal.rerank(
            (select array_agg(s.item_id order by s.turn) from scored s),
            (select array_agg(s.score order by s.turn) from scored s),
            v_profile, v_ranker, p_k, v_diversity) r
        join scored s on s.turn = r.place
    )
    select e.rank, r.item_id, r.score, r.content, r.latest, r.closest, r.transition, r.together,
        r.trend, r.newness, r.repeat, r.aversion, r.topic,
        case when e.explored then 'explore' else v_paths[r.place] end
    from rec_internal.explore(
        (select array_agg(r.item_id order by r.rank) from ranked r),
        (select array_agg(r.mass order by r.rank) from ranked r),
        p_k, v_ranker.exploration, p_user_id, p_seed) e
    join ranked r on r.rank = e.place
    order by e.rank;
end $$;
