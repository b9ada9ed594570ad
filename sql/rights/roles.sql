-- The roles that grants.sql gives rights to. All databases of a server share them, and nobody logs in as
-- one of them: membership decides who may do what. The migration creates them if its role may create roles;
-- otherwise rec_internal.role_advice() returns what an administrator has to run. When two databases are
-- migrated at once, the second migration finds the role, or collides with the first one and leaves the role
-- alone.

do $$
declare
    v_role text;
begin
    foreach v_role in array '{rec_owner,rec_worker,rec_app,rec_analyst}'::text[] loop
        begin
            if to_regrole(v_role) is null then
                execute format('create role %I nologin', v_role);
                if v_role = 'rec_owner' and not pg_has_role('rec_owner', 'usage') then
                    execute format('grant rec_owner to %I', current_user);
                end if;
            end if;
        exception when insufficient_privilege or duplicate_object or unique_violation then
            null;
        end;
    end loop;
end $$;
