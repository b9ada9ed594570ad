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
        from (
            select v.* from rec.event_vectors v
            where v.user_id = p_user_id and v.weight < 0 and v.embedding is not null
                and (p_as_of is null or v.at <= p_as_of)
            order by v.occurred_at desc, v.event_id desc
            limit (select s.latest_items from rec.settings s) + rec.ahead(p_user_id, p_as_of)
        ) e
        order by e.at desc, e.occurred_at desc, e.event_id desc
        limit (select s.latest_items from rec.settings s)
    ) l where vector_norm(l.embedding) > 0;
$$;
comment on function rec.dislikes is
    'The vectors of the last settings.latest_items negative events; their strengths fall by the '
    'longest half-life.';

-- rec.profile(user, as_of) -> all that is known of a user and that a score depends on, in one row
create or replace function rec.profile(
    p_user_id text, p_as_of timestamptz default null,
    out interests vector[], out content vector, out latest vector, out recent vector[],
    out disliked vector[], out strengths double precision[], out seen text[],
    out next_items text[], out next_strengths double precision[],
    out companions text[], out companion_strengths double precision[], out session double precision)
language plpgsql stable
set search_path from current
as $$
declare
    v_settings rec.settings;
    v_chosen text[];
begin
    select * into v_settings from rec.settings;
    select array_agg(i.interest) filter (where i.weight > 0),
        sum(rec.scaled(l2_normalize(i.interest), i.weight)) filter (where i.weight > 0),
        case when count(*) = 0 then 0 else v_settings.session_weight
            * rec.decay(rec.moment(p_as_of) - max(i.as_of), v_settings.session_half_life) end
    into interests, content, session
    from rec.interest(p_user_id, p_as_of) i;
    select sum(rec.scaled(l.embedding, l.weight)),
        array_agg(l2_normalize(l.embedding)) filter (where vector_norm(l.embedding) > 0)
    into latest, recent
    from rec.latest_shares(p_user_id, p_as_of) l;
    select array_agg(l2_normalize(d.embedding)), array_agg(d.strength) into disliked, strengths
    from rec.dislikes(p_user_id, p_as_of) d;
    seen := rec.seen_items(p_user_id, p_as_of);
    v_chosen := rec.latest_items(p_user_id, v_settings.latest_items, p_as_of);
    select array_agg(t.item_id order by t.strength desc, t.item_id),
        array_agg(t.strength order by t.strength desc, t.item_id)
    into next_items, next_strengths from rec.transitions(v_chosen, p_as_of) t;
    if v_settings.together_weight <> 0 then
        select array_agg(c.item_id order by c.strength desc, c.item_id),
            array_agg(c.strength order by c.strength desc, c.item_id)
        into companions, companion_strengths from rec.companions(v_chosen, p_as_of) c;
    end if;
end $$;
comment on function rec.profile is
    'The interests of a user that have a direction; their unit vectors mixed (content); the sum of '
    'the last events and their unit vectors (latest, recent); the unit vectors of what he disliked and '
    'their strengths; what he has seen; and, in the order of its strength, what people went on to from '
    'his latest items and what goes together with them, if settings.together_weight is not 0. session '
    'is what is left of settings.session_weight since his last event.';

-- rec.terms(items, profile, as_of) -> the terms of the score of each item
create or replace function rec.terms(
    p_items text[], p_content vector, p_latest vector, p_recent vector[], p_disliked vector[],
    p_strengths double precision[], p_seen text[], p_next text[],
    p_next_strengths double precision[], p_companions text[],
    p_companion_strengths double precision[], p_session double precision,
    p_as_of timestamptz default null)
returns table (
    place bigint, item_id text, score double precision, content double precision, latest double precision,
    closest double precision, transition double precision, together double precision,
    trend double precision, newness double precision, repeat double precision,
    aversion double precision)
