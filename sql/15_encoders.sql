-- What the worker needs in order to encode: which encoder holds here, what waits for a vector, and
-- where the vectors go. A vector is written only under the fingerprint of the active encoder.

-- rec.register_encoder(fingerprint, name, record, dims) -> fingerprint of the active encoder
create or replace function rec.register_encoder(
    p_fingerprint text, p_name text, p_record jsonb, p_dims integer)
returns text language plpgsql volatile
set search_path from current
as $$
declare
    v_dims integer;
begin
    perform pg_advisory_xact_lock(hashtextextended('rec.register_encoder', 0));
    if not exists (select from rec.encoders e where e.active) then
        select a.atttypmod into v_dims from pg_attribute a
        where a.attrelid = 'rec.item_vectors'::regclass and a.attname = 'embedding';
        if v_dims <> p_dims then
            raise exception 'the encoder gives % dimensions, the tables hold %', p_dims, v_dims
                using errcode = 'invalid_parameter_value',
                hint = 'Run `pgrec migrate` for a new database with the encoder that it shall use.';
        end if;
        insert into rec.encoders (fingerprint, name, record, dims, active)
        values (p_fingerprint, p_name, p_record, p_dims, true)
        on conflict (fingerprint) do update set active = true;
    end if;
    return (select e.fingerprint from rec.encoders e where e.active);
end $$;
comment on function rec.register_encoder is
    'Make this the active encoder if there is none yet, and return the fingerprint of the active one.';

-- rec.check_encoder(fingerprint) -> nothing, or the error that another encoder is active
create or replace function rec.check_encoder(p_fingerprint text)
returns void language plpgsql stable
set search_path from current
as $$
begin
    if not exists (select from rec.encoders e where e.active and e.fingerprint = p_fingerprint) then
        raise exception 'the vectors come from another encoder than the active one'
            using errcode = 'object_not_in_prerequisite_state',
            detail = format('fingerprint %s', coalesce(p_fingerprint, 'NULL')),
            hint = 'Vectors of two encoders are never compared. Start the worker with the active one.';
    end if;
end $$;
comment on function rec.check_encoder is 'Raise unless this is the fingerprint of the active encoder.';

-- rec.claim_items(limit) -> items without a vector of their content, each claimed by one session
create or replace function rec.claim_items(p_limit integer)
returns table (
    item_id text, title text, body text, attributes jsonb, tags text[], content_hash bytea)
language sql volatile
set search_path from current
as $$
    select i.item_id, left(i.title, 4800), left(i.body, 1600), i.attributes, i.tags, i.content_hash
    from rec.items i
    where i.stale
        and pg_try_advisory_xact_lock(hashtextextended(i.item_id, 1))
    limit p_limit;
$$;
comment on function rec.claim_items is
    'New and changed items, of title and body as much as an encoder ever reads. They are claimed until '
    'the end of the transaction by advisory locks, so that the application can go on updating them.';

-- rec.text_lock(hash) -> key of the advisory lock of whoever encodes a text or drops it
create or replace function rec.text_lock(p_hash bytea)
returns bigint language sql immutable parallel safe
return hashtextextended(encode(p_hash, 'hex'), 2);
comment on function rec.text_lock is
    'Key of the advisory lock under which a text is encoded, or dropped with its vector.';

-- rec.claim_texts(limit) -> texts of queued events that have no vector yet
create or replace function rec.claim_texts(p_limit integer)
returns table (text_hash bytea, text text, user_id text, event_id bigint)
language sql volatile
set search_path from current
as $$
    select w.text_hash, w.text, w.user_id, w.event_id
    from (
        select distinct on (e.text_hash) e.text_hash, e.text, e.user_id, e.event_id
        from (
            select p.user_id, p.event_id, p.occurred_at from rec.pending p
            where p.has_text
                and (p.retry_at <= now() or p.retry_at < 'infinity' and p.error is null)
        ) p
        join rec.events e using (user_id, occurred_at, event_id)
        where e.text is not null
            and not exists (select from rec.texts t where t.text_hash = e.text_hash)
        order by e.text_hash
    ) w
    where pg_try_advisory_xact_lock(rec.text_lock(w.text_hash))
    limit p_limit;
