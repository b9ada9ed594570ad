-- Everything that is stored about a user, in one document.

-- A vector in words, as a JSON object: `items`, the five items closest to it, and `words`, the ten most
-- frequent tags of the closest twenty.
create or replace function rec_internal.in_words(p_vector vector)
returns jsonb language sql stable
set search_path from current
as $$
    with close as materialized (
        select n.item_id, n.similarity, i.title, i.tags
        from rec.nearest(p_vector, 20) n join rec.items i on i.item_id = n.item_id
    )
    select jsonb_build_object(
        'items', coalesce((
            select jsonb_agg(jsonb_build_object(
                'item_id', c.item_id, 'title', c.title, 'similarity', c.similarity)
                order by c.similarity desc, c.item_id)
            from (select * from close order by similarity desc, item_id limit 5) c), '[]'),
        'words', coalesce((
            select jsonb_agg(w.tag order by w.times desc, w.tag)
            from (
                select g.tag, count(*) as times from close c cross join lateral unnest(c.tags) as g (tag)
                group by g.tag order by times desc, g.tag limit 10
            ) w), '[]'));
$$;

-- The events of a user as a JSON array, oldest first: the part `events` of rec.export_user().
create or replace function rec_internal.export_events(p_user_id text)
returns jsonb language sql stable
set search_path from current
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'event_id', e.event_id, 'occurred_at', e.occurred_at, 'received_at', e.received_at,
        'kind', e.kind, 'item_id', e.item_id, 'title', i.title, 'text', e.text,
        'text_hash', e.text_hash, 'value', e.value, 'dedupe_key', e.dedupe_key,
        'queue', case when p.event_id is not null then jsonb_build_object(
            'enqueued_at', p.enqueued_at, 'attempts', p.attempts, 'retry_at', p.retry_at,
            'has_text', p.has_text, 'error', p.error) end)
        order by e.occurred_at, e.event_id), '[]')
    from rec.events e
    left join rec.items i on i.item_id = e.item_id
    left join rec_internal.pending p on p.user_id = p_user_id and p.event_id = e.event_id
    where e.user_id = p_user_id;
$$;

-- The interests of a user as a JSON array, shortest horizon first: the part `interests` of rec.export_user().
create or replace function rec_internal.export_interests(p_user_id text)
returns jsonb language sql stable
set search_path from current
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'horizon', k.horizon, 'weight', n.weight, 'mass', n.mass, 'as_of', n.as_of,
        'vector', n.interest::text,
        'stored', case when u.horizon is not null then jsonb_build_object(
            'mass', u.mass, 'as_of', u.as_of, 'vector', u.interest::text) end,
        'base', case when b.horizon is not null then jsonb_build_object(
            'mass', b.mass, 'as_of', b.as_of, 'vector', b.interest::text) end
        ) || rec_internal.in_words(n.interest) order by h.half_life), '[]')
    from (
        select u.horizon from rec.user_interests u where u.user_id = p_user_id
        union select b.horizon from rec_internal.interest_bases b where b.user_id = p_user_id
        union select c.horizon from rec_internal.current_sums(p_user_id) c
    ) k
    left join rec.horizons h using (horizon)
    left join rec.interest(p_user_id) n using (horizon)
    left join rec.user_interests u on u.user_id = p_user_id and u.horizon = k.horizon
    left join rec_internal.interest_bases b on b.user_id = p_user_id and b.horizon = k.horizon;
$$;

-- Everything that is stored about a user, as a JSON object. Its form changes only together with the value
-- of format, now "pgrec export 1". The other keys are: user_id. exported_at: a time. paused_at: the time
-- since which events of the user are not stored, or null. events, oldest first: event_id, occurred_at,
-- received_at, kind, item_id, title, text, text_hash, value, dedupe_key, and queue: null once the event is
-- folded, else enqueued_at, attempts, retry_at (infinity: parked), has_text, error. texts: text_hash and
-- vector of each text. interests, from stored and queued events together: horizon, weight in the mix, mass,
-- as_of, vector, items and words; stored and base: mass, as_of and vector as they are in the tables, or
-- null. topics: topic, share, items, words. dislikes: strength, items, words. seen_items: ids of items.
-- waiting_counts, which are not merged yet into popularity (from_item is null) and transitions: delta_id,
-- from_item, to_item, amount, at; merged counts name no user. Everywhere, items are the ones closest to a
-- vector (item_id, title, similarity), and words their most frequent tags.
create or replace function rec.export_user(p_user_id text)
returns jsonb language sql stable
set search_path from current
as $$
    select jsonb_build_object(
        'format', 'pgrec export 1',
        'user_id', p_user_id,
        'exported_at', now(),
        'paused_at', (select u.paused_at from rec_internal.paused_users u where u.user_id = p_user_id),
        'events', rec_internal.export_events(p_user_id),
        'texts', coalesce((
            select jsonb_agg(jsonb_build_object(
                'text_hash', t.text_hash, 'vector', t.embedding::text) order by t.text_hash)
            from rec_internal.texts t
            where t.text_hash in (
                select e.text_hash from rec.events e where e.user_id = p_user_id)), '[]'),
        'interests', rec_internal.export_interests(p_user_id),
        'topics', coalesce((
            select jsonb_agg(jsonb_build_object(
                'topic', t.topic, 'share', t.share) || rec_internal.in_words(t.centre) order by t.topic)
            from rec.topics(p_user_id) t), '[]'),
        'dislikes', coalesce((
            select jsonb_agg(jsonb_build_object(
                'strength', d.strength) || rec_internal.in_words(d.embedding) order by d.strength desc)
            from rec_internal.dislikes(p_user_id, rec_internal.ranker('default')) d), '[]'),
        'seen_items', to_jsonb(rec.seen_items(p_user_id)),
        'waiting_counts', coalesce((
            select jsonb_agg(jsonb_build_object(
                'delta_id', d.delta_id, 'from_item', f.from_item, 'to_item', d.to_item,
                'amount', f.amount, 'at', d.at) order by d.delta_id, f.place)
            from rec_internal.item_deltas d cross join lateral (
                select null as from_item, d.amount, 0 as place where d.amount <> 0
                union all
                select n.item_id, d.step / (cardinality(d.from_items) - n.place + 1), n.place
                from unnest(d.from_items) with ordinality as n (item_id, place)
            ) f where d.user_id = p_user_id), '[]'));
$$;
