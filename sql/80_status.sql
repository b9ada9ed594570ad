-- How the recommender is doing.

-- rec.status: one row of figures
create or replace view rec.status with (security_invoker = true) as
select
    (select count(*) from rec.items) as items,
    (select count(*) from rec.items i where i.stale)
        as items_to_encode,
    (select count(*) from rec.items i where i.encode_error is not null) as items_failed,
    (select count(*) from rec.events) as events,
    (select count(distinct u.user_id) from rec.user_interests u) as users,
    (select count(*) from rec.texts) as texts,
    (select count(*) from rec.pending p where p.retry_at < 'infinity') as pending,
    (select count(*) from rec.pending p where p.retry_at = 'infinity') as parked,
    coalesce((
        select extract(epoch from clock_timestamp() - min(p.enqueued_at))::double precision
        from rec.pending p where p.retry_at < 'infinity'), 0) as lag_seconds,
    (select count(*) from rec.item_deltas) as deltas,
    (select count(*) from pg_stat_activity a
        where a.datname = current_database() and a.application_name = 'pgrec worker') as workers,
    (select e.name from rec.encoders e where e.active) as encoder,
    (select e.fingerprint from rec.encoders e where e.active) as fingerprint;
comment on view rec.status is 'Counts, queue depth, lag and the active encoder, in one row.';

-- rec.queue: what waits for a worker, cheap enough to be read often
create or replace view rec.queue with (security_invoker = true) as
select
    count(*) filter (where p.retry_at < 'infinity') as pending,
    count(*) filter (where p.retry_at = 'infinity') as parked,
    coalesce(extract(epoch from clock_timestamp()
        - min(p.enqueued_at) filter (where p.retry_at < 'infinity'))::double precision, 0)
        as lag_seconds,
    (select count(*) from rec.items i where i.stale)
        as items_to_encode
from rec.pending p;
comment on view rec.queue is 'What waits to be folded or encoded, what is parked, and the lag in seconds.';

-- rec.parked: events that could not be folded, with the reason
create or replace view rec.parked with (security_invoker = true) as
select p.user_id, p.event_id, p.occurred_at, e.kind, e.item_id, p.attempts, p.error
from rec.pending p
join rec.events e using (user_id, occurred_at, event_id)
where p.retry_at = 'infinity';
comment on view rec.parked is 'Events that could not be folded and why; rec.retry() tries them again.';
