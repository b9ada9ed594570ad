-- The queue: committed events that are not yet part of the stored interests. A row of rec_internal.pending is
-- in one of four states, given by (retry_at, error):
--
--   due       retry_at is past: the next worker folds it
--   waiting   retry_at is in the future, no error: its text or item has no vector yet
--   failing   retry_at is in the future, with an error: folding failed, it is tried again after a pause
--   parked    retry_at is infinity, with an error: no worker tries it until rec.retry is called
--
--   enqueue: INSERT of an event -> due         retry_waiting: waiting -> due, once vectors are stored
--   apply_*: due -> folded, the row is gone    park: due -> failing, and parked after max_attempts
--   postpone: due -> waiting, or parked if     rec.retry, retry_known: parked -> due
--             its item or kind is unknown      unqueue, erasure, undo: the row is gone
--
-- The planner inlines the predicates. A trigger keeps a row from being parked without a reason; a CHECK
-- would cost every INSERT of an event.

-- Whether a queued event can be folded now.
create or replace function rec_internal.is_due(p_row rec_internal.pending)
returns boolean language sql stable parallel safe
return (p_row).retry_at <= now();

-- Whether a queued event waits for the vector of its text or item.
create or replace function rec_internal.is_waiting(p_row rec_internal.pending)
returns boolean language sql stable parallel safe
return (p_row).retry_at > now() and (p_row).retry_at < 'infinity' and (p_row).error is null;

-- Whether a queued event is parked: no worker tries it until rec.retry is called.
create or replace function rec_internal.is_parked(p_row rec_internal.pending)
returns boolean language sql immutable parallel safe
return (p_row).retry_at = 'infinity';

-- The state of a queued event in one word: due, waiting, failing or parked.
create or replace function rec_internal.queue_state(p_row rec_internal.pending)
returns text language sql stable parallel safe
return case when rec_internal.is_due(p_row) then 'due'
    when rec_internal.is_parked(p_row) then 'parked'
    when rec_internal.is_waiting(p_row) then 'waiting'
    else 'failing' end;

-- Trigger of rec_internal.pending: refuse to park an event without a reason.
create or replace function rec_internal.refuse_parking()
returns trigger language plpgsql
set search_path from current
as $$
begin
    raise exception 'event % is parked without a reason', new.event_id
        using errcode = 'check_violation', hint = 'Set pending.error together with pending.retry_at.';
end $$;

create or replace trigger refuse_parking before update of retry_at, error on rec_internal.pending
for each row when (new.retry_at = 'infinity' and new.error is null)
execute function rec_internal.refuse_parking();

-- Trigger of rec.events: queue the inserted events, and wake a worker only if one sleeps, because a NOTIFY
-- takes a lock on the whole cluster at commit.
create or replace function rec_internal.enqueue()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    insert into rec_internal.pending (user_id, event_id, occurred_at, has_text)
    select e.user_id, e.event_id, e.occurred_at, e.text_hash is not null
    from inserted e;
    if found and not pg_try_advisory_xact_lock_shared(rec_internal.sleep_lock()) then
        notify rec_events;
    end if;
    return null;
end $$;

create or replace trigger enqueue after insert on rec.events
referencing new table as inserted for each statement execute function rec_internal.enqueue();
