-- What happens when the application inserts an event, and the road for those who prefer a function.

-- rec.admit() -> trigger: keeps out what is not to be stored, and stores the hash of a text
create or replace function rec.admit()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    if exists (select from rec.paused_users u where u.user_id = new.user_id) then
        return null;
    end if;
    -- Less than a day is never dropped, so that fresh events are spared the look.
    if new.occurred_at < now() - interval '1 day' and exists (
        select from rec.settings s where new.occurred_at < now() - s.events_kept) then
        return null;
    end if;
    if octet_length(new.kind) > 200 then
        raise exception 'the kind of an event has at most 200 bytes'
            using errcode = 'string_data_right_truncation',
            hint = 'The kinds are the rows of rec.event_kinds.';
    end if;
    if new.text is not null then
        new.text := case when btrim(new.text) <> '' then new.text end;
        new.text_hash := rec.content_hash(new.text);
        if new.text_hash is not null
            and not pg_try_advisory_xact_lock_shared(rec.rest_lock()) then
            notify rec_events;
        end if;
    end if;
    new.received_at := least(new.received_at, now());
    return new;
end $$;
comment on function rec.admit() is
    'Trigger of rec.events: an event of a paused user is not stored, and neither is one that '
    'settings.events_kept would drop; the INSERT succeeds and counts a row less. The hash of the text, '
    'if there is one, for which a worker that rests is woken; nothing is received in the future; a kind '
    'fits into the indexes.';

-- A query for each row takes half as long as the INSERT itself. So there is none while the sequence
-- rec.admits_all has a value, which it loses before the first pause is committed and regains at the
-- next migration at the earliest. Who may not read it finds none. One trigger, for the server reads a
-- condition anew in each statement.
create or replace trigger admit before insert on rec.events
for each row when (
    new.text is not null or new.received_at > now() or octet_length(new.kind) > 200
    or pg_sequence_last_value('rec.admits_all') is null)
execute function rec.admit();

-- rec.enqueue() -> trigger: one row in pending per event, one NOTIFY if a worker sleeps
create or replace function rec.enqueue()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    insert into rec.pending (user_id, event_id, occurred_at, has_text)
    select e.user_id, e.event_id, e.occurred_at, e.text_hash is not null
    from inserted e;
    if found and not pg_try_advisory_xact_lock_shared(rec.sleep_lock()) then
        notify rec_events;
    end if;
    return null;
end $$;
comment on function rec.enqueue() is
    'Trigger of rec.events: queues the events, and wakes a worker only if one sleeps, for a NOTIFY '
    'takes a lock on the whole cluster at commit.';

create or replace trigger enqueue after insert on rec.events
referencing new table as inserted for each statement execute function rec.enqueue();

-- rec.sleep_lock() -> key of the advisory lock that a sleeping worker holds
create or replace function rec.sleep_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381875;
comment on function rec.sleep_lock() is
    'Key of the advisory lock that a worker holds while it sleeps; writers that cannot share it '
    'send a NOTIFY.';

-- rec.rest_lock() -> key of the advisory lock that a resting worker holds
create or replace function rec.rest_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381878;
comment on function rec.rest_lock() is
    'Key of the advisory lock that a worker holds while it lets events gather, which count without it. '
    'Writers of texts, which do not, send a NOTIFY if they cannot share it.';

-- rec.track(user, item, kind, text, value, occurred_at, dedupe_key) -> event_id, of the event or of
-- the one that came before with the same dedupe key; NULL if it is not let in
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
    if p_dedupe_key is not null then
        perform pg_advisory_xact_lock(hashtextextended(p_user_id || chr(1) || p_dedupe_key, 0));
        select e.event_id into v_event_id from rec.events e
        where e.user_id = p_user_id and e.dedupe_key = p_dedupe_key limit 1;
        if found then
            return v_event_id;
        end if;
    end if;
    insert into rec.events (user_id, item_id, kind, text, value, occurred_at, dedupe_key)
    values (p_user_id, p_item_id, p_kind, p_text, p_value, coalesce(p_occurred_at, now()),
        p_dedupe_key)
    returning event_id into v_event_id;
    return v_event_id;
end $$;
comment on function rec.track is
    'Insert one event and return its id. With a dedupe key a repeated call returns the first id. NULL: '
    'nothing was stored, since the user is paused or the event is older than the log may reach.';

-- rec.event_vectors: every event with its weight and its vector, NULL while a part is not encoded
create or replace view rec.event_vectors with (security_invoker = true) as
select
    e.user_id,
    e.event_id,
    e.occurred_at,
    least(e.occurred_at, e.received_at) as at,
    e.item_id,
    e.kind,
    e.text,
    rec.event_weight(k.weight, k.neutral, k.scale, e.value) as weight,
    case
        when e.text_hash is null then v.embedding::vector
        when e.item_id is null then t.embedding::vector
        else l2_normalize(v.embedding::vector + t.embedding::vector)
    end as embedding
from rec.events e
left join rec.event_kinds k on k.kind = e.kind
left join rec.item_vectors v on v.item_id = e.item_id
left join rec.texts t on t.text_hash = e.text_hash;
comment on view rec.event_vectors is
    'Events with weight and vector (item, text, or the unit vector between both). An event from the '
    'future counts as of the moment at which it came in.';

-- rec.ahead(user, as_of) -> number of events that are dated after the moment and had come in by then
create or replace function rec.ahead(p_user_id text, p_as_of timestamptz default null)
returns bigint language sql stable
set search_path from current
as $$
    select count(*) from rec.events e
    where e.user_id = p_user_id and e.occurred_at > rec.moment(p_as_of)
        and e.received_at <= rec.moment(p_as_of);
$$;
comment on function rec.ahead is
    'How many events of a user come from a clock that was ahead. By their dates they would be the '
    'latest for years; whoever wants the latest reads so many more and sorts by the moment at which '
    'events count.';
