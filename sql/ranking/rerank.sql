-- The order of a list: score, diversity, and a share for each topic.

-- The order of a list whose items are given in the order of their scores: their places in p_items, each
-- with its rank and its topic. The first `reranked` of them are picked one by one by diversify(); the
-- others follow in the given order. With neither diversity nor several topics to balance, all keep the
-- given order.
create or replace function rec_internal.rerank(
    p_items text[], p_scores double precision[], p_profile rec_internal.profile,
    p_ranker rec.rankers, p_k integer, p_diversity double precision)
returns table (place bigint, rank bigint, topic integer)
language plpgsql stable
set search_path from current
set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    with centre as materialized (
        select c.centre, c.topic::integer
        from unnest(p_profile.centres) with ordinality as c (centre, topic)
    ), item as materialized (
        select i.place, i.score, v.embedding, (
            select c.topic from centre c order by v.embedding::vector <=> c.centre limit 1) as topic
        from unnest(p_items, p_scores) with ordinality as i (item_id, score, place)
        left join rec.item_vectors v on v.item_id = i.item_id
    ), best as (
        select array_agg(i.score order by i.place) as scores,
            array_agg(i.embedding order by i.place) as embeddings,
            array_agg(i.topic order by i.place) as topics
        from item i where i.place <= p_ranker.reranked
        having p_diversity > 0 or p_ranker.balance > 0 and cardinality(p_profile.centres) > 1
    ), picked as (
        select d.pick, d.place from best b cross join lateral rec_internal.diversify(
            b.scores, b.embeddings, b.topics, p_profile.shares, p_k, p_diversity,
            p_ranker.balance) d
    )
    select i.place, row_number() over (order by p.pick, i.place), i.topic
    from item i left join picked p on p.place = i.place;
end $$;

-- The places of the items in the order in which they are picked. Each pick is the best by its score,
-- weighed against its similarity to the items already picked (maximal marginal relevance; Carbonell and
-- Goldstein, SIGIR 1998), and by how far its topic is from its share of the list (calibrated
-- recommendation; Steck, RecSys 2018).
create or replace function rec_internal.diversify(
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
