-- What a user may ask for: to see what is kept, to take an event back, to be forgotten.

-- rec.add_user_steps(user, sign) -> adds or takes back all that a user's folded events gave to others;
-- of all users if user is NULL
create or replace function rec.add_user_steps(p_user_id text, p_sign integer)
returns void language sql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
    with sequence as (
        select e.user_id, e.item_id, e.at, e.weight, array_agg(e.item_id) over (
            partition by e.user_id order by e.occurred_at, e.event_id
            rows between (select s.transition_window from rec.settings s) preceding and 1 preceding
        ) as previous
        from rec.folded_events e where p_user_id is null or e.user_id = p_user_id
    )
    insert into rec.item_deltas (user_id, from_item, to_item, amount, at)
    select s.user_id, null, s.item_id, p_sign * s.weight, s.at from sequence s where s.weight > 0
    union all
    select s.user_id, f.item_id, s.item_id,
        p_sign * 1.0::double precision / (cardinality(s.previous) - f.place + 1), s.at
    from sequence s cross join lateral unnest(s.previous) with ordinality as f (item_id, place);
$$;
comment on function rec.add_user_steps is
    'Record with p_sign all that the folded events of a user, or of all, give to popularity and '
    'transitions.';

-- rec.rebuild_collaborative() -> number of counts made anew from the event log
create or replace function rec.rebuild_collaborative()
returns integer language plpgsql volatile
set search_path from current
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('rec.merge_deltas', 0));
    delete from rec.item_deltas;
    delete from rec.popularity;
    delete from rec.item_transitions;
    perform rec.add_user_steps(null, 1);
    return rec.merge_deltas();
end $$;
comment on function rec.rebuild_collaborative is
    'Make popularity and transitions anew from the event log, for example after weights of event '
    'kinds or half-lives were changed.';

-- rec.lock_texts(user, event_id) -> hashes of the texts of a user, or of one event, which no worker is
-- encoding then nor begins to encode
create or replace function rec.lock_texts(p_user_id text, p_event_id bigint default null)
returns bytea[] language plpgsql volatile
set search_path from current
as $$
declare
    v_hashes bytea[];
begin
    select array_agg(distinct e.text_hash order by e.text_hash) into v_hashes
    from rec.events e
    where e.user_id = p_user_id and e.text_hash is not null
        and (p_event_id is null or e.event_id = p_event_id);
    perform pg_advisory_xact_lock(hashtextextended(encode(h.text_hash, 'hex'), 2))
    from unnest(v_hashes) with ordinality as h (text_hash, place);
    return v_hashes;
end $$;
comment on function rec.lock_texts is
    'Take the locks under which texts are encoded, so that no vector of an erased text is stored '
    'after the erasure.';

-- rec.drop_texts(hashes) -> number of text vectors dropped, of texts that no event holds any more
create or replace function rec.drop_texts(p_hashes bytea[])
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_dropped integer;
begin
    delete from rec.texts t
    where t.text_hash = any(p_hashes)
        and not exists (select from rec.events e where e.text_hash = t.text_hash);
    get diagnostics v_dropped = row_count;
    return v_dropped;
end $$;
comment on function rec.drop_texts is 'Drop the vectors of texts to which no event refers any more.';

-- rec.undo_event(user, event_id) -> whether there was such an event; nothing is left of it
create or replace function rec.undo_event(p_user_id text, p_event_id bigint)
returns boolean language plpgsql volatile
set search_path from current
as $$
declare
    v_hashes bytea[];
begin
    perform pg_advisory_xact_lock_shared(rec.space_lock());
    if not exists (
        select from rec.events e where e.user_id = p_user_id and e.event_id = p_event_id) then
        return false;
    end if;
    perform pg_advisory_xact_lock(rec.user_lock(p_user_id));
    v_hashes := rec.lock_texts(p_user_id, p_event_id);
    perform rec.add_user_steps(p_user_id, -1);
    delete from rec.pending p where p.user_id = p_user_id and p.event_id = p_event_id;
    delete from rec.events e where e.user_id = p_user_id and e.event_id = p_event_id;
    perform rec.add_user_steps(p_user_id, 1);
    perform rec.rebuild_user(p_user_id);
    perform rec.drop_texts(v_hashes);
    return true;
end $$;
comment on function rec.undo_event is
    'Take an event back: from the log, from the interests, and from the counts it went into.';

-- rec.forget_user(user) -> number of events erased; no table holds anything of the user afterwards
create or replace function rec.forget_user(p_user_id text)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_hashes bytea[];
    v_erased integer;
begin
    perform pg_advisory_xact_lock_shared(rec.space_lock());
    perform pg_advisory_xact_lock(rec.user_lock(p_user_id));
    v_hashes := rec.lock_texts(p_user_id);
    perform pg_advisory_xact_lock(hashtextextended('rec.merge_deltas', 0));
    perform rec.add_user_steps(p_user_id, -1);
    -- In one statement, so that both deletions see the same events.
    with erased as (
        delete from rec.events e where e.user_id = p_user_id returning e.event_id
    ), unqueued as (
        delete from rec.pending p where p.user_id = p_user_id
    )
    select count(*) into v_erased from erased e;
    perform rec.drop_texts(v_hashes);
    delete from rec.user_interests u where u.user_id = p_user_id;
    while exists (select from rec.item_deltas d where d.user_id = p_user_id) loop
        perform rec.merge_deltas();
    end loop;
    return v_erased;
end $$;
comment on function rec.forget_user is
    'Erase a user: events, interests, queue, vectors of texts that only he wrote, and what he added '
    'to popularity and transitions.';

-- rec.export_user(user) -> all that is kept of a user, as one JSON document
create or replace function rec.export_user(p_user_id text)
returns jsonb language sql stable
set search_path from current
as $$
    select jsonb_build_object(
        'user_id', p_user_id,
        'exported_at', now(),
        'events', coalesce((
            select jsonb_agg(jsonb_build_object(
                'event_id', e.event_id, 'occurred_at', e.occurred_at,
                'received_at', e.received_at, 'kind', e.kind, 'item_id', e.item_id,
                'title', i.title, 'text', e.text, 'value', e.value, 'dedupe_key', e.dedupe_key)
                order by e.occurred_at, e.event_id)
            from rec.events e left join rec.items i on i.item_id = e.item_id
            where e.user_id = p_user_id), '[]'),
        'interests', coalesce((
            select jsonb_agg(jsonb_build_object(
                'horizon', n.horizon, 'mass', n.mass, 'weight', n.weight, 'as_of', n.as_of,
                'closest_items', (
                    select jsonb_agg(jsonb_build_object(
                        'item_id', c.item_id, 'title', i.title, 'similarity', c.similarity))
                    from rec.nearest(n.interest, 5) c join rec.items i on i.item_id = c.item_id)))
            from rec.interest(p_user_id) n), '[]'),
        'pending', (select count(*) from rec.pending p where p.user_id = p_user_id));
$$;
comment on function rec.export_user is
    'All that is kept of a user: events, interests in readable form, and what is still queued.';
