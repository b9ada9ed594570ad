-- Users whose events are not stored.

-- Trigger of rec_internal.paused_users and rec.settings: have rec_internal.admit() examine every event from
-- now on. Other sessions see this at once, before this transaction ends; if it is rolled back, the
-- examination does no harm.
create or replace function rec_internal.admit_some()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    perform setval('rec_internal.admits_all', 1, false);
    update rec_internal.admissions set changes = changes + 1;
    return new;
end $$;

create or replace trigger admit_some before insert or update on rec_internal.paused_users
for each row execute function rec_internal.admit_some();
alter table rec_internal.paused_users enable always trigger admit_some;

create or replace trigger admit_some before insert or update of events_kept on rec.settings
for each row execute function rec_internal.admit_some();
alter table rec.settings enable always trigger admit_some;

-- While these locks are held, no other transaction is about to pause a user.
do $$
begin
    lock table rec_internal.paused_users, rec.settings in share mode;
    perform setval('rec_internal.admits_all', 1, not exists (select from rec_internal.paused_users)
        and not exists (select from rec.settings s where s.events_kept is not null));
end $$;

-- Stop storing the events of a user, however they are inserted, and return true; false if the user was
-- already paused. Stored data stays, and lists still use it; rec.forget_user() erases it, and the pause as
-- well.
create or replace function rec.pause_user(p_user_id text)
returns boolean language plpgsql volatile
set search_path from current
as $$
begin
    insert into rec_internal.paused_users (user_id) values (p_user_id) on conflict do nothing;
    return found;
end $$;

-- Store the events of a user again, and return true; false if the user was not paused. Events that were
-- sent during the pause are lost.
create or replace function rec.resume_user(p_user_id text)
returns boolean language plpgsql volatile
set search_path from current
as $$
begin
    delete from rec_internal.paused_users u where u.user_id = p_user_id;
    return found;
end $$;
