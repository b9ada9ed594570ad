-- What happens to an event when it is inserted, and the views through which the log is read.

-- Every event with the weight and the vector that it adds to an interest: the vector of its item, of its
-- text, or the unit vector between both. embedding is NULL while a part has no vector; weight is NULL if
-- the kind is unknown. at is the time as of which the event counts: occurred_at, or received_at for an
-- event that was dated after its arrival. chosen says whether the event is on an item and its kind has a
-- positive weight.
create or replace view rec_internal.event_vectors with (security_invoker = true) as
select
    e.user_id,
    e.event_id,
    e.occurred_at,
    least(e.occurred_at, e.received_at) as at,
    e.item_id,
    e.kind,
    e.text,
    rec_internal.event_weight(k.weight, k.neutral, k.scale, e.value) as weight,
    rec_internal.event_vector(e.item_id, v.embedding, e.text_hash, t.embedding) as embedding,
    e.item_id is not null and k.weight > 0 as chosen
from rec.events e
left join rec.event_kinds k on k.kind = e.kind
left join rec.item_vectors v on v.item_id = e.item_id
left join rec_internal.texts t on t.text_hash = e.text_hash;

-- Events in which a user chose an item: those on an item whose kind has a positive weight. The value does
-- not matter, because even a bad rating shows where the user went; its own weight is negative, and it adds
-- nothing to popularity.
create or replace view rec_internal.chosen_events with (security_invoker = true) as
select e.user_id, e.event_id, e.occurred_at, e.item_id, least(e.occurred_at, e.received_at) as at,
    rec_internal.event_weight(k.weight, k.neutral, k.scale, e.value) as weight
from rec.events e
join rec.event_kinds k on k.kind = e.kind
where e.item_id is not null and k.weight > 0;

-- Those of rec_internal.chosen_events that stored interests and counts contain: they no longer wait in the
-- queue.
create or replace view rec_internal.folded_events with (security_invoker = true) as
select e.* from rec_internal.chosen_events e
where not exists (
    select from rec_internal.pending p where p.user_id = e.user_id and p.event_id = e.event_id);

-- Trigger of rec.events: keep out the events of paused users, those that settings.events_kept would drop, and
-- those whose dedupe key the user has used before; the INSERT succeeds and reports one row fewer for each. The
-- trigger also stores the hash of a text and, if a worker rests, wakes it to encode the text; it stores NULL for
-- a blank text, sets a received_at in the future to now, and raises an error for a kind of more than 200 bytes,
-- which would not fit into the indexes.
create or replace function rec_internal.admit()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        -- A pause that the snapshot does not show yet is a serialization failure.
        perform from rec_internal.admissions for share;
    end if;
    if exists (select from rec_internal.paused_users u where u.user_id = new.user_id) then
        return null;
    end if;
    -- events_kept is at least a day, so new events need no query. Days and months are those of UTC, as
    -- where old months are dropped: in the zone of the session a day may have 25 hours.
    if new.occurred_at < now() - interval '24 hours' and exists (
        select from rec.settings s
        where new.occurred_at < (now() at time zone 'UTC' - s.events_kept) at time zone 'UTC') then
        return null;
    end if;
    if octet_length(new.kind) > 200 then
        raise exception 'the kind of an event may have at most 200 bytes'
            using errcode = 'string_data_right_truncation',
            hint = 'The kinds are the rows of rec.event_kinds.';
    end if;
    if new.text is not null then
        new.text := case when btrim(new.text) <> '' then new.text end;
        new.text_hash := rec_internal.content_hash(new.text);
        if new.text_hash is not null
            and not pg_try_advisory_xact_lock_shared(rec_internal.rest_lock()) then
            notify rec_events;
        end if;
    end if;
    new.received_at := least(new.received_at, now());
    if new.dedupe_key is not null and new.user_id is not null then
        insert into rec_internal.dedupe_keys (user_id, dedupe_key, event_id)
        values (new.user_id, new.dedupe_key, new.event_id) on conflict do nothing;
        if not found then
            return null;
        end if;
    end if;
    return new;
end $$;

-- A query for each row takes half as long as the INSERT itself. So no query runs while the sequence
-- rec_internal.admits_all has a value. It loses the value before the first pause is committed, and regains
-- it at the next migration at the earliest. To a role that may not read the sequence, it appears to have no
-- value. There is only one trigger, because the server reads the condition of each trigger again in every
-- statement.
create or replace trigger admit before insert on rec.events
for each row when (
    new.text is not null or new.dedupe_key is not null or new.received_at > now()
    or octet_length(new.kind) > 200 or pg_sequence_last_value('rec_internal.admits_all') is null)
execute function rec_internal.admit();

-- Log one event of a user, on an item, with a text, or both, and return its event_id. If an earlier event of
-- the user has the same p_dedupe_key, return the id of that event and store nothing. NULL means that nothing
-- was stored, because the user is paused or the event is older than settings.events_kept allows. It is an
-- error if the user_id is missing, if both item and text are missing, or if the kind is not a row of
-- rec.event_kinds.
create or replace function rec.track(
    p_user_id text, p_item_id text default null, p_kind text default 'click',
    p_text text default null, p_value double precision default null,
    p_occurred_at timestamptz default now(), p_dedupe_key text default null)
returns bigint language plpgsql volatile
set search_path from current
as $$
declare
    v_event_id bigint;
begin
    if nullif(p_user_id, '') is null then
        raise exception 'an event needs a user_id' using errcode = 'null_value_not_allowed';
    end if;
    if p_item_id is null and coalesce(btrim(p_text), '') = '' then
        raise exception 'an event needs an item_id or a text' using errcode = 'check_violation';
    end if;
    if not exists (select from rec.event_kinds k where k.kind = p_kind) then
        raise exception 'unknown event kind %', left(quote_nullable(p_kind), 200)
            using errcode = 'foreign_key_violation',
            hint = 'The kinds are the rows of rec.event_kinds; insert one to make a new kind.';
    end if;
    insert into rec.events (user_id, item_id, kind, text, value, occurred_at, dedupe_key)
    values (p_user_id, p_item_id, p_kind, p_text, p_value, coalesce(p_occurred_at, now()),
        p_dedupe_key)
    returning event_id into v_event_id;
    if v_event_id is null and p_dedupe_key is not null then
        select e.event_id into v_event_id from rec.events e
        where e.user_id = p_user_id and e.dedupe_key = p_dedupe_key limit 1;
    end if;
    return v_event_id;
end $$;
