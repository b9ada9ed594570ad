-- Which items come into question for a user, and what speaks for each of them.

-- rec.seen_items(user, as_of) -> the items that he has seen
create or replace function rec.seen_items(p_user_id text, p_as_of timestamptz default null)
returns text[] language sql stable
set search_path from current
as $$
    -- The first half reads nothing but an index.
    select coalesce(array_agg(distinct e.item_id), '{}')
    from (
        select n.item_id, n.kind from rec.events n
        where p_as_of is null and n.user_id = p_user_id and n.item_id is not null
        union all
        select t.item_id, t.kind from rec.events t
        where p_as_of is not null and t.user_id = p_user_id and t.item_id is not null
            and least(t.occurred_at, t.received_at) <= p_as_of
    ) e
    where e.kind = any(array(select k.kind from rec.event_kinds k where k.marks_seen));
$$;
comment on function rec.seen_items is
    'The items on which the user has an event of a kind that marks as seen.';

-- rec.latest_items(user, n, as_of) -> the last n items that he chose, the latest first
create or replace function rec.latest_items(
    p_user_id text, p_n integer, p_as_of timestamptz default null)
returns text[] language sql stable
set search_path from current
as $$
    select coalesce(
        (array_agg(l.item_id order by l.at desc, l.occurred_at desc, l.event_id desc))[:p_n], '{}')
    from (
        select e.item_id, e.at, e.occurred_at, e.event_id from rec.chosen_events e
        where e.user_id = p_user_id and (p_as_of is null or e.at <= p_as_of)
        order by e.occurred_at desc, e.event_id desc limit p_n + rec.ahead(p_user_id, p_as_of)
    ) l;
$$;
comment on function rec.latest_items is 'The last items that the user chose, the latest first.';

-- rec.topics(user, as_of) -> the unrelated interests of a user: centre and share of the list
create or replace function rec.topics(p_user_id text, p_as_of timestamptz default null)
returns table (topic integer, centre vector, share double precision)
language plpgsql stable rows 5
set search_path from current
as $$
declare
    v_settings rec.settings;
    v_event record;
    v_centres vector[] := '{}';
    v_masses double precision[] := '{}';
    v_nearest integer;
    v_similarity double precision;
    v_other double precision;
begin
    select * into v_settings from rec.settings;
    for v_event in
        select l.embedding, l.weight,
            l.weight * (select sum(h.weight * rec.decay(rec.moment(p_as_of) - l.at, h.half_life))
                from rec.horizons h) as mass
        from (
            select e.*,
                row_number() over (order by e.at desc, e.occurred_at desc, e.event_id desc) as place
            from (
                select v.* from rec.event_vectors v
                where v.user_id = p_user_id and (p_as_of is null or v.at <= p_as_of)
                order by v.occurred_at desc, v.event_id desc
                limit v_settings.topic_events + rec.ahead(p_user_id, p_as_of)
            ) e
            order by place limit v_settings.topic_events
        ) l
        where l.embedding is not null and l.weight <> 0 and vector_norm(l.embedding) > 0
        order by l.weight < 0, l.place
    loop
        v_similarity := null;
        for v_place in 1..cardinality(v_centres) loop
            v_other := 1 - (v_centres[v_place] <=> v_event.embedding);
            if v_similarity is null or v_other > v_similarity then
                v_nearest := v_place;
                v_similarity := v_other;
            end if;
        end loop;
        if v_event.weight < 0 then
            if v_similarity >= v_settings.topic_similarity then
                v_masses[v_nearest] := v_masses[v_nearest] + v_event.mass;
            end if;
        elsif v_similarity >= v_settings.topic_similarity
            or cardinality(v_centres) >= v_settings.topics then
            v_centres[v_nearest] := v_centres[v_nearest] + rec.scaled(v_event.embedding, v_event.weight);
            v_masses[v_nearest] := v_masses[v_nearest] + v_event.mass;
        else
            v_centres := v_centres || rec.scaled(v_event.embedding, v_event.weight);
            v_masses := v_masses || v_event.mass;
        end if;
    end loop;
    return query
    select t.place::integer, t.centre,
        case when sum(greatest(t.mass, 0)) over () > 0
            then greatest(t.mass, 0) / sum(greatest(t.mass, 0)) over ()
            else 1.0::double precision / count(*) over () end
    from unnest(v_centres, v_masses) with ordinality as t (centre, mass, place);
