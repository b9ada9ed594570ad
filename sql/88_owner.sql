-- Whose the objects are. The functions that run with their owner's rights then run with those of a role
-- that owns schema rec and nothing else, whoever migrates, a superuser included.

-- rec.can_own(role) -> whether rec_owner is there and the role may hand objects to it
create or replace function rec.can_own(p_role name default current_user)
returns boolean language sql stable
set search_path = rec, pg_temp
as $$
    select to_regrole('rec_owner') is not null and coalesce(pg_has_role(
        p_role, to_regrole('rec_owner'),
        case when current_setting('server_version_num')::integer >= 160000
            then 'set' else 'member' end), false);
$$;
comment on function rec.can_own is
    'Whether there is a role rec_owner and p_role is a member who may act as it.';

-- rec.role_advice(role) -> what an administrator has to run before the next migration, NULL if nothing
create or replace function rec.role_advice(p_role name default current_user)
returns text language sql stable
set search_path = rec, pg_temp
as $$
    select string_agg(s.statement, e'\n' order by s.place) from (
        select r.place, format('create role %I nologin;', r.name)
        from unnest('{rec_owner,rec_worker,rec_app,rec_analyst}'::text[])
            with ordinality as r (name, place)
        where to_regrole(r.name) is null
        union all
        select 5, format('grant rec_owner to %I;', p_role) where not rec.can_own(p_role)
    ) s (place, statement);
$$;
comment on function rec.role_advice is
    'The statements with which an administrator completes the roles of pgrec for p_role, who migrates.';

do $$
declare
    v_change text;
begin
    if not rec.can_own() then
        return;
    end if;
    for v_change in
        select 'alter schema rec owner to rec_owner' from pg_namespace n
        where n.nspname = 'rec' and n.nspowner <> to_regrole('rec_owner')
        union all
        select format('alter %s %s owner to rec_owner',
            case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end, c.oid::regclass)
        from pg_class c
        where c.relnamespace = 'rec'::regnamespace
            and (c.relkind in ('r', 'p', 'v')
                or c.relkind = 'S' and not exists (
                    select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i')))
            and c.relowner <> to_regrole('rec_owner') and pg_has_role(c.relowner, 'usage')
        union all
        select format('alter routine %s owner to rec_owner', p.oid::regprocedure)
        from pg_proc p
        where p.pronamespace = 'rec'::regnamespace
            and p.proowner <> to_regrole('rec_owner') and pg_has_role(p.proowner, 'usage')
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    loop
        execute v_change;
    end loop;
end $$;
