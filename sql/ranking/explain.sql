-- Why items have their scores.

-- The shares that add up to the score of each item for a user: one row per past event, for its part in the
-- terms content, latest and closest (which belongs to the closest event, or to the latest of several
-- equally close ones); a row `earlier` for events that were dropped from the log; and one row for each
-- other term that is not 0. The greatest share of an item comes first.
create or replace function rec.explain_list(
    p_user_id text, p_items text[], p_as_of timestamptz default null,
    p_ranker text default 'default')
returns table (
    explained_item text, term text, share double precision, event_id bigint, occurred_at timestamptz,
    kind text, item_id text, title text, text text)
language plpgsql stable rows 100
set search_path from current
set plan_cache_mode = force_generic_plan
as $$
declare
    v_ranker rec.rankers := rec_internal.ranker(p_ranker);
begin
    return query
    with target as materialized (
        select distinct u.item_id, l2_normalize(v.embedding::vector) as unit
        from unnest(p_items) as u (item_id) left join rec.item_vectors v on v.item_id = u.item_id
    ), horizon as materialized (
        select i.horizon, i.as_of, h.half_life, i.weight / vector_norm(i.interest) as factor
        from rec.interest(p_user_id, p_as_of) i join rec.horizons h using (horizon)
        where i.weight > 0
    ), earlier as (
        select t.item_id, sum(h.factor * rec_internal.decay(h.as_of - b.as_of, h.half_life)
            * -(b.interest <#> t.unit)) as share
        from rec_internal.interest_bases b join horizon h using (horizon) cross join target t
        where b.user_id = p_user_id and (p_as_of is null or b.as_of <= p_as_of)
        group by t.item_id
    ), recent as materialized (
        select l.* from rec_internal.latest_shares(p_user_id, v_ranker, p_as_of)
            with ordinality as l (event_id, embedding, weight, place)
    ), latest as materialized (
        select r.event_id, r.weight / vector_norm(n.interest) as factor
        from recent r cross join (
            select sum(rec_internal.scaled(m.embedding, m.weight)) as interest from recent m) n
        where vector_norm(n.interest) > 0
    ), closest as materialized (
        select distinct on (t.item_id) t.item_id, r.event_id, 1 - (t.unit <=> r.embedding) as share
        from target t cross join recent r
        where t.unit is not null and vector_norm(r.embedding) > 0
        order by t.item_id, share desc, r.place
    ), event as materialized (
        select e.event_id, e.occurred_at, e.kind, e.item_id, i.title, e.text, e.embedding,
            e.weight * (
                select sum(h.factor * rec_internal.decay(h.as_of - e.at, h.half_life)) from horizon h
            ) as content, l.factor as latest
        from rec_internal.event_vectors e
        left join latest l using (event_id)
        left join rec.items i on i.item_id = e.item_id
        where e.user_id = p_user_id and e.embedding is not null and e.weight is not null
            and (p_as_of is null or e.at <= p_as_of)
    ), total as materialized (
        select s.* from rec.score(
            p_user_id, array(select t.item_id from target t), p_as_of, p_ranker) s
    )
    select t.item_id, 'event',
        v_ranker.content_weight * coalesce(e.content * c.cosine, 0)
        + v_ranker.latest_weight * coalesce(e.latest * c.cosine, 0)
        + v_ranker.closest_weight * coalesce(n.share, 0),
        e.event_id, e.occurred_at, e.kind, e.item_id, e.title, e.text
    from target t cross join event e
    cross join lateral (select -(e.embedding <#> t.unit) as cosine) c
    left join closest n on n.item_id = t.item_id and n.event_id = e.event_id
    where t.unit is not null
        and (e.content is not null or e.latest is not null or n.share is not null)
    union all
    select t.item_id, o.term, o.share, null, null, null, null, null, null
    from total t left join earlier a using (item_id) cross join lateral (values
        ('earlier', v_ranker.content_weight * a.share),
        ('transition', v_ranker.transition_weight * t.transition),
        ('together', v_ranker.together_weight * t.together),
        ('trend', v_ranker.trend_weight * t.trend),
        ('newness', v_ranker.newness_weight * t.newness),
        ('repeat', v_ranker.repeat_weight * t.repeat),
        ('aversion', -v_ranker.aversion_weight * t.aversion)
    ) as o (term, share)
    where o.share <> 0
    order by 1, 3 desc, 4;
end $$;

-- The shares that add up to the score of an item for a user, the greatest first: rec.explain_list() for one
-- item.
create or replace function rec.explain(
    p_user_id text, p_item_id text, p_as_of timestamptz default null,
    p_ranker text default 'default')
returns table (
    term text, share double precision, event_id bigint, occurred_at timestamptz, kind text,
    item_id text, title text, text text)
language sql stable
set search_path from current
as $$
    select l.term, l.share, l.event_id, l.occurred_at, l.kind, l.item_id, l.title, l.text
    from rec.explain_list(p_user_id, array[p_item_id], p_as_of, p_ranker) l
    order by l.share desc, l.event_id;
$$;