end $$;
comment on function rec.topics is
    'The unrelated interests among the latest events, found by leader clustering, newest event '
    'first. The share of each is its part of the decayed weights; a dislike lessens it.';

-- rec.passing(items, n, domain, filter, exclude) -> the first n of these items that pass, in order
create or replace function rec.passing(
    p_items text[], p_n integer, p_domain text, p_filter jsonb, p_exclude text[])
returns table (item_id text)
language sql stable
set search_path from current
as $$
    -- The items are looked up one by one until there are enough.
    select t.item_id from (
        select u.item_id, u.place from unnest(p_items) with ordinality as u (item_id, place)
        where u.item_id not in (select unnest(p_exclude))
        order by u.place
    ) t
    cross join lateral (
        select from rec.items i
        where i.item_id = t.item_id and i.available
            and (p_domain is null or i.domain = p_domain)
            and (p_filter = '{}' or i.attributes @> p_filter)
        offset 0
    ) i
    order by t.place limit p_n;
$$;
comment on function rec.passing is
    'The first p_n of these items that are available, of the domain, with attributes that contain '
    'p_filter, and not excluded.';

-- rec.newest(n, domain, filter, exclude) -> the newest n items that pass, the newest first
create or replace function rec.newest(
    p_n integer, p_domain text, p_filter jsonb, p_exclude text[])
returns table (item_id text)
language plpgsql stable
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
begin
    if p_n = 0 then
        return;
    end if;
    return query
    select i.item_id from rec.items i
    where i.available
        and (p_domain is null or i.domain = p_domain)
        and (p_filter = '{}' or i.attributes @> p_filter)
        and i.item_id not in (select unnest(p_exclude))
    order by i.created_at desc, i.item_id limit p_n;
end $$;
comment on function rec.newest is
    'The newest available items of the domain, with attributes that contain p_filter, not excluded.';

-- rec.candidates(interests, next, companions, n, domain, filter, exclude) -> items in question, and their source
create or replace function rec.candidates(
    p_interests vector[], p_next text[], p_companions text[], p_n integer, p_domain text,
    p_filter jsonb, p_exclude text[])
returns table (item_id text, path text)
language sql stable
set search_path from current
as $$
    with found as (
        select n.item_id, n.path, 1 as source
        from rec.neighbours(p_interests, p_n, p_domain, p_filter, p_exclude) n
        union all
        select t.item_id, 'transition', 2
        from rec.passing(p_next, p_n, p_domain, p_filter, p_exclude) t
        union all
        select t.item_id, 'companion', 3
        from rec.passing(p_companions, p_n, p_domain, p_filter, p_exclude) t
        union all
        select p.item_id, 'trend', 4 from rec.popular(p_n, p_domain, p_filter, p_exclude) p
    ), best as materialized (
        select distinct on (f.item_id) f.item_id, f.path from found f order by f.item_id, f.source
    )
    select b.item_id, b.path from best b
    union all
    select n.item_id, 'newest'
    from rec.newest(
        (select case when s.exploration > 0 then p_n
            else greatest(p_n - (select count(*) from best b), 0)::integer end
        from rec.settings s),
        p_domain, p_filter,
        array(select unnest(p_exclude) union all select b.item_id from best b)) n;
$$;
comment on function rec.candidates is
    'Neighbours of each interest, the first of what people went on to and of what goes together with '
    'the latest items (both in the order of their strengths), what is trending, and the newest items: '
    'p_n of them if settings.exploration is not 0, else as many as the others are fewer than p_n.';
