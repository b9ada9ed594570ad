-- The event log is append-only. Stored interests and counts are sums over the events, so an event that
-- changed or vanished would leave them wrong.

-- Trigger of rec.events: refuse an UPDATE of anything but text, which may be set to NULL; its hash stays.
create or replace function rec_internal.refuse_rewrite()
returns trigger language plpgsql
set search_path from current
as $$
begin
    raise exception 'a logged event cannot be changed'
        using errcode = 'restrict_violation',
        detail = 'Only the text of an event may be changed, to NULL.',
        hint = 'Undo it with rec.undo_event(user_id, event_id), then insert the correct event.';
end $$;

create or replace trigger refuse_rewrite before update on rec.events
for each row when (
    (old.user_id, old.event_id, old.item_id, old.kind, old.value, old.text_hash, old.dedupe_key,
        old.occurred_at, old.received_at)
    is distinct from
    (new.user_id, new.event_id, new.item_id, new.kind, new.value, new.text_hash, new.dedupe_key,
        new.occurred_at, new.received_at)
    or (new.text is not null and new.text is distinct from old.text))
execute function rec_internal.refuse_rewrite();

-- Trigger of rec.events: refuse to drop a text while its event waits for the vector of the text, because the
-- event would then wait for ever.
create or replace function rec_internal.keep_unread()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    if exists (select from rec_internal.pending p where p.user_id = old.user_id and p.event_id = old.event_id)
        and not exists (select from rec_internal.texts t where t.text_hash = old.text_hash)
    then
        raise exception 'the text of event % is not encoded yet', old.event_id
            using errcode = 'restrict_violation',
            hint = 'Drop it once the event is folded, or undo the whole event with '
                'rec.undo_event(user_id, event_id).';
    end if;
    return new;
end $$;

create or replace trigger keep_unread before update of text on rec.events
for each row when (old.text is not null and new.text is null)
execute function rec_internal.keep_unread();

-- Trigger of rec.events: remove a deleted event from the queue, and refuse to delete a folded event. Only
-- rec.undo_event and rec.forget_user delete folded events, because they correct interests and counts, too.
create or replace function rec_internal.unqueue()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    delete from rec_internal.pending p where p.user_id = old.user_id and p.event_id = old.event_id;
    if not found then
        raise exception 'event % is folded and cannot be deleted', old.event_id
            using errcode = 'restrict_violation',
            hint = 'Use rec.undo_event(user_id, event_id), or rec.forget_user(user_id) for all events of '
                'a user: both correct interests and counts, too.';
    end if;
    delete from rec_internal.dedupe_keys k
    where k.user_id = old.user_id and k.dedupe_key = old.dedupe_key;
    return old;
end $$;

create or replace trigger unqueue before delete on rec.events
for each row when (coalesce(current_setting('rec_internal.erasing', true), '') <> 'on')
execute function rec_internal.unqueue();

-- Allow this transaction to delete folded events from rec.events, or stop allowing it. This is meant for
-- functions that correct stored interests and counts themselves, as rec.undo_event does, or that move rows
-- from one partition to another.
create or replace function rec_internal.erasing(p_on boolean)
returns void language sql volatile
set search_path from current
as $$ select set_config('rec_internal.erasing', case when p_on then 'on' else '' end, true); $$;

-- Trigger of rec.events: a TRUNCATE also empties what was derived from the events: the queue, interests,
-- counts and the vectors of texts. Otherwise an import that follows would count everything twice. Pauses
-- stay.
create or replace function rec_internal.start_over()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
declare
    v_table regclass;
begin
    foreach v_table in array '{rec.user_interests,rec_internal.pending,rec_internal.interest_bases,
        rec_internal.item_deltas,rec_internal.popularity,rec_internal.item_transitions,
        rec_internal.texts,rec_internal.dedupe_keys}'::regclass[]
    loop
        begin
            execute format('truncate %s', v_table);
        exception when object_in_use then  -- the same statement truncates it
            null;
        end;
    end loop;
    insert into rec_internal.erasures default values;
    return null;
end $$;

create or replace trigger start_over after truncate on rec.events
for each statement when (coalesce(current_setting('rec_internal.erasing', true), '') <> 'on')
execute function rec_internal.start_over();
