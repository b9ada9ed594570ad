-- The unrelated interests of a user.

-- The unrelated interests among the latest `topic_events` events of a user, `topics` of them at most. They
-- are found by leader clustering: first the likes, then the dislikes, each from the newest to the oldest.
-- The share of a topic is its part of the decayed weights; a dislike reduces the share of the topic that is
-- closest to it.
create or replace function rec_internal.topics(
    p_user_id text, p_ranker rec.rankers, p_as_of timestamptz default null)
returns table (topic integer, centre vector, share double precision)
language plpgsql stable rows 5
set search_path from current
as $$
declare
    v_event record;
    v_centres vector[] := '{}';
    v_masses double precision[] := '{}';
    v_nearest integer;
    v_similarity double precision;
    v_other double precision;
begin
    for v_event in
        select l.embedding, l.weight,
            l.weight * (
                select sum(h.weight * rec_internal.decay(rec_internal.moment(p_as_of) - l.at, h.half_life))
                from rec.horizons h) as mass
        from rec_internal.latest_events(p_user_id, p_ranker.topic_events, 'either', p_as_of) l
        where vector_norm(l.embedding) > 0
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
            if v_similarity >= p_ranker.topic_similarity then
                v_masses[v_nearest] := v_masses[v_nearest] + v_event.mass;
            end if;
        elsif v_similarity >= p_ranker.topic_similarity
            or cardinality(v_centres) >= p_ranker.topics then
            v_centres[v_nearest] := v_centres[v_nearest]
                + rec_internal.scaled(v_event.embedding, v_event.weight);
            v_masses[v_nearest] := v_masses[v_nearest] + v_event.mass;
        else
            v_centres := v_centres || rec_internal.scaled(v_event.embedding, v_event.weight);
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

-- The unrelated interests of a user, found among the latest events: one row per topic with its centre, a
-- vector that need not have length 1, and the share of a list that the topic is due; the shares add up to 1.
-- A user without positive events has no rows. p_as_of gives the topics of a past moment.
create or replace function rec.topics(
    p_user_id text, p_as_of timestamptz default null, p_ranker text default 'default')
returns table (topic integer, centre vector, share double precision)
language sql stable rows 5
set search_path from current
set plan_cache_mode = force_generic_plan
as $$
    select t.topic, t.centre, t.share
    from rec_internal.topics(p_user_id, rec_internal.ranker(p_ranker), p_as_of) t;
$$;
