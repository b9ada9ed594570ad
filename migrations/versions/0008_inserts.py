"""An event costs less to insert: fewer conditions, checks and indexes."""

from alembic import op

revision = "0008"
down_revision = "0007"

# The server reads and plans each CHECK of a table, and each condition of a trigger, anew in every
# statement, and opens each index even for rows that it leaves out. What the checks of the queue
# refuse no INSERT into rec.events can make. The trigger admit of sql/ does what hash_text did.
UPGRADE = """
alter table rec.pending
    drop constraint pending_attempts_check, drop constraint pending_parked_with_reason;
drop index rec.pending_texts, rec.pending_parked;
create index pending_texts_and_parked on rec.pending (retry_at, user_id, event_id)
    where has_text or retry_at = 'infinity';
drop trigger if exists hash_text on rec.events;
drop function if exists rec.hash_text;
"""

# Inserts go on before the sql/ of before is there.
DOWNGRADE = """
update rec.pending set error = 'no reason given' where retry_at = 'infinity' and error is null;
alter table rec.pending
    add constraint pending_attempts_check check (attempts >= 0),
    add constraint pending_parked_with_reason check (retry_at <> 'infinity' or error is not null);
drop index rec.pending_texts_and_parked;
create index pending_texts on rec.pending (user_id, event_id) where has_text;
create index pending_parked on rec.pending (user_id, event_id) where retry_at = 'infinity';
create or replace function rec.admit()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    if exists (select from rec.paused_users u where u.user_id = new.user_id) then
        return null;
    end if;
    -- Less than a day is never dropped, so that fresh events are spared the look.
    if new.occurred_at < now() - interval '1 day' and exists (
        select from rec.settings s where new.occurred_at < now() - s.events_kept) then
        return null;
    end if;
    return new;
end $$;
create or replace trigger admit before insert on rec.events
for each row when (pg_sequence_last_value('rec.admits_all') is null)
execute function rec.admit();
create or replace function rec.hash_text()
returns trigger language plpgsql security definer
set search_path = rec, pg_temp
as $$
begin
    if octet_length(new.kind) > 200 then
        raise exception 'the kind of an event has at most 200 bytes'
            using errcode = 'string_data_right_truncation',
            hint = 'The kinds are the rows of rec.event_kinds.';
    end if;
    if btrim(new.text) = '' then
        new.text := null;
    end if;
    new.text_hash := rec.content_hash(new.text);
    if new.text_hash is not null
        and not pg_try_advisory_xact_lock_shared(rec.rest_lock()) then
        notify rec_events;
    end if;
    new.received_at := least(new.received_at, now());
    return new;
end $$;
create or replace trigger hash_text before insert on rec.events
for each row when (
    new.text is not null or new.received_at > now() or octet_length(new.kind) > 200)
execute function rec.hash_text();
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(UPGRADE)


def downgrade() -> None:
    op.get_bind().connection.cursor().execute(DOWNGRADE)
