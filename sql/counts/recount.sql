-- Counts of one user, or of all users, computed again from the log.

-- What each folded event in which an item was chosen adds to popularity (amount) and to transitions: 1 /
-- distance from each of from_items, of which the last is the nearest. The events are those of one user, or
-- of all users if p_user_id is NULL; p_without leaves out one event, as if it had never happened.
create or replace function rec_internal.steps_of(p_user_id text, p_without bigint default null)
returns table (
    user_id text, to_item text, amount double precision, from_items text[], at timestamptz)
language sql stable
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
    select e.user_id, e.item_id, greatest(e.weight, 0), coalesce(array_agg(e.item_id) over (
        partition by e.user_id order by e.occurred_at, e.event_id
        rows between (select s.transition_window from rec.settings s) preceding and 1 preceding
    ), '{}'), e.at
    from rec_internal.folded_events e
    where (p_user_id is null or e.user_id = p_user_id)
        and (p_without is null or e.event_id <> p_without);
$$;

-- Compute popularity and transitions again from the event log, and return the number of counts. Call this
-- after the weight of an event kind, the half-life of popularity or transitions, or transition_window has
-- changed.
create or replace function rec.rebuild_collaborative()
returns integer language plpgsql volatile
set search_path from current
as $$
begin
    perform rec_internal.require_read_committed();
    perform pg_advisory_xact_lock(rec_internal.counts_lock());
    delete from rec_internal.popularity;
    delete from rec_internal.item_transitions;
    -- One statement, so that an event that is folded meanwhile is either counted here or waits as a delta.
    with waiting as (
        delete from rec_internal.item_deltas
    )
    insert into rec_internal.item_deltas (user_id, to_item, amount, from_items, at)
    select s.user_id, s.to_item, s.amount, s.from_items, s.at from rec_internal.steps_of(null) s;
    update rec_internal.state set recount = false where recount;
    return rec.merge_deltas();
end $$;
