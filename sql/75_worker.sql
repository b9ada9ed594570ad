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

-- rec.try_sleep(lock, patience) -> 'asleep' with the lock held, 'guarded' if another worker holds it,
-- else 'busy'
create or replace function rec.try_sleep(p_lock bigint, p_patience double precision default 0)
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
comment on function rec.try_sleep is
    'Try to become the one whom writers notify: all of them by rec.sleep_lock(), those of texts by '
    'rec.rest_lock(). busy: a writer is in the middle of a transaction and would not notify. For its '
    'end p_patience seconds are waited, a minute at most; who begins meanwhile notifies.';

-- rec.stop_sleeping(lock) -> whether this session held the lock
create or replace function rec.stop_sleeping(p_lock bigint)
returns boolean language sql volatile
set search_path from current
as $$ select pg_advisory_unlock(p_lock); $$;
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

-- rec.is_at_work(pid, seconds) -> whether a session works on a statement, or did so a moment ago
create or replace function rec.is_at_work(p_pid integer, p_seconds double precision)
returns boolean language sql volatile
set search_path from current
as $$
    select exists (
        select from pg_stat_activity a
        where a.pid = p_pid
            and ((a.state = 'active' and a.wait_event_type is distinct from 'Client')
                or extract(epoch from clock_timestamp() - a.state_change) < p_seconds));
$$;
comment on function rec.is_at_work is
    'Whether another session of the same role works. If it does not, and its client awaits an answer, '
    'the line between them is dead.';

-- rec.end_sessions(pids) -> number of sessions of workers that were ended
create or replace function rec.end_sessions(p_pids integer[])
returns integer language sql volatile
set search_path from current
as $$
    select count(pg_terminate_backend(a.pid, 5000))::integer from pg_stat_activity a
    where a.pid = any(p_pids) and a.pid <> pg_backend_pid() and a.usename = current_user
        and a.application_name like 'pgrec worker%';
$$;
comment on function rec.end_sessions is
    'End what is left of a worker whose line broke, with its claims and locks, and wait until it is '
    'gone: the server may not have noticed yet.';
