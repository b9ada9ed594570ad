-- Sessions that the server still keeps for a worker whose connection broke.

-- Whether session p_pid is running a statement, or changed its state less than p_seconds ago. If neither is
-- true and the client still waits for an answer, the connection between them is dead.
create or replace function rec_internal.is_at_work(p_pid integer, p_seconds double precision)
returns boolean language sql volatile
set search_path from current
as $$
    select exists (
        select from pg_stat_activity a
        where a.pid = p_pid
            and ((a.state = 'active' and a.wait_event_type is distinct from 'Client')
                or extract(epoch from clock_timestamp() - a.state_change) < p_seconds));
$$;

-- End those of these sessions that belong to workers of the current role, wait up to 5 seconds for each to
-- end, and return how many there were. A worker whose connection broke calls this, because the server may
-- not have noticed yet and still hold its claims and locks.
create or replace function rec_internal.end_sessions(p_pids integer[])
returns integer language sql volatile
set search_path from current
as $$
    select count(pg_terminate_backend(a.pid, 5000))::integer from pg_stat_activity a
    where a.pid = any(p_pids) and a.pid <> pg_backend_pid() and a.usename = current_user
        and a.application_name like 'pgrec worker%';
$$;
