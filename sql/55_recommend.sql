-- The list.

-- rec.recommend(user, k, domain, filter, exclude_seen, diversity, as_of, seed) -> the list, with every
-- term of the score
create or replace function rec.recommend(
    p_user_id text, p_k integer default 10, p_domain text default null,
    p_filter jsonb default '{}', p_exclude_seen boolean default true,
    p_diversity double precision default null, p_as_of timestamptz default null,
    p_seed integer default 0)
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
    v_settings rec.settings;
    v_user record;
    v_centres vector[];
    v_shares double precision[];
    v_items text[];
    v_paths text[];
    v_reranked boolean;
begin
    p_k := rec.list_length(p_k);
    p_filter := rec.attribute_filter(p_filter);
    if not coalesce(p_diversity, 0) between 0 and 1 then
        raise exception 'diversity must be between 0 and 1'
            using errcode = 'invalid_parameter_value';
    end if;
    select * into v_settings from rec.settings;
    p_diversity := coalesce(p_diversity, v_settings.diversity);
    if p_diversity < 1e-100 then  -- its products would underflow
        p_diversity := 0;
    end if;
    select * into v_user from rec.profile(p_user_id, p_as_of);
    select array_agg(t.centre order by t.topic), array_agg(t.share order by t.topic)
    into v_centres, v_shares from rec.topics(p_user_id, p_as_of) t;
    -- One topic has the whole list anyway.
    v_reranked := p_diversity > 0 or v_settings.balance > 0 and cardinality(v_centres) > 1;
    select array_agg(c.item_id order by c.place), array_agg(c.path order by c.place)
    into v_items, v_paths
    from rec.candidates(
        v_centres || v_user.interests || v_user.latest, v_user.next_items, v_user.companions,
        greatest(v_settings.candidates, p_k), p_domain, p_filter,
        case when p_exclude_seen then v_user.seen else '{}' end)
        with ordinality as c (item_id, path, place);
    return query
    with centre as materialized (
        select u.centre, u.topic::integer from unnest(v_centres) with ordinality as u (centre, topic)
    ), scored as materialized (
        select t.*, row_number() over (order by t.score desc, t.place) as turn
        from rec.terms(
            v_items, v_user.content, v_user.latest, v_user.recent, v_user.disliked,
            v_user.strengths, v_user.seen, v_user.next_items, v_user.next_strengths,
            v_user.companions, v_user.companion_strengths, v_user.session, p_as_of) t
        -- An item further down has no chance unless places are drawn.
        order by t.score desc, t.place
        limit case when v_settings.exploration = 0
            then greatest(case when v_reranked then v_settings.reranked else 0 end, p_k) end
    ), best as (
        select array_agg(b.score order by b.turn) as scores,
            array_agg(b.embedding order by b.turn) as embeddings,
            array_agg(b.topic order by b.turn) as topics
        from (
            select s.turn, s.score, v.embedding, (
                select c.topic from centre c order by v.embedding::vector <=> c.centre limit 1) as topic
            from scored s left join rec.item_vectors v on v.item_id = s.item_id
            where s.turn <= v_settings.reranked and v_reranked
        ) b
        having v_reranked
    ), picked as (
        select d.pick, d.place from best b cross join lateral rec.diversify(
            b.scores, b.embeddings, b.topics, v_shares, p_k, p_diversity, v_settings.balance) d
    ), ordered as materialized (
        select s.*, row_number() over (order by p.pick, s.turn) as rank
        from scored s left join picked p on p.place = s.turn
    )
    select e.rank, o.item_id, o.score, o.content, o.latest, o.closest, o.transition, o.together,
        o.trend, o.newness, o.repeat, o.aversion,
        (select c.topic from centre c order by v.embedding::vector <=> c.centre limit 1),
        case when e.explored then 'explore' else v_paths[o.place] end
    from rec.explore(
        (select array_agg(o.item_id order by o.rank) from ordered o),
        (select array_agg(exp(o.trend / (1 - v_user.session)) - 1 order by o.rank) from ordered o),
        p_k, v_settings.exploration, p_user_id, p_seed) e
    join ordered o on o.rank = e.place
    left join rec.item_vectors v on v.item_id = o.item_id and cardinality(v_centres) > 1
    order by e.rank;
end $$;
comment on function rec.recommend is
    'The p_k best items for a user, diverse and shared out over his interests, seen items left out. '
    'Reflects every event that the calling transaction can see, folded or not. Exactly p_k rows '
    'come back if as many items qualify; path says how each was found. p_as_of gives the list that '
    'the events up to a past moment make, with the items and counts of today. settings.exploration '
    'is the share of the list that goes to items with few exposures, drawn anew for each p_seed.';

-- rec.diversify(scores, embeddings, topics, shares, k, diversity, balance) -> places in the order of picking
create or replace function rec.diversify(
    p_scores double precision[], p_embeddings halfvec[], p_topics integer[],
    p_shares double precision[], p_k integer, p_diversity double precision,
    p_balance double precision)
returns table (pick integer, place integer)
language plpgsql immutable
set search_path from current
as $$
declare
    v_closest double precision[] := array_fill(0::double precision, array[cardinality(p_scores)]);
    v_counts integer[] := array_fill(0, array[greatest(cardinality(p_shares), 1)]);
    v_left double precision[];
begin
    select array_agg(case when max_score > min_score
        then (s.score - min_score) / (max_score - min_score) else 1 end order by s.place)
    into v_left
    from (select u.score, u.place, max(u.score) over () as max_score, min(u.score) over () as min_score
        from unnest(p_scores) with ordinality as u (score, place)) s;
    for v_pick in 1..least(p_k, cardinality(p_scores)) loop
        select c.place into place
        from unnest(v_left, v_closest, p_topics) with ordinality as c (score, closest, topic, place)
        where c.score is not null
        order by (1 - p_diversity) * c.score - p_diversity * c.closest
            + p_balance * coalesce(p_shares[c.topic] * v_pick - v_counts[c.topic], 0) desc, c.place
        limit 1;
        pick := v_pick;
        return next;
        v_left[place] := null;
        if p_topics[place] is not null then
            v_counts[p_topics[place]] := v_counts[p_topics[place]] + 1;
        end if;
        if p_diversity > 0 and v_pick < p_k then
            select array_agg(greatest(c.closest, 1 - (c.embedding <=> p_embeddings[diversify.place]), 0)
                order by c.place)
            into v_closest
            from unnest(v_closest, p_embeddings) with ordinality as c (closest, embedding, place);
        end if;
    end loop;
end $$;
comment on function rec.diversify is
    'Greedy order that trades the score against similarity to what is picked already (maximal '
    'marginal relevance; Carbonell and Goldstein, SIGIR 1998) and gives each topic its share of '
    'the list (calibrated recommendation; Steck, RecSys 2018).';

-- rec.explore(items, masses, k, share, user, seed) -> places of items in the order of the list
create or replace function rec.explore(
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
comment on function rec.explore is
    'Gives a share of the first p_k places, evenly spread and never the first unless it is 1, to '
    'items that are drawn from the others without replacement, with weights 1 / (1 + mass) (Efraimidis '
    'and Spirakis, Information Processing Letters 2006). The same seed draws the same for a user.';
