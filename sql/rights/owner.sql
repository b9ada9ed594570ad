-- Gives all objects to rec_owner. So SECURITY DEFINER functions run with the rights of a role that owns the
-- two schemas and nothing else, even if a superuser migrates.

-- Whether the role rec_owner exists and p_role may act as rec_owner, and so can give objects to it.
create or replace function rec_internal.can_own(p_role name default current_user)
returns boolean language sql stable
set search_path = rec, pg_temp
as $$
    select to_regrole('rec_owner') is not null and coalesce(pg_has_role(
        p_role, to_regrole('rec_owner'),
        case when current_setting('server_version_num')::integer >= 160000
            then 'set' else 'member' end), false);
$$;

-- The statements that an administrator has to run before p_role migrates again, to complete the roles of
-- pgrec; NULL if nothing is missing.
create or replace function rec_internal.role_advice(p_role name default current_user)
returns text language sql stable
set search_path = rec, pg_temp
as $$
    select string_agg(s.statement, e'\n' order by s.place) from (
        select r.place, format('create role %I nologin;', r.name)
        from unnest('{rec_owner,rec_worker,rec_app,rec_analyst}'::text[])
            with ordinality as r (name, place)
        where to_regrole(r.name) is null
        union all
        select 5, format('grant rec_owner to %I;', p_role) where not rec_internal.can_own(p_role)
    ) s (place, statement);
$$;

do $$
declare
    v_change text;
begin
    if not rec_internal.can_own() then
        return;
    end if;
    for v_change in
        select format('alter schema %I owner to rec_owner', n.nspname) from pg_namespace n
        where n.nspname in ('rec', 'rec_internal') and n.nspowner <> to_regrole('rec_owner')
        union all
        select format('alter %s %s owner to rec_owner',
            case c.relkind when 'v' then 'view' when 'S' then 'sequence' when 'c' then 'type' else 'table' end,
            c.oid::regclass)
        from pg_class c
        where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)
            and (c.relkind in ('r', 'p', 'v', 'c')
                or c.relkind = 'S' and not exists (
                    select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i')))
            and c.relowner <> to_regrole('rec_owner') and pg_has_role(c.relowner, 'usage')
        union all
        select format('alter routine %s owner to rec_owner', p.oid::regprocedure)
        from pg_proc p
        where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace)
            and p.proowner <> to_regrole('rec_owner') and pg_has_role(p.proowner, 'usage')
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    loop
        execute v_change;
    end loop;
end $$;
