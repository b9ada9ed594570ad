-- How a worker goes to sleep without missing an event. A sleeper holds an advisory lock; a writer
-- that cannot share the lock sends a NOTIFY. Whoever takes the lock looks once more before it sleeps:
-- an event is either seen by that look, or its writer sees the lock.

-- rec.has_work() -> whether anything waits to be folded, merged or encoded
create or replace function rec.has_work()
returns boolean language sql stable
set search_path from current
as $$
    select exists (select from rec.pending p where p.retry_at <= now())
        or exists (select from rec.item_deltas)
        or exists (select from rec.items i where i.stale);
$$;
comment on function rec.has_work is 'Whether anything waits to be folded, merged or encoded.';

-- rec.try_sleep() -> 'asleep' with the lock held, 'guarded' if another worker holds it, else 'busy'
create or replace function rec.try_sleep()
returns text language plpgsql volatile
set search_path from current
as $$
begin
    if pg_try_advisory_lock(rec.sleep_lock()) then
        return 'asleep';
    end if;
    return case when exists (
        select from pg_locks l
        where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and l.granted
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
            and l.objsubid = 1
            and (l.classid::bigint << 32) | l.objid::bigint = rec.sleep_lock())
        then 'guarded' else 'busy' end;
end $$;
comment on function rec.try_sleep is
    'Try to become the sleeper whom writers notify. busy: a writer is in the middle of a '
    'transaction and would not notify.';

-- rec.stop_sleeping() -> whether this session held the sleepers' lock
create or replace function rec.stop_sleeping()
returns boolean language sql volatile
set search_path from current
as $$ select pg_advisory_unlock(rec.sleep_lock()); $$;
comment on function rec.stop_sleeping is 'Give up the lock of rec.try_sleep().';

-- rec.seconds_to_retry(longest) -> seconds until a postponed event is due, at most longest
create or replace function rec.seconds_to_retry(p_longest double precision)
returns double precision language sql stable
set search_path from current
as $$
    select greatest(least(
        p_longest,
        extract(epoch from min(p.retry_at) - clock_timestamp())::double precision), 0.01)
    from rec.pending p where p.retry_at > now() and p.retry_at < 'infinity';
$$;
comment on function rec.seconds_to_retry is
    'Seconds until the next postponed event is due, at most p_longest.';
