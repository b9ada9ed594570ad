-- How rec_app reaches rec.forget_user and rec.undo_event. Both change counts and texts that users share,
-- so they need the rights of the owner; and both must respect the row-level policies of the caller. A view
-- is read with the rights of the caller and its trigger acts with those of the owner: callers cannot erase
-- what they cannot see.

-- Whether the current role has the rights of the owner of rec.events, to whom no policy applies.
create or replace function rec_internal.owns_data()
returns boolean language sql stable
set search_path = rec, pg_temp
as $$
    select pg_has_role(c.relowner, 'usage') from pg_class c where c.oid = 'rec.events'::regclass;
$$;

-- Users of whom the current role can see any stored data. Deleting a row erases the user, as rec.forget_user
-- does.
create or replace view rec_internal.visible_users with (security_invoker = true) as
select e.user_id from rec.events e
union
select u.user_id from rec.user_interests u
union
select b.user_id from rec_internal.interest_bases b
union
select p.user_id from rec_internal.paused_users p;

-- Events that the current role can see. Deleting a row undoes the event, as rec.undo_event does.
create or replace view rec_internal.visible_events with (security_invoker = true) as
select e.user_id, e.event_id from rec.events e;

-- Trigger of rec_internal.visible_users: call rec.forget_user with the rights of the owner.
create or replace function rec_internal.forget_visible()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    perform set_config('rec_internal.erased', rec.forget_user(old.user_id)::text, true);
    return old;
end $$;

-- Trigger of rec_internal.visible_events: call rec.undo_event with the rights of the owner.
create or replace function rec_internal.undo_visible()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    perform rec.undo_event(old.user_id, old.event_id);
    return old;
end $$;

create or replace trigger forget instead of delete on rec_internal.visible_users
for each row execute function rec_internal.forget_visible();

create or replace trigger undo instead of delete on rec_internal.visible_events
for each row execute function rec_internal.undo_visible();

-- rec.forget_user for a role that does not own the data: erase a user and return the number of erased events,
-- or return 0 if the role can see nothing of the user.
create or replace function rec_internal.forget_if_visible(p_user_id text)
returns integer language plpgsql volatile
set search_path = rec, pg_temp
as $$
begin
    perform set_config('rec_internal.erased', '0', true);
    delete from rec_internal.visible_users u where u.user_id = p_user_id;
    return current_setting('rec_internal.erased')::integer;
end $$;

-- rec.undo_event for a role that does not own the data: undo an event and return true, or return false if
-- the role cannot see it.
create or replace function rec_internal.undo_if_visible(p_user_id text, p_event_id bigint)
returns boolean language plpgsql volatile
set search_path = rec, pg_temp
as $$
begin
    delete from rec_internal.visible_events e where e.user_id = p_user_id and e.event_id = p_event_id;
    return found;
end $$;
