-- What speaks for an item.

-- rec.dislikes(user, as_of) -> the last events that speak against something, and their strengths
create or replace function rec.dislikes(p_user_id text, p_as_of timestamptz default null)
returns table (embedding vector, strength double precision)
language sql stable
set search_path from current
as $$
    select l.embedding, rec.decay(rec.moment(p_as_of) - l.at, l.half_life)
    from (
        select e.embedding, e.at, (select max(h.half_life) from rec.horizons h) as half_life
        from rec.event_vectors e
        where e.user_id = p_user_id and e.weight < 0 and e.embedding is not null
            and (p_as_of is null or e.at <= p_as_of)
        order by e.occurred_at desc, e.event_id desc
        limit (select s.latest_items from rec.settings s)
    ) l where vector_norm(l.embedding) > 0;
$$;
comment on function rec.dislikes is
    'The vectors of the last settings.latest_items negative events; their strengths fall by the '
    'longest half-life.';

-- rec.score(user, items, as_of) -> the terms of the score of each item for this user
create or replace function rec.score(
    p_user_id text, p_items text[], p_as_of timestamptz default null)
returns table (
    item_id text, score double precision, content double precision, latest double precision,
    closest double precision, transition double precision, together double precision,
    trend double precision, newness double precision, repeat double precision,
    aversion double precision)
language sql stable
set search_path from current
as $$
    with interest as materialized (
        select i.interest, i.weight from rec.interest(p_user_id, p_as_of) i
        where i.weight > 0
    ), recent as materialized (
        select l.embedding, l.weight from rec.latest_shares(p_user_id, p_as_of) l
    ), latest as materialized (
        select l.interest from (
            select sum(rec.scaled(r.embedding, r.weight)) as interest from recent r) l
        where vector_norm(l.interest) > 0
    ), pointed as materialized (
        select r.embedding from recent r where vector_norm(r.embedding) > 0
    ), disliked as materialized (
        select d.embedding, d.strength from rec.dislikes(p_user_id, p_as_of) d
    ), past as materialized (
        select rec.seen_items(p_user_id, p_as_of) as seen,
            rec.latest_items(p_user_id, s.latest_items, p_as_of) as chosen
        from rec.settings s
    ), following as materialized (
        select n.item_id, n.strength
        from past h cross join lateral rec.next_items(h.chosen, 1000, p_as_of => p_as_of) n
    ), companion as materialized (
        select n.item_id, n.strength
        from rec.settings s cross join past h
        cross join lateral rec.companion_items(h.chosen, 1000, p_as_of => p_as_of) n
        where s.together_weight <> 0
    ), item as materialized (
        select c.item_id, v.embedding::vector as embedding
        from unnest(p_items) as c (item_id) left join rec.item_vectors v on v.item_id = c.item_id
    ), term as materialized (
        select c.item_id,
            coalesce((select sum(i.weight * (1 - (c.embedding <=> i.interest))) from interest i), 0)
                as content,
            coalesce((select 1 - (c.embedding <=> l.interest) from latest l), 0) as latest,
            coalesce((select max(1 - (c.embedding <=> r.embedding)) from pointed r), 0) as closest,
            coalesce(f.strength, 0) as transition,
            coalesce(g.strength, 0) as together,
            coalesce(ln(1 + rec.mass_at(
                p.log_mass, n.popularity_half_life, rec.moment(p_as_of))), 0) as trend,
            (coalesce(p.log_mass, '-infinity') = '-infinity')::integer::double precision as newness,
            (c.item_id = any(h.seen))::integer::double precision as repeat,
            coalesce((select max(greatest(1 - (c.embedding <=> d.embedding), 0) * d.strength)
                from disliked d), 0) as aversion
        from item c
        cross join rec.settings n
        cross join past h
        left join following f on f.item_id = c.item_id
        left join companion g on g.item_id = c.item_id
        left join rec.popularity p on p.item_id = c.item_id
    )
    select t.item_id,
        s.content_weight * t.content + s.latest_weight * t.latest + s.closest_weight * t.closest
        + s.transition_weight * t.transition + s.together_weight * t.together
        + s.trend_weight * t.trend + s.newness_weight * t.newness + s.repeat_weight * t.repeat
        - s.aversion_weight * t.aversion,
        t.content, t.latest, t.closest, t.transition, t.together, t.trend, t.newness, t.repeat,
        t.aversion
    from term t cross join rec.settings s;
$$;
comment on function rec.score is
    'The score of items for a user, weighted by rec.settings: content (cosine to each horizon, '
    'mixed), latest (cosine to the last events), closest (the greatest cosine to any of them), '
    'transition (what people went on to), together (what they had shortly before or after; 0 while '
    'its weight is 0), trend (log of the decayed popularity), newness (1 if no event speaks for it '
    'yet), repeat (1 if seen), and aversion (cosine to what he disliked).';
