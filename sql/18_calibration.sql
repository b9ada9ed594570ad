-- Moving all vectors into another space, as a calibration does, in one transaction: who keeps out
-- meanwhile, what there is to move, and interests made anew. Vectors of two spaces are never compared.

-- rec.space_lock() -> key of the advisory lock of whoever moves the vectors into another space
create or replace function rec.space_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381876;
comment on function rec.space_lock() is
    'Key of the advisory lock that is held while vectors are moved into another space. Whoever stores '
    'vectors or interests shares it, and takes it before every other lock.';

-- rec.try_share_space() -> whether the vectors now stay in their space until the end of the transaction
create or replace function rec.try_share_space()
returns boolean language sql volatile
set search_path from current
as $$ select pg_try_advisory_xact_lock_shared(rec.space_lock()); $$;
comment on function rec.try_share_space is
    'Keep the vectors in their space until the end of the transaction; false if they are being moved '
    'at this moment.';

-- rec.share_space() -> nothing, or the error that the vectors are being moved; never waits
create or replace function rec.share_space()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    if not rec.try_share_space() then
        raise exception 'the vectors are being moved into another space'
            using errcode = 'lock_not_available',
            hint = 'Roll back, and try again when a calibration has ended.';
    end if;
end $$;
comment on function rec.share_space is
    'Keep the vectors in their space until the end of the transaction. It does not wait: a session '
    'that waited here with locks on the tables of vectors would never be let in.';

-- rec.active_encoder() -> the active encoder, the one beneath it, and the calibration between them
create or replace function rec.active_encoder()
returns table (fingerprint text, base text, calibration bytea, dims integer)
language sql stable
set search_path from current
as $$ select e.fingerprint, e.base, e.calibration, e.dims from rec.encoders e where e.active; $$;
comment on function rec.active_encoder is
    'The active encoder. Where the catalogue is calibrated, base is the encoder that reads the texts '
    'and calibration turns its vectors into those that are stored.';

-- rec.lock_space() -> nothing; until the end of the transaction nobody stores vectors or interests
create or replace function rec.lock_space()
returns void language plpgsql volatile
set search_path from current
set lock_timeout = '60s'
as $$
begin
    perform pg_advisory_xact_lock(rec.space_lock());
    perform pg_advisory_xact_lock(hashtextextended('rec.migrate', 0));
    -- An autovacuum gives way to someone who waits for long, which nobody does in rec.lock_vectors().
    lock table rec.items, rec.item_vectors, rec.texts in share update exclusive mode;
end $$;
comment on function rec.lock_space is
    'Keep everyone from storing vectors and interests, and from migrating. Readers and writers of '
    'events and items go on. Take it before every other lock.';

-- rec.vectors_to_move() -> how many there are, and how many items have no vector of their content yet
create or replace function rec.vectors_to_move()
returns table (items bigint, texts bigint, users bigint, items_to_encode bigint)
language sql stable
set search_path from current
as $$
    select (select count(*) from rec.item_vectors), (select count(*) from rec.texts),
        (select count(distinct u.user_id) from rec.user_interests u),
        (select count(*) from rec.items i where i.stale);
$$;
comment on function rec.vectors_to_move is
    'Numbers of items and texts with a vector, of users with an interest, and of items that wait.';

-- rec.sample_vectors(limit) -> vectors of items in binary form, the same uniform sample every time
create or replace function rec.sample_vectors(p_limit integer)
returns table (embedding bytea)
language sql stable
set search_path from current
as $$
    select halfvec_send(v.embedding) from rec.item_vectors v
    order by hashtextextended(v.item_id, 0), v.item_id limit p_limit;
$$;
comment on function rec.sample_vectors is
    'A uniform sample of the vectors of items, in the binary form of halfvec, drawn by the hash of '
    'the item_id.';

