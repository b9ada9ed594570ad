"""Less work for each event: one row for what it adds to the counts, no look at who is paused."""

from alembic import op

revision = "0006"
down_revision = "0005"

# A row used to hold one step between two items; an event adds up to ten of these.
UPGRADE = """
alter table rec.item_deltas
    add column from_items text[] not null default '{}',
    add column step double precision not null default 1;
update rec.item_deltas set from_items = array[from_item], step = amount, amount = 0
where from_item is not null;
alter table rec.item_deltas drop column from_item;

-- Has a value while every event is let in.
create sequence rec.admits_all;
"""

# Signatures that changed; sql/ makes the new ones.
REPLACED = """
drop function if exists rec.add_shares(text[], bigint[], timestamptz[]);
drop function if exists rec.add_deltas(text[], bigint[], timestamptz[]);
drop function if exists rec.steps_of(text, bigint);
"""

DOWNGRADE = """
create or replace trigger admit before insert on rec.events
for each row execute function rec.admit();
drop trigger admit_some on rec.paused_users;
drop trigger admit_some on rec.settings;
drop function rec.admit_some;
drop sequence rec.admits_all;
alter table rec.item_deltas add column from_item text;
insert into rec.item_deltas (user_id, from_item, to_item, amount, at)
select d.user_id, f.item_id, d.to_item, d.step / (cardinality(d.from_items) - f.place + 1), d.at
from rec.item_deltas d
cross join lateral unnest(d.from_items) with ordinality as f (item_id, place);
delete from rec.item_deltas where amount = 0;
alter table rec.item_deltas drop column from_items, drop column step;
"""

# What the sql/ of before does not replace.
ADDED = """
drop function if exists rec.add_shares, rec.add_deltas, rec.steps_of, rec.set_aside,
    rec.rest_lock, rec.try_rest, rec.stop_resting;
"""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(UPGRADE)
    cursor.execute(REPLACED)


def downgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(DOWNGRADE)
    cursor.execute(ADDED)