$$;
comment on function rec.claim_texts is
    'Texts of queued events without a vector, one event for each, claimed until the end of the '
    'transaction. An event that was put off for want of this vector need not wait for its turn.';

-- rec.store_items(fingerprint, items, hashes, embeddings) -> number of items that now have a vector
create or replace function rec.store_items(
    p_fingerprint text, p_items text[], p_hashes bytea[], p_embeddings halfvec[])
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_items text[];
begin
    perform rec.share_space();
    perform rec.check_encoder(p_fingerprint);
    with new as (
        select n.* from unnest(p_items, p_hashes, p_embeddings) as n (item_id, content_hash, embedding)
        join rec.items i using (item_id) order by n.item_id for key share of i
    ), stored as (
        insert into rec.item_vectors as v (item_id, embedding)
        select n.item_id, n.embedding from new n
        on conflict (item_id) do update set embedding = excluded.embedding
        where v.embedding <> excluded.embedding
    ), marked as (
        update rec.items i set encoded_hash = n.content_hash, encode_error = null
        from new n where i.item_id = n.item_id
        returning i.item_id
    )
    select array_agg(m.item_id) into v_items from marked m;
    if exists (select from rec.pending p where p.retry_at = 'infinity') then
        perform rec.retry(p_items => v_items);
    end if;
    return coalesce(cardinality(v_items), 0);
end $$;
comment on function rec.store_items is
    'Store the vectors of items. Events that were parked because the item was unknown are put back '
    'into the queue.';

-- rec.store_texts(fingerprint, hashes, embeddings) -> number of texts that now have a vector
create or replace function rec.store_texts(
    p_fingerprint text, p_hashes bytea[], p_embeddings halfvec[])
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_stored integer;
begin
    perform rec.share_space();
    perform rec.check_encoder(p_fingerprint);
    insert into rec.texts (text_hash, embedding)
    select n.text_hash, n.embedding
    from unnest(p_hashes, p_embeddings) as n (text_hash, embedding)
    where exists (select from rec.events e where e.text_hash = n.text_hash)
    order by n.text_hash
    on conflict (text_hash) do nothing;
    get diagnostics v_stored = row_count;
    return v_stored;
end $$;
comment on function rec.store_texts is
    'Store the vectors of texts under their hashes, unless the events were erased meanwhile.';

-- rec.fail_item(item, hash, error) -> nothing; the item has no vector until its content changes
create or replace function rec.fail_item(p_item_id text, p_hash bytea, p_error text)
returns void language sql volatile
set search_path from current
as $$
    delete from rec.item_vectors v where v.item_id = p_item_id;
    update rec.items i set encoded_hash = p_hash, encode_error = p_error where i.item_id = p_item_id;
$$;
comment on function rec.fail_item is
    'Note that this content of an item cannot be encoded; it is tried again when it changes or by '
    'rec.retry_items().';

-- rec.retry_items() -> number of items that could not be encoded and are tried again
create or replace function rec.retry_items()
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_retried integer;
begin
    update rec.items i set encoded_hash = null, encode_error = null where i.encode_error is not null;
    get diagnostics v_retried = row_count;
    perform rec.wake();
    return v_retried;
end $$;
comment on function rec.retry_items is 'Try the items again that could not be encoded.';

-- rec.wake() -> nothing; a sleeping worker looks at once
create or replace function rec.wake()
returns void language sql volatile
set search_path from current
as $$ select pg_notify('rec_events', ''); $$;
comment on function rec.wake is
    'Wake sleeping workers. Useful after changes to rec.items, which are otherwise found by polling.';
