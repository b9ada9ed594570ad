-- Users whose events are not stored.

-- Trigger of rec_internal.paused_users and rec.settings: rec_internal.admit() is called for each event from now on.
-- Others see that at once, before this transaction ends, and if it is rolled back it does no harm.
create or replace function rec_internal.admit_some()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    perform setval('rec_internal.admits_all', 1, false);
    return null;
end $$;

create or replace trigger admit_some after insert or update on rec_internal.paused_users
for each row execute function rec_internal.admit_some();
alter table rec_internal.paused_users enable always trigger admit_some;

create or replace trigger admit_some after insert or update of events_kept on rec.settings
for each row execute function rec_internal.admit_some();
alter table rec.settings enable always trigger admit_some;

-- No pause can be under way while these locks are held.
do $$
begin
    lock table rec_internal.paused_users, rec.settings in share mode;
    perform setval('rec_internal.admits_all', 1, not exists (select from rec_internal.paused_users)
        and not exists (select from rec.settings s where s.events_kept is not null));
end $$;

-- Keep out the events of a user from now on, by whichever road they come. What is stored stays, and
-- lists go on from it; rec.forget_user() erases it, and the pause as well.
create or replace function rec.pause_user(p_user_id text)
returns boolean language plpgsql volatile
set search_path from current
as $$
begin
    insert into rec_internal.paused_users (user_id) values (p_user_id) on conflict do nothing;
    return found;
end $$;

-- Let the events of a user in again. Those that came while he was paused are not there.
create or replace function rec.resume_user(p_user_id text)
returns boolean language plpgsql volatile
set search_path from current
as $$
begin
    delete from rec_internal.paused_users u where u.user_id = p_user_id;
    return found;
end $$;
