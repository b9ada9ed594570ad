-- Undoing one event, and dropping the vectors of texts that no event contains any more.

-- Lock the texts of a user, or of one event, against being encoded until the end of the transaction, and
-- return their hashes; NULL if there are none. So no vector of an erased text is stored after the erasure.
create or replace function rec_internal.lock_texts(p_user_id text, p_event_id bigint default null)
returns bytea[] language plpgsql volatile
set search_path from current
as $$
declare
    v_hashes bytea[];
begin
    select array_agg(distinct e.text_hash order by e.text_hash) into v_hashes
    from rec.events e
    where e.user_id = p_user_id and e.text_hash is not null
        and (p_event_id is null or e.event_id = p_event_id);
    perform pg_advisory_xact_lock(k.key)
    from (
        select distinct rec_internal.text_lock(h.text_hash) as key from unnest(v_hashes) as h (text_hash)
        order by key offset 0
    ) k;
    return v_hashes;
end $$;

-- Drop the vectors of those of these texts that no event contains any more, and return how many were
-- dropped.
create or replace function rec_internal.drop_texts(p_hashes bytea[])
returns integer language plpgsql volatile
set search_path from current
as $$
declare
    v_dropped integer;
begin
    delete from rec_internal.texts t
    where t.text_hash = any(p_hashes)
        and not exists (select from rec.events e where e.text_hash = t.text_hash);
    get diagnostics v_dropped = row_count;
    return v_dropped;
end $$;

-- Undo an event: remove it from the log, the interests and the counts, and return true; false if there is
-- no such event or the caller cannot see it. The bytes of the row stay on disk until the next vacuum, as
-- after rec.forget_user().
create or replace function rec.undo_event(p_user_id text, p_event_id bigint)
returns boolean language plpgsql volatile
set search_path from current
as $$
declare
    v_hashes bytea[];
begin
    if not rec_internal.owns_data() then
        return rec_internal.undo_if_visible(p_user_id, p_event_id);
    end if;
    perform rec_internal.require_read_committed();
    perform pg_advisory_xact_lock(rec_internal.erasure_lock());
    perform pg_advisory_xact_lock_shared(rec_internal.space_lock());
    if not exists (
        select from rec.events e where e.user_id = p_user_id and e.event_id = p_event_id) then
        return false;
    end if;
    perform pg_advisory_xact_lock(rec_internal.user_lock(p_user_id));
    v_hashes := rec_internal.lock_texts(p_user_id, p_event_id);
    if v_hashes is not null then
        perform pg_advisory_xact_lock(rec_internal.texts_lock());
    end if;
    insert into rec_internal.item_deltas (user_id, to_item, amount, from_items, step, at)
    select p_user_id, s.to_item, sum(s.amount * s.step), s.from_items, sum(s.step), s.at
    from (
        select o.*, 1 as step from rec_internal.steps_of(p_user_id, p_event_id) o
        union all
        select o.*, -1 from rec_internal.steps_of(p_user_id) o
    ) s
    group by s.to_item, s.amount, s.from_items, s.at having sum(s.step) <> 0;
    delete from rec_internal.pending p where p.user_id = p_user_id and p.event_id = p_event_id;
    delete from rec_internal.dedupe_keys k where k.user_id = p_user_id and k.event_id = p_event_id;
    perform rec_internal.erasing(true);
    delete from rec.events e where e.user_id = p_user_id and e.event_id = p_event_id;
    perform rec_internal.erasing(false);
    perform rec.rebuild_user(p_user_id);
    perform rec_internal.drop_texts(v_hashes);
    insert into rec_internal.erasures default values;
    return true;
end $$;