-- rec.item_vectors_after(item, limit) -> the next vectors of items, in binary form
create or replace function rec.item_vectors_after(p_item_id text, p_limit integer)
returns table (item_id text, embedding bytea)
language sql stable
set search_path from current
as $$
    select v.item_id, halfvec_send(v.embedding) from rec.item_vectors v
    where v.item_id > p_item_id order by v.item_id limit p_limit;
$$;
comment on function rec.item_vectors_after is
    'Vectors of items in the binary form of halfvec, by item_id; the empty one starts.';

-- rec.text_vectors_after(hash, limit) -> the next vectors of texts, in binary form
create or replace function rec.text_vectors_after(p_hash bytea, p_limit integer)
returns table (text_hash bytea, embedding bytea)
language sql stable
set search_path from current
as $$
    select t.text_hash, halfvec_send(t.embedding) from rec.texts t
    where t.text_hash > p_hash order by t.text_hash limit p_limit;
$$;
comment on function rec.text_vectors_after is
    'Vectors of texts in the binary form of halfvec, by hash; the empty one starts.';

-- rec.interested_after(user, limit) -> the next users with a stored interest
create or replace function rec.interested_after(p_user_id text, p_limit integer)
returns table (user_id text)
language sql stable
set search_path from current
as $$
    select distinct u.user_id from rec.user_interests u
    where u.user_id > p_user_id order by u.user_id limit p_limit;
$$;
comment on function rec.interested_after is
    'Users with a stored interest, by user_id; the empty one starts.';

-- rec.move_interests(users) -> nothing; their interests are those of the vectors beside the live ones
create or replace function rec.move_interests(p_users text[])
returns void language plpgsql volatile
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
begin
    delete from rec.user_interests u where u.user_id = any(p_users);
    with event as materialized (
        select e.user_id, e.at, e.weight, e.embedding,
            max(e.at) over (partition by e.user_id) as as_of
        from rec.event_vectors_next e
        where e.user_id = any(p_users) and e.embedding is not null and e.weight is not null
            and not exists (
                select from rec.pending p
                where p.user_id = e.user_id and p.event_id = e.event_id)
    )
    insert into rec.user_interests (user_id, horizon, interest, mass, as_of)
    select e.user_id, h.horizon,
        sum(rec.scaled(e.embedding, e.weight * rec.decay(e.as_of - e.at, h.half_life))),
        sum(abs(e.weight) * rec.decay(e.as_of - e.at, h.half_life)),
        e.as_of
    from event e cross join rec.horizons h
    group by e.user_id, h.horizon, e.as_of;
end $$;
comment on function rec.move_interests is
    'Make the stored interests of users anew from their folded events and the moved vectors: what '
    'rec.replay will give once these are live.';

-- rec.activate_calibration(calibration) -> fingerprint of the encoder that is active now
create or replace function rec.activate_calibration(p_calibration bytea)
returns text language plpgsql volatile
set search_path from current
as $$
declare
    v_base rec.encoders;
    v_fingerprint text;
begin
    select b.* into strict v_base
    from rec.encoders e join rec.encoders b on b.fingerprint = coalesce(e.base, e.fingerprint)
    where e.active;
    v_fingerprint := coalesce(
        encode(sha256(convert_to(v_base.fingerprint, 'UTF8') || p_calibration), 'hex'),
        v_base.fingerprint);
    insert into rec.encoders (fingerprint, name, record, dims, base, calibration)
    select v_fingerprint, v_base.name || ', calibrated on the catalogue', v_base.record, v_base.dims,
        v_base.fingerprint, p_calibration
    where p_calibration is not null
    on conflict do nothing;
    -- A sum of vectors cannot be moved as the vectors are; what was dropped from the log is lost here.
    delete from rec.interest_bases;
    update rec.encoders e set active = false where e.active;
    update rec.encoders e set active = true where e.fingerprint = v_fingerprint;
    return v_fingerprint;
end $$;
comment on function rec.activate_calibration is
    'Make the encoder beneath the active one, followed by this calibration, the active encoder; '
    'without a calibration, when p_calibration is NULL.';
