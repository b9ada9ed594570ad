-- Loads a file: its rows are copied into a temporary table of the session, then merged many at a time.

-- Create the temporary table pg_temp.loaded_items, or empty it. Copy rows into it, call
-- rec_internal.settle_items() once, then rec_internal.merge_items() for each range of places. NULL in a
-- column leaves the value that an item has.
create or replace function rec_internal.stage_items()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    if to_regclass('pg_temp.loaded_items') is null then
        create temp table loaded_items (
            place bigint generated always as identity primary key,
            item_id text not null, domain text, title text, body text, attributes jsonb,
            tags text[], available boolean, created_at timestamptz);
    else
        truncate pg_temp.loaded_items restart identity;
    end if;
end $$;

-- Keep only the last copied row of each item, and return how many earlier rows were deleted.
create or replace function rec_internal.settle_items()
returns bigint language plpgsql volatile
set search_path from current
as $$
declare
    v_repeated bigint;
begin
    delete from pg_temp.loaded_items l
    using (
        select n.item_id, max(n.place) as place from pg_temp.loaded_items n
        group by n.item_id having count(*) > 1
    ) d
    where l.item_id = d.item_id and l.place < d.place;
    get diagnostics v_repeated = row_count;
    analyze pg_temp.loaded_items;
    return v_repeated;
end $$;

-- Insert and update items from the copied rows at places p_first to p_last, and return how many were
-- inserted, updated and unchanged. Unchanged items are not written. One session merges at a time.
create or replace function rec_internal.merge_items(p_first bigint, p_last bigint)
returns table (inserted bigint, updated bigint, unchanged bigint)
language plpgsql volatile
set search_path from current
as $$
begin
    perform pg_advisory_xact_lock(rec_internal.loading_items_lock());
    return query
    with loaded as materialized (
        select l.item_id, i.item_id is null as is_new,
            coalesce(l.domain, i.domain, 'default') as domain,
            coalesce(l.title, i.title, '') as title,
            coalesce(l.body, i.body, '') as body,
            coalesce(l.attributes, i.attributes, '{}') as attributes,
            coalesce(l.tags, i.tags, '{}') as tags,
            coalesce(l.available, i.available, true) as available,
            coalesce(l.created_at, i.created_at, now()) as created_at,
            (l.domain <> i.domain or l.title <> i.title or l.body <> i.body
                or l.attributes <> i.attributes or l.tags <> i.tags
                or l.available <> i.available or l.created_at <> i.created_at) as differs
        from pg_temp.loaded_items l left join rec.items i on i.item_id = l.item_id
        where l.place between p_first and p_last
    ), stored as (
        insert into rec.items (
            item_id, domain, title, body, attributes, tags, available, created_at)
        select l.item_id, l.domain, l.title, l.body, l.attributes, l.tags, l.available, l.created_at
        from loaded l where l.is_new or l.differs order by l.item_id
        on conflict (item_id) do update set
            domain = excluded.domain, title = excluded.title, body = excluded.body,
            attributes = excluded.attributes, tags = excluded.tags,
            available = excluded.available, created_at = excluded.created_at, updated_at = now()
    )
    select count(*) filter (where l.is_new), count(*) filter (where l.differs),
        count(*) filter (where not l.is_new and l.differs is not true)
    from loaded l;
end $$;

-- Create the temporary table pg_temp.loaded_events, or empty it. Copy rows into it, then call
-- rec_internal.merge_events().
create or replace function rec_internal.stage_events()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    if to_regclass('pg_temp.loaded_events') is null then
        create temp table loaded_events (
            place bigint generated always as identity,
            user_id text not null, item_id text, kind text not null, text text,
            value double precision, occurred_at timestamptz, dedupe_key text not null);
    else
        truncate pg_temp.loaded_events restart identity;
    end if;
end $$;

-- Append the copied events to the event log in the order of the file, empty the temporary table, and return
-- how many events were inserted. If several events of a user have the same dedupe key, the first counts; an
-- event whose dedupe key is in the log is skipped.
create or replace function rec_internal.merge_events()
returns bigint language plpgsql volatile
set search_path from current
as $$
declare
    v_inserted bigint;
begin
    perform pg_advisory_xact_lock(rec_internal.loading_events_lock());
    analyze pg_temp.loaded_events;
    insert into rec.events (user_id, item_id, kind, text, value, occurred_at, dedupe_key)
    select l.user_id, l.item_id, l.kind, l.text, l.value, coalesce(l.occurred_at, now()), l.dedupe_key
    from (
        select distinct on (d.user_id, d.dedupe_key) d.* from pg_temp.loaded_events d
        order by d.user_id, d.dedupe_key, d.place
    ) l
    -- The offset keeps this an index lookup for each row, however large the log grows.
    where not exists (
        select from rec.events e
        where e.user_id = l.user_id and e.dedupe_key = l.dedupe_key offset 0)
    order by l.place
    on conflict do nothing;
    get diagnostics v_inserted = row_count;
    truncate pg_temp.loaded_events restart identity;
    return v_inserted;
end $$;

-- Create the temporary table pg_temp.loaded_vectors, or empty it. Copy rows into it, then call
-- rec_internal.merge_vectors().
create or replace function rec_internal.stage_vectors()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    if to_regclass('pg_temp.loaded_vectors') is null then
        create temp table loaded_vectors (
            place bigint generated always as identity, item_id text not null,
            embedding halfvec not null);
    else
        truncate pg_temp.loaded_vectors restart identity;
    end if;
end $$;

-- Store the copied vectors as those of the present contents of their items, as if a worker had encoded
-- them, and empty the temporary table. Return how many were inserted, updated and unchanged, and how many
-- belong to no item. If several rows belong to one item, the last one counts. Parked events on these items
-- go back into the queue. It is an error if p_fingerprint is not that of the active encoder, or if the
-- vectors are being moved to another space.
create or replace function rec_internal.merge_vectors(p_fingerprint text)
returns table (inserted bigint, updated bigint, unchanged bigint, unknown bigint)
language plpgsql volatile
set search_path from current
as $$
begin
    perform rec_internal.share_space();
    perform rec_internal.check_encoder(p_fingerprint);
    analyze pg_temp.loaded_vectors;
    return query
    with loaded as materialized (
        select distinct on (l.item_id) l.item_id, l.embedding, i.content_hash,
            i.item_id is null as is_unknown, v.item_id is null as is_new,
            v.embedding is distinct from l.embedding or i.stale as differs
        from pg_temp.loaded_vectors l
        left join rec.items i on i.item_id = l.item_id
        left join rec.item_vectors v on v.item_id = l.item_id
        order by l.item_id, l.place desc
    ), stored as (
        insert into rec.item_vectors as v (item_id, embedding)
        select l.item_id, l.embedding from loaded l where l.differs and not l.is_unknown
        on conflict (item_id) do update set embedding = excluded.embedding
        where v.embedding <> excluded.embedding
    ), marked as (
        update rec.items i set encoded_hash = l.content_hash, encode_error = null
        from loaded l where i.item_id = l.item_id and l.differs
    )
    select count(*) filter (where l.is_new and not l.is_unknown),
        count(*) filter (where l.differs and not l.is_new),
        count(*) filter (where not l.differs and not l.is_unknown),
        count(*) filter (where l.is_unknown)
    from loaded l;
    if exists (select from rec_internal.pending p where rec_internal.is_parked(p)) then
        perform rec.retry(p_items => array(select l.item_id from pg_temp.loaded_vectors l));
    end if;
    truncate pg_temp.loaded_vectors restart identity;
end $$;
