-- The state of the recommender.

-- The state of the recommender in one row: numbers of items, events, users, texts, queued and parked events,
-- unmerged counts and connected workers, the lag in seconds since the oldest queued event came in, and name
-- and fingerprint of the active encoder, NULL if there is none.
create or replace view rec.status with (security_invoker = true) as
select
    (select count(*) from rec.items) as items,
    (select count(*) from rec.items i where i.stale)
        as items_to_encode,
    (select count(*) from rec.items i where i.encode_error is not null) as items_failed,
    (select count(*) from rec.events) as events,
    (select count(distinct u.user_id) from rec.user_interests u) as users,
    (select count(*) from rec_internal.texts) as texts,
    (select count(*) from rec_internal.pending p where not rec_internal.is_parked(p)) as pending,
    (select count(*) from rec_internal.pending p where rec_internal.is_parked(p)) as parked,
    coalesce((
        select extract(epoch from clock_timestamp() - min(p.enqueued_at))::double precision
        from rec_internal.pending p where not rec_internal.is_parked(p)), 0) as lag_seconds,
    (select count(*) from rec_internal.item_deltas) as deltas,
    (select count(*) from pg_stat_activity a
        where a.datname = current_database() and a.application_name = 'pgrec worker') as workers,
    (select e.name from rec_internal.encoders e where e.active) as encoder,
    (select e.fingerprint from rec_internal.encoders e where e.active) as fingerprint;

-- What waits for a worker, in one row that is cheap to read often: numbers of queued and parked events and of
-- items to encode, and the lag in seconds since the oldest queued event came in.
create or replace view rec_internal.queue with (security_invoker = true) as
select
    count(*) filter (where not rec_internal.is_parked(p)) as pending,
    count(*) filter (where rec_internal.is_parked(p)) as parked,
    coalesce(extract(epoch from clock_timestamp()
        - min(p.enqueued_at) filter (where not rec_internal.is_parked(p)))::double precision, 0)
        as lag_seconds,
    (select count(*) from rec.items i where i.stale)
        as items_to_encode
from rec_internal.pending p;

-- Events that could not be folded and are not tried any more, with the reason; rec.retry() tries them again.
create or replace view rec.parked with (security_invoker = true) as
select p.user_id, p.event_id, p.occurred_at, e.kind, e.item_id, p.attempts, p.error
from rec_internal.pending p
join rec.events e using (user_id, occurred_at, event_id)
where rec_internal.is_parked(p);
