-- How a worker goes to sleep without missing an event. A sleeper holds an advisory lock; a writer that
-- cannot share the lock sends a NOTIFY. A worker that has taken the lock checks the queue once more before
-- it sleeps: either this check sees an event, or the event's writer sees the lock.

-- Whether anything waits to be folded, merged or encoded.
create or replace function rec_internal.has_work()
returns boolean language sql stable
set search_path from current
as $$
    select exists (select from rec_internal.pending p where rec_internal.is_due(p))
        or exists (select from rec_internal.item_deltas)
        or exists (select from rec.items i where i.stale);
$$;

-- Try to take a lock that makes writers send a NOTIFY: rec_internal.sleep_lock() for all writers of events,
-- or rec_internal.rest_lock() for writers of texts. The result is `asleep` if this session now holds the
-- lock, `guarded` if another session holds it, and `busy` if a writer is in the middle of a transaction and
-- would not notify. The function waits up to p_patience seconds, at most a minute, for such transactions to
-- end; writers that begin meanwhile notify.
create or replace function rec_internal.try_sleep(p_lock bigint, p_patience double precision default 0)
returns text language plpgsql volatile strict
set search_path from current
as $$
begin
    if pg_try_advisory_lock(p_lock) then
        return 'asleep';
    end if;
    if exists (
        select from pg_locks l
        where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and l.granted
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
            and l.objsubid = 1
            and (l.classid::bigint << 32) | l.objid::bigint = p_lock) then
        return 'guarded';
    end if;
    if p_patience <= 0 then
        return 'busy';
    end if;
    perform set_config('lock_timeout', ceil(least(p_patience, 60) * 1000)::text, true);
    perform pg_advisory_lock(p_lock);
    return 'asleep';
exception when lock_not_available then
    return 'busy';
end $$;

-- Release the lock that rec_internal.try_sleep() took; false if this session did not hold it.
create or replace function rec_internal.stop_sleeping(p_lock bigint)
returns boolean language sql volatile
set search_path from current
as $$ select pg_advisory_unlock(p_lock); $$;

-- Seconds until the next postponed event is due, from 0.01 to p_longest; p_longest if there is none.
create or replace function rec_internal.seconds_to_retry(p_longest double precision)
returns double precision language sql stable
set search_path from current
as $$
    select greatest(least(
        p_longest,
        extract(epoch from min(p.retry_at) - clock_timestamp())::double precision), 0.01)
    from rec_internal.pending p where p.retry_at > now() and p.retry_at < 'infinity';
$$;

-- Wake sleeping workers, so that they check for work at once. Call this after changes to rec.items, which
-- workers otherwise find only by polling.
create or replace function rec.wake()
returns void language sql volatile
set search_path from current
as $$ select pg_notify('rec_events', ''); $$;
