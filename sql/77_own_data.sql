-- The road of rec_app to rec.forget_user and rec.undo_event. Both change counts and texts that users
-- share, so they need the owner's rights; and both must hold to the row-level policies of the one who
-- calls. A view is read with the rights of the caller, and its trigger acts with those of the owner:
-- what a caller cannot see he cannot erase.

-- rec.owns_data() -> whether the current role is the owner of the user-owned tables, or as good as he
create or replace function rec.owns_data()
returns boolean language sql stable
set search_path = rec, pg_temp
as $$
    select pg_has_role(c.relowner, 'usage') from pg_class c where c.oid = 'rec.events'::regclass;
$$;
comment on function rec.owns_data is
    'Whether the current role has the rights of the owner of rec.events, to whom no policy applies.';

-- rec.visible_users: the users of whom the current role can see something
create or replace view rec.visible_users with (security_invoker = true) as
select e.user_id from rec.events e
union
select u.user_id from rec.user_interests u
union
select b.user_id from rec.interest_bases b
union
select p.user_id from rec.paused_users p;
comment on view rec.visible_users is
    'Users of whom the current role can see anything that is kept. To delete one is to forget him.';

-- rec.visible_events: the events that the current role can see
create or replace view rec.visible_events with (security_invoker = true) as
select e.user_id, e.event_id from rec.events e;
comment on view rec.visible_events is
    'Events that the current role can see. To delete one is to undo it.';

-- rec.forget_visible() -> trigger: the owner forgets the user
create or replace function rec.forget_visible()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    perform set_config('rec.erased', rec.forget_user(old.user_id)::text, true);
    return old;
end $$;
comment on function rec.forget_visible is 'Trigger of rec.visible_users: rec.forget_user by the owner.';

-- rec.undo_visible() -> trigger: the owner undoes the event
create or replace function rec.undo_visible()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    perform rec.undo_event(old.user_id, old.event_id);
    return old;
end $$;
comment on function rec.undo_visible is 'Trigger of rec.visible_events: rec.undo_event by the owner.';

create or replace trigger forget instead of delete on rec.visible_users
for each row execute function rec.forget_visible();

create or replace trigger undo instead of delete on rec.visible_events
for each row execute function rec.undo_visible();

-- rec.forget_if_visible(user) -> what rec.forget_user gives; 0 if the caller sees nothing of the user
create or replace function rec.forget_if_visible(p_user_id text)
returns integer language plpgsql volatile
set search_path = rec, pg_temp
as $$
begin
    perform set_config('rec.erased', '0', true);
    delete from rec.visible_users u where u.user_id = p_user_id;
    return current_setting('rec.erased')::integer;
end $$;
comment on function rec.forget_if_visible is
    'rec.forget_user for a role that does not own the data: of users whom it can see.';

-- rec.undo_if_visible(user, event_id) -> whether the caller sees such an event; nothing is left of it
create or replace function rec.undo_if_visible(p_user_id text, p_event_id bigint)
returns boolean language plpgsql volatile
set search_path = rec, pg_temp
as $$
begin
    delete from rec.visible_events e where e.user_id = p_user_id and e.event_id = p_event_id;
    return found;
end $$;
comment on function rec.undo_if_visible is
    'rec.undo_event for a role that does not own the data: of events that it can see.';
