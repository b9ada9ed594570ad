-- Who has asked not to be followed, and which events are not let in at all.

-- rec.admit_some() -> trigger: from now on each event is looked at
create or replace function rec.admit_some()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    perform setval('rec.admits_all', 1, false);
    return null;
end $$;
comment on function rec.admit_some() is
    'Trigger of rec.paused_users and rec.settings: rec.admit() is called for each event from now on. '
    'Others see that at once, before this transaction ends, and if it is rolled back it does no harm.';

create or replace trigger admit_some after insert or update on rec.paused_users
for each row execute function rec.admit_some();
alter table rec.paused_users enable always trigger admit_some;

create or replace trigger admit_some after insert or update of events_kept on rec.settings
for each row execute function rec.admit_some();
alter table rec.settings enable always trigger admit_some;

-- No pause can be on its way while these locks are held.
do $$
begin
    lock table rec.paused_users, rec.settings in share mode;
    perform setval('rec.admits_all', 1, not exists (select from rec.paused_users)
        and not exists (select from rec.settings s where s.events_kept is not null));
end $$;

-- rec.pause_user(user) -> whether he was not paused before
create or replace function rec.pause_user(p_user_id text)
returns boolean language plpgsql volatile
set search_path from current
as $$
begin
    insert into rec.paused_users (user_id) values (p_user_id) on conflict do nothing;
    return found;
end $$;
comment on function rec.pause_user is
    'Keep out the events of a user from now on, by whichever road they come. What is stored stays, and '
    'lists go on from it; rec.forget_user() erases it, and the pause as well.';

-- rec.resume_user(user) -> whether he was paused
create or replace function rec.resume_user(p_user_id text)
returns boolean language plpgsql volatile
set search_path from current
as $$
begin
    delete from rec.paused_users u where u.user_id = p_user_id;
    return found;
end $$;
comment on function rec.resume_user is
    'Let the events of a user in again. Those that came while he was paused are not there.';
