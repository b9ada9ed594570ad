-- Who may do what. All rights of PUBLIC and of the roles of 05_roles.sql in schema rec are taken back and
-- given anew, so that what stands here is what holds; rights of other roles are left alone. A role
-- that is not there gets nothing until it is and the next migration comes.

do $$
declare
    v_others text := (
        select 'public' || coalesce(string_agg(format(', %I', r.rolname), ''), '')
        from pg_roles r where r.rolname in ('rec_worker', 'rec_app', 'rec_analyst'));
    v_home regnamespace := (
        select e.extnamespace from pg_extension e where e.extname = 'vector');
    v_change text;
begin
    for v_change in
        select format('revoke all on schema rec from %s', v_others)
        union all
        select format('revoke all on %s from %s', c.oid::regclass, v_others)
        from pg_class c
        where c.relnamespace = 'rec'::regnamespace and c.relkind in ('r', 'p', 'v')
            and pg_has_role(c.relowner, 'usage')
        union all
        select format('revoke all on sequence %s from %s', c.oid::regclass, v_others)
        from pg_class c
        where c.relnamespace = 'rec'::regnamespace and c.relkind = 'S'
            and pg_has_role(c.relowner, 'usage')
        union all
        select format('revoke all on routine %s from %s', p.oid::regprocedure, v_others)
        from pg_proc p
        where p.pronamespace = 'rec'::regnamespace and pg_has_role(p.proowner, 'usage')
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    loop
        execute v_change;
    end loop;

    for v_change in
        select format('grant %s on %s to %s', g.rights, g.objects, g.role)
        from (values
            -- Whoever may write an item may compute its hash, a generated column.
            ('public', 'execute', 'function rec.item_hash'),
            -- Whoever may write an event may see whether each is looked at.
            ('public', 'select', 'sequence rec.admits_all'),
            -- Each finds what it may see; without usage of the schema nobody gets here.
            ('public', 'execute', 'function rec.health, rec.finding, rec.health_server, '
                'rec.health_rights, rec.health_settings, rec.health_vectors, rec.health_plan, '
                'rec.health_log, rec.health_queue, rec.health_tables'),

            -- The application: it logs events, asks for lists, and serves its users' own data. The
            -- reading functions run with its rights, so it may read what they read; all that it
            -- may write is an event, and less than all of that: neither hash nor time of receipt.
            ('rec_app', 'usage', 'schema rec'),
            ('rec_app', 'select', 'rec.items, rec.item_vectors, rec.event_kinds, rec.horizons, '
                'rec.settings, rec.encoders, rec.popularity, rec.item_transitions'),
            ('rec_app', 'select', 'rec.events, rec.pending, rec.user_interests, rec.texts, '
                'rec.item_deltas, rec.interest_bases'),
            ('rec_app', 'select, insert (user_id), delete', 'rec.paused_users'),
            ('rec_app', 'insert (user_id, item_id, kind, text, value, dedupe_key, occurred_at)',
                'rec.events'),
            ('rec_app', 'select', 'rec.event_vectors, rec.chosen_events, rec.folded_events, '
                'rec.status, rec.queue, rec.parked'),
            ('rec_app', 'select, delete', 'rec.visible_users, rec.visible_events'),
            ('rec_app', 'execute', 'function rec.track, rec.recommend, rec.explain, '
                'rec.similar_items, rec.popular, rec.next_items, rec.companion_items, rec.interest, '
                'rec.topics, rec.nearest, rec.seen_items, rec.latest_items, rec.wake'),
            ('rec_app', 'execute', 'function rec.export_user, rec.forget_user, rec.undo_event, '
                'rec.owns_data, rec.forget_if_visible, rec.undo_if_visible, rec.export_events, '
                'rec.export_interests, rec.in_words, rec.pause_user, rec.resume_user'),
            ('rec_app', 'execute', 'function rec.list_length, rec.attribute_filter, '
                'rec.matches_few, rec.candidates, rec.score, rec.dislikes, '
                'rec.flows, rec.latest_shares, rec.current_sums, rec.replay, rec.diversify, '
                'rec.explore, rec.moment, rec.ahead, rec.profile, rec.terms, '
                'rec.transitions, rec.companions, rec.strongest, rec.neighbours, rec.indexed_neighbours, '
                'rec.hides_items, rec.prepare_search, rec.passing, rec.newest'),
            ('rec_app', 'execute', 'function rec.content_hash, rec.pow2, rec.decay, rec.scaled, '
                'rec.decayed, rec.event_weight, rec.log_mass, rec.mass_at, rec.seconds, rec.faded'),

            -- The worker: it encodes and folds. It cannot insert, change or delete an event or an
            -- item, beyond noting which content of an item was encoded and dropping raw texts.
            ('rec_worker', 'usage', 'schema rec'),
            ('rec_worker', 'select', 'rec.items, rec.events, rec.event_kinds, rec.horizons, '
                'rec.settings, rec.event_vectors, rec.chosen_events, rec.folded_events, rec.queue'),
            ('rec_worker', 'update (encoded_hash, encode_error)', 'rec.items'),
            ('rec_worker', 'select, insert, update (embedding), delete', 'rec.item_vectors'),
            ('rec_worker', 'update (text)', 'rec.events'),
            ('rec_worker', 'select, update (cleared_at)', 'rec.erasures'),
            ('rec_worker', 'select', 'rec.erasure_status'),
            ('rec_worker', 'select, insert', 'rec.texts'),
            ('rec_worker', 'select, insert, update (active)', 'rec.encoders'),
            ('rec_worker', 'select, update (attempts, retry_at, error), delete', 'rec.pending'),
            ('rec_worker', 'select, insert, update', 'rec.user_interests'),
            ('rec_worker', 'select, insert, delete', 'rec.item_deltas'),
            ('rec_worker', 'select, insert, update, delete',
                'rec.popularity, rec.item_transitions'),
            ('rec_worker', 'execute', 'function rec.register_encoder, rec.check_encoder, '
                'rec.active_encoder, rec.claim_items, rec.claim_texts, rec.store_items, '
                'rec.store_texts, rec.fail_item, rec.space_lock, rec.try_share_space, '
                'rec.share_space, rec.make_partitions, rec.text_lock'),
            ('rec_worker', 'execute', 'function rec.apply_pending, rec.apply_users, rec.user_lock, '
                'rec.add_shares, rec.add_deltas, rec.set_aside, rec.postpone, rec.hasten, rec.retry, rec.park, '
                'rec.oldest_pending, rec.part_of_queue, rec.merge_deltas, rec.merge_changes, rec.apply_event, '
                'rec.fold_claimed, rec.texts_lock, rec.drop_raw_texts_of, rec.revive'),
            ('rec_worker', 'execute', 'function rec.apply_retention, rec.vacuum_due, rec.held_age, '
                'rec.personal_tables, rec.begin_vacuum, rec.forget_statistics, rec.end_vacuum, '
                'rec.is_at_work, rec.end_sessions'),
            ('rec_worker', 'execute', 'function rec.has_work, rec.wake, rec.sleep_lock, '
                'rec.try_sleep, rec.stop_sleeping, rec.seconds_to_retry, rec.rest_lock'),
            ('rec_worker', 'execute', 'function rec.pow2, rec.decay, rec.event_weight, rec.log_mass, '
                'rec.add_mass, rec.seconds, rec.faded'),

            -- The analyst: the catalogue and what is no one person's. Views for him are named here,
            -- and read what they need with the rights of their owner.
            ('rec_analyst', 'usage', 'schema rec'),
            ('rec_analyst', 'select', 'rec.items, rec.event_kinds, rec.horizons, '
                'rec.daily_counts, rec.item_counts, rec.releases')
        ) g (role, rights, objects)
        where g.role = 'public' or to_regrole(g.role) is not null
    loop
        execute v_change;
    end loop;

    -- The vacuum after erasures, from PostgreSQL 17 on; before, it is the owner's alone.
    for v_change in
        select format('grant maintain on %s to rec_worker', m.relid)
        from rec.personal_tables() t
        cross join lateral (
            select t.name::regclass
            union select p.relid from pg_partition_tree(t.name::regclass) p) m (relid)
        where to_regrole('rec_worker') is not null
            and current_setting('server_version_num')::integer >= 170000
    loop
        execute v_change;
    end loop;

    -- Rights that an administrator may have to give. Where pgvector has a schema of its own, its types
    -- and operators are out of reach without the first; by the second whoever vacuums sees whether
    -- anybody can still read what was erased.
    for v_change in
        select format('grant usage on schema %s to %I', v_home, r.rolname)
        from pg_roles r
        where r.rolname in ('rec_owner', 'rec_worker', 'rec_app', 'rec_analyst')
            and not has_schema_privilege(r.rolname, v_home, 'usage')
        union all
        select format('grant pg_read_all_stats to %I', r.rolname)
        from pg_roles r
        where r.rolname in ('rec_owner', 'rec_worker')
            and not pg_has_role(r.oid, 'pg_read_all_stats', 'usage')
    loop
        begin
            execute v_change;
        exception when insufficient_privilege then
            raise warning 'an administrator has to run: %', v_change;
        end;
    end loop;
end $$;
