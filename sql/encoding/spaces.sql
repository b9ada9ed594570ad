-- Moves all vectors to another space, as a calibration does, in one transaction: locking, counting,
-- copying, and rebuilding interests.

-- Keep all other sessions from storing vectors and interests, and from migrating, until the end of the
-- transaction. Events and items can still be read and written. Take this lock before every other lock. It is
-- an error if one of its parts is not granted within 60 seconds.
create or replace function rec_internal.lock_space()
returns void language plpgsql volatile
set search_path from current
set lock_timeout = '60s'
as $$
begin
    perform rec_internal.require_read_committed();
    perform pg_advisory_xact_lock(rec_internal.space_lock());
    perform pg_advisory_xact_lock(rec_internal.migrate_lock());
    -- This lock ends an autovacuum, which gives way only to a session that waits for a second;
    -- rec_internal.lock_vectors() never waits that long.
    lock table rec.items, rec.item_vectors, rec_internal.texts in share update exclusive mode;
end $$;

-- The numbers of items and of texts with a vector, of users with a stored interest, and of items that still
-- wait for a vector.
create or replace function rec_internal.vectors_to_move()
returns table (items bigint, texts bigint, users bigint, items_to_encode bigint)
language sql stable
set search_path from current
as $$
    select (select count(*) from rec.item_vectors), (select count(*) from rec_internal.texts),
        (select count(distinct u.user_id) from rec.user_interests u),
        (select count(*) from rec.items i where i.stale);
$$;

-- A uniform sample of p_limit vectors of items, in the binary form of halfvec. The sample is drawn by the
-- hash of the item_id, so that it is the same every time.
create or replace function rec_internal.sample_vectors(p_limit integer)
returns table (embedding bytea)
language sql stable
set search_path from current
as $$
    select halfvec_send(v.embedding) from rec.item_vectors v
    order by hashtextextended(v.item_id, 0), v.item_id limit p_limit;
$$;

-- The next p_limit vectors of items after p_item_id, in the order of item_id and in the binary form of
-- halfvec. Start with an empty p_item_id.
create or replace function rec_internal.item_vectors_after(p_item_id text, p_limit integer)
returns table (item_id text, embedding bytea)
language sql stable
set search_path from current
as $$
    select v.item_id, halfvec_send(v.embedding) from rec.item_vectors v
    where v.item_id > p_item_id order by v.item_id limit p_limit;
$$;

-- The next p_limit vectors of texts after p_hash, in the order of the hashes and in the binary form of
-- halfvec. Start with an empty p_hash.
create or replace function rec_internal.text_vectors_after(p_hash bytea, p_limit integer)
returns table (text_hash bytea, embedding bytea)
language sql stable
set search_path from current
as $$
    select t.text_hash, halfvec_send(t.embedding) from rec_internal.texts t
    where t.text_hash > p_hash order by t.text_hash limit p_limit;
$$;

-- The next p_limit users with a stored interest after p_user_id, in the order of user_id. Start with an
-- empty p_user_id.
create or replace function rec_internal.interested_after(p_user_id text, p_limit integer)
returns table (user_id text)
language sql stable
set search_path from current
as $$
    select distinct u.user_id from rec.user_interests u
    where u.user_id > p_user_id order by u.user_id limit p_limit;
$$;

-- Compute the stored interests of users again from their folded events and the moved vectors. The result is
-- what rec_internal.replay will give once the moved vectors are live.
create or replace function rec_internal.move_interests(p_users text[])
returns void language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
begin
    delete from rec.user_interests u where u.user_id = any(p_users);
    with event as materialized (
        select e.user_id, e.at, e.weight, e.embedding,
            max(e.at) over (partition by e.user_id) as as_of
        from rec_internal.event_vectors_next e
        where e.user_id = any(p_users) and e.embedding is not null and e.weight is not null
            and not exists (
                select from rec_internal.pending p
                where p.user_id = e.user_id and p.event_id = e.event_id)
    )
    insert into rec.user_interests (user_id, horizon, interest, mass, as_of)
    select e.user_id, h.horizon,
        sum(rec_internal.share(e.embedding, e.weight, e.as_of - e.at, h.half_life)),
        sum(rec_internal.share_mass(e.weight, e.as_of - e.at, h.half_life)),
        e.as_of
    from event e cross join rec.horizons h
    group by e.user_id, h.horizon, e.as_of;
end $$;

-- Activate the encoder that consists of the base encoder and this calibration, and return its fingerprint.
-- The base encoder is the one beneath the active encoder, or the active encoder itself if it is not
-- calibrated. If p_calibration is NULL, the base encoder alone becomes active. Interests lose the events that
-- were dropped from the log.
create or replace function rec_internal.activate_calibration(p_calibration bytea)
returns text language plpgsql volatile
set search_path from current
as $$
declare
    v_base rec_internal.encoders;
    v_fingerprint text;
begin
    select b.* into strict v_base
    from rec_internal.encoders e join rec_internal.encoders b on b.fingerprint = coalesce(e.base, e.fingerprint)
    where e.active;
    v_fingerprint := coalesce(
        encode(sha256(convert_to(v_base.fingerprint, 'UTF8') || p_calibration), 'hex'),
        v_base.fingerprint);
    insert into rec_internal.encoders (fingerprint, name, record, dims, base, calibration)
    select v_fingerprint, v_base.name || ', calibrated on the catalogue', v_base.record, v_base.dims,
        v_base.fingerprint, p_calibration
    where p_calibration is not null
    on conflict do nothing;
    -- A sum of vectors cannot be moved as single vectors can, so the sums of dropped events are deleted.
    delete from rec_internal.interest_bases;
    update rec_internal.encoders e set active = false where e.active;
    update rec_internal.encoders e set active = true where e.fingerprint = v_fingerprint;
    return v_fingerprint;
end $$;
