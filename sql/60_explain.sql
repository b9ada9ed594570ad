-- Why an item has its score.

-- rec.explain(user, item, as_of) -> the shares of which the score of the item is the sum
create or replace function rec.explain(
    p_user_id text, p_item_id text, p_as_of timestamptz default null)
returns table (
    term text, share double precision, event_id bigint, occurred_at timestamptz, kind text,
    item_id text, title text, text text)
language sql stable
set search_path from current
as $$
    with total as (
        select s.* from rec.score(p_user_id, array[p_item_id], p_as_of) s
    ), target as (
        select v.embedding::vector as embedding, vector_norm(v.embedding::vector) as norm
        from rec.item_vectors v where v.item_id = p_item_id
    ), horizon as (
        select i.horizon, i.as_of, h.half_life, i.weight / (vector_norm(i.interest) * t.norm) as factor
        from rec.interest(p_user_id, p_as_of) i join rec.horizons h using (horizon) cross join target t
        where i.weight > 0
    ), earlier as (
        select sum(h.factor * rec.decay(h.as_of - b.as_of, h.half_life)
            * -(b.interest <#> t.embedding)) as share
        from rec.interest_bases b join horizon h using (horizon) cross join target t
        where b.user_id = p_user_id and (p_as_of is null or b.as_of <= p_as_of)
    ), recent as materialized (
        select l.* from rec.latest_shares(p_user_id, p_as_of)
            with ordinality as l (event_id, embedding, weight, place)
    ), latest as (
        select r.event_id,
            r.weight * -(r.embedding <#> t.embedding) / (vector_norm(n.interest) * t.norm) as share
        from recent r cross join target t cross join (
            select sum(rec.scaled(m.embedding, m.weight)) as interest from recent m) n
        where vector_norm(n.interest) > 0
    ), closest as (
        select r.event_id, 1 - (t.embedding <=> r.embedding) as share
        from recent r cross join target t where vector_norm(r.embedding) > 0
        order by share desc, r.place limit 1
    ), event as (
        select e.event_id, e.occurred_at, e.kind, e.item_id, e.text,
            e.weight * -(e.embedding <#> t.embedding) * (
                select sum(h.factor * rec.decay(h.as_of - e.at, h.half_life)) from horizon h) as content,
            l.share as latest, c.share as closest
        from rec.event_vectors e cross join target t
        left join latest l using (event_id) left join closest c using (event_id)
        where e.user_id = p_user_id and e.embedding is not null and e.weight is not null
            and (p_as_of is null or e.at <= p_as_of)
    )
    select 'event',
        s.content_weight * coalesce(e.content, 0) + s.latest_weight * coalesce(e.latest, 0)
        + s.closest_weight * coalesce(e.closest, 0),
        e.event_id, e.occurred_at, e.kind, e.item_id, i.title, e.text
    from event e cross join rec.settings s left join rec.items i on i.item_id = e.item_id
    where e.content is not null or e.latest is not null or e.closest is not null
    union all
    select o.term, o.share, null, null, null, null, null, null
    from total t cross join rec.settings s cross join lateral (values
        ('earlier', s.content_weight * (select r.share from earlier r)),
        ('transition', s.transition_weight * t.transition),
        ('together', s.together_weight * t.together),
        ('trend', s.trend_weight * t.trend),
        ('newness', s.newness_weight * t.newness),
        ('repeat', s.repeat_weight * t.repeat),
        ('aversion', -s.aversion_weight * t.aversion)
    ) as o (term, share)
    where o.share <> 0
    order by 2 desc, 3;
$$;
comment on function rec.explain is
    'Splits the score of an item for a user into a share of each of his events, in the terms content, '
    'latest and closest (that of the closest event, the latest of several), of events that were dropped '
    'from the log (earlier), and the other terms; the shares add up to the score, the greatest first.';
