-- Drops what the last run of sql/ made and this one did not make again: functions with other arguments,
-- renamed views. Whatever the application made in the two schemas stays, unless it depends on such an object.
-- An object was made by this run if this transaction wrote its row of the catalog.

do $$
declare
    v_xid xid := pg_current_xact_id()::xid;
    v_stale record;
begin
    for v_stale in
        select m.kind, m.signature from rec_internal.made m
        where case m.kind
            when 'routine' then exists (
                select from pg_proc p where p.oid = to_regprocedure(m.signature) and p.xmin <> v_xid)
            when 'view' then exists (
                select from pg_rewrite w where w.ev_class = to_regclass(m.signature) and w.xmin <> v_xid)
            when 'type' then exists (
                select from pg_type t where t.oid = to_regtype(m.signature) and t.xmin <> v_xid)
        end
    loop
        execute format('drop %s if exists %s cascade', v_stale.kind, v_stale.signature);
    end loop;
    delete from rec_internal.made;
    insert into rec_internal.made (kind, signature)
    select 'routine', format('%s.%I(%s)', p.pronamespace::regnamespace, p.proname, (
        select string_agg(format_type(a.type, null), ', ' order by a.place)
        from unnest(p.proargtypes) with ordinality as a (type, place)))
    from pg_proc p
    where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace) and p.xmin = v_xid
        and p.proname not in ('content_hash', 'item_hash', 'spoken_attributes')
    union all
    select 'view', format('%s.%I', c.relnamespace::regnamespace, c.relname)
    from pg_class c
    where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace) and c.relkind = 'v'
        and exists (select from pg_rewrite w where w.ev_class = c.oid and w.xmin = v_xid)
    union all
    select 'type', format('%s.%I', c.relnamespace::regnamespace, c.relname)
    from pg_class c
    where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace) and c.relkind = 'c'
        and c.xmin = v_xid;
end $$;
