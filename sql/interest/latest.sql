-- The latest events of a user, and what is read from them.

-- The latest p_n events of a user as of p_as_of, in the order in which they count, the latest first. p_what
-- is `chosen` for events on an item whose kind has a positive weight, encoded or not; or, for events with a
-- vector, `for` (positive weight), `against` (negative weight) or `either`. An event that was dated after
-- its arrival counts as of its arrival; by its date it could stay the latest for years. So as many more
-- rows are read by date as there are such events.
create or replace function rec_internal.latest_events(
    p_user_id text, p_n integer, p_what text, p_as_of timestamptz default null)
returns table (
    place bigint, event_id bigint, at timestamptz, item_id text, weight double precision,
    embedding vector)
language sql stable rows 10
begin atomic
    select l.place, l.event_id, l.at, l.item_id, l.weight, l.embedding
    from (
        select d.event_id, d.at, d.item_id, d.weight, d.embedding,
            row_number() over (order by d.at desc, d.occurred_at desc, d.event_id desc) as place
        from (
            select e.* from rec_internal.event_vectors e
            where e.user_id = p_user_id and (p_as_of is null or e.at <= p_as_of)
                and case
                    when p_what = 'chosen' then e.chosen
                    when p_what = 'for' then e.weight > 0 and e.embedding is not null
                    when p_what = 'against' then e.weight < 0 and e.embedding is not null
                    when p_what = 'either' then e.weight <> 0 and e.embedding is not null
                end
            order by e.occurred_at desc, e.event_id desc
            limit p_n + (
                select count(*) from rec.events a
                where a.user_id = p_user_id and a.occurred_at > rec_internal.moment(p_as_of)
                    and a.received_at <= rec_internal.moment(p_as_of))
        ) d
    ) l
    order by l.place
    limit p_n;
end;

-- The items that a user has seen, {} if none: those with an event of a kind that marks its item as seen.
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

-- The items of the last p_n events in which a user chose an item, the latest first; {} if there are none.
create or replace function rec.latest_items(
    p_user_id text, p_n integer, p_as_of timestamptz default null)
returns text[] language sql stable
set search_path from current
set plan_cache_mode = force_generic_plan
as $$
    select coalesce(array_agg(l.item_id order by l.place), '{}')
    from rec_internal.latest_events(p_user_id, p_n, 'chosen', p_as_of) l;
$$;

-- The last `latest_items` positive events of a user, the latest first. Their weights fall by `latest_decay`
-- from one to the next, however much time lies between; the sum of the vectors with these weights is the
-- latest interest.
create or replace function rec_internal.latest_shares(
    p_user_id text, p_ranker rec.rankers, p_as_of timestamptz default null)
returns table (event_id bigint, embedding vector, weight double precision)
language sql stable
set search_path from current
as $$
    select l.event_id, l.embedding, (p_ranker).latest_decay ^ (l.place - 1)
    from rec_internal.latest_events(p_user_id, (p_ranker).latest_items, 'for', p_as_of) l
    order by l.place;
$$;

-- The vectors of the last `latest_items` negative events of a user, and their strengths, which decay by the
-- longest half-life.
create or replace function rec_internal.dislikes(
    p_user_id text, p_ranker rec.rankers, p_as_of timestamptz default null)
returns table (embedding vector, strength double precision)
language sql stable
set search_path from current
as $$
    select l.embedding, rec_internal.decay(
        rec_internal.moment(p_as_of) - l.at, (select max(h.half_life) from rec.horizons h))
    from rec_internal.latest_events(p_user_id, (p_ranker).latest_items, 'against', p_as_of) l
    where vector_norm(l.embedding) > 0;
$$;
