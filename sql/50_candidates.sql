-- Which items come into question for a user, and what speaks for each of them.

-- rec.seen_items(user, as_of) -> the items that he has seen
create or replace function rec.seen_items(p_user_id text, p_as_of timestamptz default null)
returns text[] language sql stable
set search_path from current
as $$
    select coalesce(array_agg(distinct e.item_id), '{}')
    from rec.events e
    where e.user_id = p_user_id and e.item_id is not null
        and (p_as_of is null or least(e.occurred_at, e.received_at) <= p_as_of)
        and e.kind = any(array(select k.kind from rec.event_kinds k where k.marks_seen));
$$;
comment on function rec.seen_items is
    'The items on which the user has an event of a kind that marks as seen.';

-- rec.latest_items(user, n, as_of) -> the last n items that he chose, the latest first
create or replace function rec.latest_items(
    p_user_id text, p_n integer, p_as_of timestamptz default null)
returns text[] language sql stable
set search_path from current
as $$
    select coalesce(array_agg(l.item_id order by l.occurred_at desc, l.event_id desc), '{}')
    from (
        select e.item_id, e.occurred_at, e.event_id from rec.chosen_events e
        where e.user_id = p_user_id and (p_as_of is null or e.at <= p_as_of)
        order by e.occurred_at desc, e.event_id desc limit p_n
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
begin
    select * into v_settings from rec.settings;
    for v_event in
        select l.embedding, l.weight,
            l.weight * (select sum(h.weight * rec.decay(rec.moment(p_as_of) - l.at, h.half_life))
                from rec.horizons h) as mass
        from (
            select e.* from rec.event_vectors e
            where e.user_id = p_user_id and (p_as_of is null or e.at <= p_as_of)
            order by e.occurred_at desc, e.event_id desc limit v_settings.topic_events
        ) l
        where l.embedding is not null and l.weight <> 0 and vector_norm(l.embedding) > 0
        order by l.weight < 0, l.occurred_at desc, l.event_id desc
    loop
        select c.place, 1 - (c.centre <=> v_event.embedding) into v_nearest, v_similarity
        from unnest(v_centres) with ordinality as c (centre, place)
        order by c.centre <=> v_event.embedding, c.place limit 1;
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

-- rec.candidates(interests, latest, n, domain, filter, exclude, as_of) -> items in question, and their source
create or replace function rec.candidates(
    p_interests vector[], p_latest text[], p_n integer, p_domain text, p_filter jsonb,
    p_exclude text[], p_as_of timestamptz default null)
returns table (item_id text, path text)
language sql stable
set search_path from current
as $$
    with found as (
        select n.item_id, n.path, 1 as source
        from unnest(p_interests) as i (interest)
        cross join lateral rec.nearest(i.interest, p_n, p_domain, p_filter, p_exclude) n
        union all
        select t.item_id, 'transition', 2
        from rec.next_items(p_latest, p_n, p_domain, p_filter, p_exclude, p_as_of) t
        union all
        select t.item_id, 'companion', 3
        from rec.settings s
        cross join lateral rec.companion_items(
            p_latest, p_n, p_domain, p_filter, p_exclude, p_as_of) t
        where s.together_weight <> 0
        union all
        select p.item_id, 'trend', 4 from rec.popular(p_n, p_domain, p_filter, p_exclude) p
    ), best as (
        select distinct on (f.item_id) f.item_id, f.path from found f order by f.item_id, f.source
    )
    select b.item_id, b.path from best b
    union all
    (select i.item_id, 'newest' from rec.items i
    where i.available
        and (p_domain is null or i.domain = p_domain)
        and (p_filter = '{}' or i.attributes @> p_filter)
        and (i.item_id = any(p_exclude)) is not true
        and i.item_id not in (select b.item_id from best b)
    order by i.created_at desc, i.item_id
    limit (
        select case when s.exploration > 0 then p_n
            else greatest(p_n - (select count(*) from best), 0) end
        from rec.settings s));
$$;
comment on function rec.candidates is
    'Neighbours of each interest, what people went on to, what goes together with the latest items '
    'if settings.together_weight is not 0, what is trending, and the newest items: p_n of them if '
    'settings.exploration is not 0, else as many as the others are fewer than p_n.';
