-- The terms of a score. To add one, follow docs/extending.md; a test names every place where it is missing.

-- The score of each item for a profile, and its terms. place is the place of the item in p_items; mass is its
-- decayed popularity, by which items are drawn for exploration.
create or replace function rec_internal.terms(
    p_items text[], p_profile rec_internal.profile, p_ranker rec.rankers,
    p_as_of timestamptz default null)
returns table (
    place bigint, item_id text, score double precision, content double precision,
    latest double precision, closest double precision, transition double precision,
    together double precision, trend double precision, newness double precision,
    repeat double precision, aversion double precision, mass double precision)
language plpgsql stable rows 500
set search_path from current
as $$
declare
    v_content vector := p_profile.content;
    v_latest vector := l2_normalize(p_profile.latest);
    v_more double precision := 1 + coalesce(p_profile.session, 0);
    v_less double precision := 1 - coalesce(p_profile.session, 0);
begin
    return query
    with unit as materialized (
        select extract(epoch from rec_internal.moment(p_as_of))::double precision
            / rec_internal.seconds(s.popularity_half_life) as moment
        from rec.settings s
    ), item as materialized (
        select c.item_id, c.place, l2_normalize(v.embedding::vector) as unit, p.log_mass
        from unnest(p_items) with ordinality as c (item_id, place)
        left join rec.item_vectors v on v.item_id = c.item_id
        left join rec_internal.popularity p on p.item_id = c.item_id
    ), recent as materialized (
        select u.unit from unnest(p_profile.recent) as u (unit)
    ), disliked as materialized (
        select u.unit, u.strength from unnest(p_profile.disliked, p_profile.strengths) as u (unit, strength)
    ), term as materialized (
        select c.place, c.item_id,
            coalesce(-(c.unit <#> v_content), 0) as content,
            coalesce(-(c.unit <#> v_latest), 0) as latest,
            coalesce((select max(-(c.unit <#> r.unit)) from recent r), 0) as closest,
            v_more * coalesce(f.strength, 0) as transition,
            v_more * coalesce(g.strength, 0) as together,
            coalesce(rec_internal.pow2(c.log_mass - n.moment), 0) as mass,
            v_less * (coalesce(c.log_mass, '-infinity') = '-infinity')::integer as newness,
            (c.item_id in (select unnest(p_profile.seen)))::integer::double precision as repeat,
            coalesce((select max(greatest(-(c.unit <#> d.unit), 0) * d.strength)
                from disliked d), 0) as aversion
        from item c
        cross join unit n
        left join unnest(p_profile.next_items, p_profile.next_strengths) as f (item_id, strength)
            on f.item_id = c.item_id
        left join unnest(p_profile.companions, p_profile.companion_strengths) as g (item_id, strength)
            on g.item_id = c.item_id
    )
    select t.place, t.item_id,
        p_ranker.content_weight * t.content + p_ranker.latest_weight * t.latest
        + p_ranker.closest_weight * t.closest + p_ranker.transition_weight * t.transition
        + p_ranker.together_weight * t.together + p_ranker.trend_weight * x.trend
        + p_ranker.newness_weight * t.newness + p_ranker.repeat_weight * t.repeat
        - p_ranker.aversion_weight * t.aversion,
        t.content, t.latest, t.closest, t.transition, t.together, x.trend, t.newness, t.repeat,
        t.aversion, t.mass
    from term t cross join lateral (select v_less * ln(1 + t.mass) as trend) x;
end $$;

-- The score of each item for a user, and its terms: content (cosine to each horizon, mixed), latest (cosine
-- to the last events), closest (the greatest cosine to any of them), transition (what users went on to),
-- together (what they had shortly before or after; 0 while its weight is 0), trend (log of the decayed
-- popularity), newness (1 while the item has no positive event), repeat (1 if seen) and aversion (cosine to
-- what the user disliked). The score is the sum of the terms, each times its weight in the ranker, with
-- aversion subtracted. In the middle of a visit, transition and together are greater, and trend and newness
-- smaller, by the ranker's session_weight.
create or replace function rec.score(
    p_user_id text, p_items text[], p_as_of timestamptz default null,
    p_ranker text default 'default')
returns table (
    item_id text, score double precision, content double precision, latest double precision,
    closest double precision, transition double precision, together double precision,
    trend double precision, newness double precision, repeat double precision,
    aversion double precision)
language sql stable
set search_path from current
set plan_cache_mode = force_generic_plan
as $$
    select t.item_id, t.score, t.content, t.latest, t.closest, t.transition, t.together, t.trend,
        t.newness, t.repeat, t.aversion
    from (select rec_internal.ranker(p_ranker) as ranker offset 0) r
    cross join lateral rec_internal.terms(
        p_items, rec_internal.profile_of(p_user_id, r.ranker, p_as_of), r.ranker, p_as_of) t;
$$;
