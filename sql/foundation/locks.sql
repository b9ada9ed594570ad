-- Every advisory lock, in the order in which a transaction that needs several takes them:
--
--   retention_lock   one session applies retention
--   erasure_lock     users or events are erased, or old events dropped
--   space_lock       exclusive: all vectors move to another space; shared: vectors or interests are stored
--   migrate_lock     one session migrates, or moves the vectors
--   user_lock        what is stored about one user changes
--   text_lock        texts are encoded, or dropped with their vectors; several in the order of the keys
--   texts_lock       exclusive: vectors of texts are dropped; shared: events are folded
--   counts_lock      popularity and transitions change
--
-- Taken alone, or last: encoder_lock, partitions_lock, loading_items_lock, loading_events_lock,
-- release_lock. Held by the session of a worker beyond its transactions: sleep_lock, rest_lock, and, while it
-- encodes, item_lock and text_lock.
--
-- A session that folds or encodes only tries a user_lock, text_lock or item_lock and never waits for one,
-- so it may try them in any order.

-- Raise an error unless the transaction is READ COMMITTED. Functions that lock something and then decide by what
-- they see call this first: at a higher level they would decide by a snapshot from before the lock.
create or replace function rec_internal.require_read_committed()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'the snapshot of this transaction may be too old'
            using errcode = 'serialization_failure',
            detail = format('The transaction is %s.', upper(current_setting('transaction_isolation'))),
            hint = 'Call this function in a transaction that is READ COMMITTED.';
    end if;
end $$;

-- Key of the lock under which one session at a time applies retention.
create or replace function rec_internal.retention_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.apply_retention', 0);

-- Key of the lock under which one session at a time erases users or events, or drops old events. It comes before
-- the locks of users, so that one transaction may erase several users in any order.
create or replace function rec_internal.erasure_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.forget_user', 0);

-- Key of the lock that is held while all vectors move to another space. A session that stores vectors or
-- interests shares it.
create or replace function rec_internal.space_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381876;

-- Keep the vectors in their space until the end of the transaction; false if they are moving now.
create or replace function rec_internal.try_share_space()
returns boolean language sql volatile
set search_path from current
as $$ select pg_try_advisory_xact_lock_shared(rec_internal.space_lock()); $$;

-- Keep the vectors in their space until the end of the transaction, or raise an error. It does not wait:
-- a session that waited here while holding locks on the tables of vectors would never get in.
create or replace function rec_internal.share_space()
returns void language plpgsql volatile
set search_path from current
as $$
begin
    if not rec_internal.try_share_space() then
        raise exception 'the vectors are being moved into another space'
            using errcode = 'lock_not_available',
            hint = 'Roll back, and try again when the calibration has ended.';
    end if;
end $$;

-- Key of the lock under which one session migrates or moves the vectors. schema.py takes it before this
-- function exists.
create or replace function rec_internal.migrate_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.migrate', 0);

-- Key of the lock under which events of a user are folded, undone or erased.
create or replace function rec_internal.user_lock(p_user_id text)
returns bigint language sql immutable parallel safe
return hashtextextended(p_user_id, 3);

-- Key of the lock under which a text is encoded, or dropped with its vector. There are 256 of them, so that
-- erasing a user takes at most 256 locks, however many texts the user wrote.
create or replace function rec_internal.text_lock(p_hash bytea)
returns bigint language sql immutable parallel safe
return hashtextextended((hashtextextended(encode(p_hash, 'hex'), 2) & 255)::text, 2);

-- Key of the lock that is held while the vectors of texts that no event contains any more are dropped.
-- Folding shares it, so that no event is folded with a vector that is about to go.
create or replace function rec_internal.texts_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381877;

-- Key of the lock under which popularity and transitions change.
create or replace function rec_internal.counts_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.merge_deltas', 0);

-- Key of the lock under which one session encodes an item.
create or replace function rec_internal.item_lock(p_item_id text)
returns bigint language sql immutable parallel safe
return hashtextextended(p_item_id, 1);

-- Key of the lock under which the first encoder is registered.
create or replace function rec_internal.encoder_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.register_encoder', 0);

-- Key of the lock under which partitions of the log are created.
create or replace function rec_internal.partitions_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.make_partitions', 0);

-- Key of the lock under which loaded items are merged.
create or replace function rec_internal.loading_items_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.merge_items', 0);

-- Key of the lock under which loaded events are merged.
create or replace function rec_internal.loading_events_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.merge_events', 0);

-- Key of the lock under which counts are released and the privacy budget is spent.
create or replace function rec_internal.release_lock()
returns bigint language sql immutable parallel safe
return hashtextextended('rec.release', 0);

-- Key of the lock that a worker holds while it sleeps. A writer that cannot share it sends a NOTIFY.
create or replace function rec_internal.sleep_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381875;

-- Key of the lock that a worker holds while it waits for more events on known items. Such events count
-- before they are folded. A text does not, so its writer sends a NOTIFY if it cannot share the lock.
create or replace function rec_internal.rest_lock()
returns bigint language sql immutable parallel safe
return 7161640126430381878;
