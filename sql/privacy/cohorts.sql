-- Counts for people who may see no user: groups of few users are left out. These views run with the rights
-- of their owner, unlike all others, so that a role that may read nothing else can read them. Row-level
-- policies on the tables therefore do not apply: the views count all tenants together, and a role that may
-- see only one tenant gets no right to them. The security barrier keeps functions of the reader from being
-- called on rows before the small groups are left out.

-- Events and users of each day (UTC), domain and kind; domain is NULL for events without an item. Groups of
-- fewer users than settings.minimum_cohort are left out. The difference between two reads may still reveal a
-- single user: to publish counts, release them with noise by `pgrec release`.
create or replace view rec.daily_counts with (security_barrier = true) as
select (e.occurred_at at time zone 'UTC')::date as day, i.domain, e.kind,
    count(*) as events, count(distinct e.user_id) as users
from rec.events e
left join rec.items i on i.item_id = e.item_id
group by day, i.domain, e.kind
having count(distinct e.user_id) >= (select s.minimum_cohort from rec.settings s);

-- Events and users of each item. Items on which fewer than settings.minimum_cohort users have events are left
-- out.
create or replace view rec.item_counts with (security_barrier = true) as
select e.item_id, count(*) as events, count(distinct e.user_id) as users
from rec.events e
where e.item_id is not null
group by e.item_id
having count(distinct e.user_id) >= (select s.minimum_cohort from rec.settings s);
