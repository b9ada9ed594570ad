-- Erasing a user.

-- Erase all data of a user, and return the number of erased events; 0 if the caller can see nothing of the
-- user. The data are the events, interests, queue and pause of the user, the vectors of texts that nobody
-- else wrote, and what the user added to popularity and transitions. rec.erasure_status shows when a vacuum
-- has cleared the deleted rows from tables, indexes and statistics, too; a worker or `pgrec vacuum` runs
-- that vacuum.
create or replace function rec.forget_user(p_user_id text)
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_hashes bytea[];
    v_erased integer;
begin
    if not rec_internal.owns_data() then
        return rec_internal.forget_if_visible(p_user_id);
    end if;
    perform rec_internal.require_read_committed();
    perform pg_advisory_xact_lock(rec_internal.erasure_lock());
    perform pg_advisory_xact_lock_shared(rec_internal.space_lock());
    perform pg_advisory_xact_lock(rec_internal.user_lock(p_user_id));
    v_hashes := rec_internal.lock_texts(p_user_id);
    perform pg_advisory_xact_lock(rec_internal.texts_lock());
    perform pg_advisory_xact_lock(rec_internal.counts_lock());
    insert into rec_internal.item_deltas (user_id, to_item, amount, from_items, step, at)
    select s.user_id, s.to_item, -s.amount, s.from_items, -1, s.at from rec_internal.steps_of(p_user_id) s;
    perform rec_internal.erasing(true);
    -- In one statement, so that both deletions see the same events.
    with erased as (
        delete from rec.events e where e.user_id = p_user_id returning e.event_id
    ), unqueued as (
        delete from rec_internal.pending p where p.user_id = p_user_id
    )
    select count(*) into v_erased from erased e;
    perform rec_internal.erasing(false);
    perform rec_internal.drop_texts(v_hashes);
    delete from rec.user_interests u where u.user_id = p_user_id;
    delete from rec_internal.interest_bases b where b.user_id = p_user_id;
    delete from rec_internal.dedupe_keys k where k.user_id = p_user_id;
    delete from rec_internal.paused_users u where u.user_id = p_user_id;
    while exists (select from rec_internal.item_deltas d where d.user_id = p_user_id) loop
        perform rec.merge_deltas();
    end loop;
    insert into rec_internal.erasures default values;
    perform rec.wake();
    return v_erased;
end $$;
