-- Items and texts that wait for a vector: how a worker claims them and stores what it encoded. A claim is
-- an advisory lock of the session, so that no transaction is open while vectors are computed, the
-- application can go on updating items, and a crash leaves nothing claimed.

-- Up to p_limit new and changed items that have no vector of their present content, claimed by this session
-- until it calls release_claims(). title and body are cut to what an encoder reads at most: 4,800 and 1,600
-- characters. Attributes are the JSON text of those that an encoder reads. They are to be decoded item by
-- item, because a number may have more digits than a decoder accepts.
create or replace function rec_internal.claim_items(p_limit integer)
returns table (
    item_id text, title text, body text, attributes text, tags text[], content_hash bytea)
language sql volatile
set search_path from current
as $$
    select i.item_id, left(i.title, 4800), left(i.body, 1600),
        rec_internal.spoken_attributes(i.attributes)::text, i.tags, i.content_hash
    from rec.items i
    where i.stale
        and pg_try_advisory_lock(rec_internal.item_lock(i.item_id))
    limit p_limit;
$$;

-- Up to p_limit texts of queued events that have no vector yet, each with one of its events, claimed by this
-- session until it calls release_claims(). The events may be due or postponed; an event that was postponed
-- because this vector is missing need not become due first.
create or replace function rec_internal.claim_texts(p_limit integer)
returns table (text_hash bytea, text text, user_id text, event_id bigint)
language sql volatile
set search_path from current
as $$
    select w.text_hash, w.text, w.user_id, w.event_id
    from (
        select distinct on (e.text_hash) e.text_hash, e.text, e.user_id, e.event_id
        from (
            select p.user_id, p.event_id, p.occurred_at from rec_internal.pending p
            where p.has_text
                and (rec_internal.is_due(p) or rec_internal.is_waiting(p))
        ) p
        join rec.events e using (user_id, occurred_at, event_id)
        where e.text is not null
            and not exists (select from rec_internal.texts t where t.text_hash = e.text_hash)
        order by e.text_hash
    ) w
    where pg_try_advisory_lock(rec_internal.text_lock(w.text_hash))
    limit p_limit;
$$;

-- Release everything that this session has claimed.
create or replace function rec_internal.release_claims()
returns void language sql volatile
set search_path from current
as $$ select pg_advisory_unlock_all(); $$;

-- Store the vectors of items, and return how many items now have one; an item that was deleted meanwhile has
-- none. Parked events on these items go back into the queue. It is an error if p_fingerprint is not that of
-- the active encoder, or if the vectors are being moved to another space.
create or replace function rec_internal.store_items(
    p_fingerprint text, p_items text[], p_hashes bytea[], p_embeddings halfvec[])
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_items text[];
begin
    perform rec_internal.share_space();
    perform rec_internal.check_encoder(p_fingerprint);
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
    if exists (select from rec_internal.pending p where rec_internal.is_parked(p)) then
        perform rec.retry(p_items => v_items);
    end if;
    return coalesce(cardinality(v_items), 0);
end $$;

-- Store the vectors of texts under their hashes, and return how many were stored; a text whose events were
-- erased meanwhile, or that has a vector already, is skipped. It is an error if p_fingerprint is not that of
-- the active encoder, or if the vectors are being moved to another space.
create or replace function rec_internal.store_texts(
    p_fingerprint text, p_hashes bytea[], p_embeddings halfvec[])
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_stored integer;
begin
    perform rec_internal.share_space();
    perform rec_internal.check_encoder(p_fingerprint);
    insert into rec_internal.texts (text_hash, embedding)
    select n.text_hash, n.embedding
    from unnest(p_hashes, p_embeddings) as n (text_hash, embedding)
    where exists (select from rec.events e where e.text_hash = n.text_hash)
    order by n.text_hash
    on conflict (text_hash) do nothing;
    get diagnostics v_stored = row_count;
    return v_stored;
end $$;

-- Record that this content of an item cannot be encoded, and drop the vector of the item. The item is tried
-- again when its content changes, or by rec.retry_items().
create or replace function rec_internal.fail_item(p_item_id text, p_hash bytea, p_error text)
returns void language sql volatile
set search_path from current
as $$
    delete from rec.item_vectors v where v.item_id = p_item_id;
    update rec.items i set encoded_hash = p_hash, encode_error = p_error where i.item_id = p_item_id;
$$;

-- Let a worker try again to encode the items that could not be encoded, and return how many there are.
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