language plpgsql stable rows 500
set search_path from current
as $$
begin
    if not coalesce(0 <= all(p_strengths) and 1e6 > all(p_strengths), true)
        or not coalesce(0 <= all(p_next_strengths) and 1e6 > all(p_next_strengths), true)
        or not coalesce(0 <= all(p_companion_strengths) and 1e6 > all(p_companion_strengths), true)
    then
        raise exception 'strengths must be between 0 and 1,000,000'
            using errcode = 'invalid_parameter_value';
    end if;
    p_session := coalesce(p_session, 0);
    if not p_session between 0 and 1 then
        raise exception 'the session must be between 0 and 1'
            using errcode = 'invalid_parameter_value';
    end if;
    p_latest := l2_normalize(p_latest);
    return query
    with unit as materialized (
        select extract(epoch from rec.moment(p_as_of))::double precision
            / rec.seconds(s.popularity_half_life) as moment
        from rec.settings s
    ), item as materialized (
        select c.item_id, c.place, l2_normalize(v.embedding::vector) as unit, p.log_mass
        from unnest(p_items) with ordinality as c (item_id, place)
        left join rec.item_vectors v on v.item_id = c.item_id
        left join rec.popularity p on p.item_id = c.item_id
    ), recent as materialized (
        select u.unit from unnest(p_recent) as u (unit)
    ), disliked as materialized (
        select u.unit, u.strength from unnest(p_disliked, p_strengths) as u (unit, strength)
    ), term as materialized (
        select c.place, c.item_id,
            coalesce(-(c.unit <#> p_content), 0) as content,
            coalesce(-(c.unit <#> p_latest), 0) as latest,
            coalesce((select max(-(c.unit <#> r.unit)) from recent r), 0) as closest,
            (1 + p_session) * coalesce(f.strength, 0) as transition,
            (1 + p_session) * coalesce(g.strength, 0) as together,
            (1 - p_session) * coalesce(ln(1 + rec.pow2(c.log_mass - n.moment)), 0) as trend,
            (1 - p_session) * (coalesce(c.log_mass, '-infinity') = '-infinity')::integer as newness,
            (c.item_id in (select unnest(p_seen)))::integer::double precision as repeat,
            coalesce((select max(greatest(-(c.unit <#> d.unit), 0) * d.strength)
                from disliked d), 0) as aversion
        from item c
        cross join unit n
        left join unnest(p_next, p_next_strengths) as f (item_id, strength)
            on f.item_id = c.item_id
        left join unnest(p_companions, p_companion_strengths) as g (item_id, strength)
            on g.item_id = c.item_id
    )
    select t.place, t.item_id,
        s.content_weight * t.content + s.latest_weight * t.latest + s.closest_weight * t.closest
        + s.transition_weight * t.transition + s.together_weight * t.together
        + s.trend_weight * t.trend + s.newness_weight * t.newness + s.repeat_weight * t.repeat
        - s.aversion_weight * t.aversion,
        t.content, t.latest, t.closest, t.transition, t.together, t.trend, t.newness, t.repeat,
        t.aversion
    from term t cross join rec.settings s;
end $$;
comment on function rec.terms is
    'The score of items, weighted by rec.settings, for one who is described by what rec.profile '
    'gives. place is that of the item in p_items.';

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
    select t.item_id, t.score, t.content, t.latest, t.closest, t.transition, t.together, t.trend,
        t.newness, t.repeat, t.aversion
    from rec.profile(p_user_id, p_as_of) u
    cross join lateral rec.terms(
        p_items, u.content, u.latest, u.recent, u.disliked, u.strengths, u.seen, u.next_items,
        u.next_strengths, u.companions, u.companion_strengths, u.session, p_as_of) t;
$$;
comment on function rec.score is
    'The score of items for a user, weighted by rec.settings: content (cosine to each horizon, '
    'mixed), latest (cosine to the last events), closest (the greatest cosine to any of them), '
    'transition (what people went on to), together (what they had shortly before or after; 0 while '
    'its weight is 0), trend (log of the decayed popularity), newness (1 if no event speaks for it '
    'yet), repeat (1 if seen), and aversion (cosine to what he disliked). In the middle of a visit '
    'transition and together are greater, and trend and newness smaller, by settings.session_weight.';
