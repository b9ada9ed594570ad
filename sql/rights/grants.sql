-- Who may do what. All rights of PUBLIC and of the roles of roles.sql in the two schemas are revoked and
-- granted again, so that this file alone decides about them; rights of other roles are left alone. A role
-- that does not exist yet gets its rights from the first migration after its creation.

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
        select format('revoke all on schema rec, rec_internal from %s', v_others)
        union all
        select format('revoke all on %s from %s', c.oid::regclass, v_others)
        from pg_class c
        where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace) and c.relkind in ('r', 'p', 'v')
            and pg_has_role(c.relowner, 'usage')
        union all
        select format('revoke all on sequence %s from %s', c.oid::regclass, v_others)
        from pg_class c
        where c.relnamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace) and c.relkind = 'S'
            and pg_has_role(c.relowner, 'usage')
        union all
        select format('revoke all on routine %s from %s', p.oid::regprocedure, v_others)
        from pg_proc p
        where p.pronamespace in ('rec'::regnamespace, 'rec_internal'::regnamespace) and pg_has_role(p.proowner, 'usage')
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    loop
        execute v_change;
    end loop;

    for v_change in
        select format('grant %s on %s to %s', g.rights, g.objects, r.role)
        from (values
            -- Every role that may write an item has to compute its hash, a generated column.
            ('public', 'execute',
                'function rec_internal.item_hash, rec_internal.spoken_attributes'),
            -- Every role that may write an event has to read whether each event is examined.
            ('public', 'select', 'sequence rec_internal.admits_all'),

            -- Every role that may use the schemas may ask for findings; each shows what its caller may see.
            ('rec_app, rec_worker, rec_analyst', 'usage', 'schema rec, rec_internal'),
            ('public', 'execute', 'function rec.health, rec_internal.finding, '
                'rec_internal.health_server, rec_internal.health_rights, rec_internal.health_settings, '
                'rec_internal.health_vectors, rec_internal.health_plan, rec_internal.health_log, '
                'rec_internal.health_queue, rec_internal.health_tables'),

            -- The application logs events, asks for lists, and serves the data of its users. The reading
            -- functions run with its rights, so it may read what they read. It may insert events, though
            -- neither their hash nor their time of receipt, and pauses.
            ('rec_app', 'select', 'rec.items, rec.item_vectors, rec.event_kinds, rec.horizons, '
                'rec.rankers, rec.settings, rec_internal.popularity, rec_internal.item_transitions'),
            -- A calibration is fitted on the items of all tenants.
            ('rec_app', 'select (fingerprint, name, record, dims, active, created_at, base)',
                'rec_internal.encoders'),
            ('rec_app', 'select', 'rec.events, rec.user_interests, rec_internal.pending, '
                'rec_internal.texts, rec_internal.item_deltas, rec_internal.interest_bases'),
            ('rec_app, rec_worker', 'select', 'rec_internal.state'),
            ('rec_app', 'select, insert (user_id), delete', 'rec_internal.paused_users'),
            ('rec_app', 'insert (user_id, item_id, kind, text, value, dedupe_key, occurred_at)',
                'rec.events'),
            ('rec_app', 'select', 'rec_internal.event_vectors, rec_internal.chosen_events, '
                'rec_internal.folded_events, rec.status, rec_internal.queue, rec.parked'),
            ('rec_app', 'select, delete', 'rec_internal.visible_users, rec_internal.visible_events'),
            ('rec_app', 'execute', 'function rec.track, rec.recommend, rec.score, rec.explain, '
                'rec.explain_list, rec.similar_items, rec.popular, rec.next_items, rec.companion_items, '
                'rec.interest, rec.topics, rec.nearest, rec.seen_items, rec.latest_items, rec.wake'),
            ('rec_app', 'execute', 'function rec.export_user, rec.forget_user, rec.undo_event, '
                'rec.pause_user, rec.resume_user, rec_internal.owns_data, '
                'rec_internal.forget_if_visible, rec_internal.undo_if_visible, '
                'rec_internal.export_events, rec_internal.export_interests, rec_internal.in_words'),
            ('rec_app', 'execute', 'function rec_internal.list_length, rec_internal.attribute_filter, '
                'rec_internal.moment, rec_internal.ranker, rec_internal.diversity, '
                'rec_internal.latest_events, rec_internal.latest_shares, '
                'rec_internal.dislikes, rec_internal.topics, rec_internal.current_sums, '
                'rec_internal.replay, rec_internal.flows, rec_internal.transitions, '
                'rec_internal.companions'),
            ('rec_app', 'execute', 'function rec_internal.passes, rec_internal.passing, '
                'rec_internal.newest, rec_internal.strongest, rec_internal.hides_items, '
                'rec_internal.is_partial, rec_internal.plan_for, rec_internal.set_depth, '
                'rec_internal.restore_depth, rec_internal.matches_few, rec_internal.neighbours, rec_internal.indexed_neighbours, '
                'rec_internal.profile_of, rec_internal.candidates, rec_internal.terms, '
                'rec_internal.rerank, rec_internal.diversify, rec_internal.explore'),
            ('rec_app', 'execute', 'function rec_internal.content_hash, rec_internal.scaled, '
                'rec_internal.decayed_sum, rec_internal.mass_at, rec_internal.share, '
                'rec_internal.share_mass'),
            ('rec_app, rec_worker', 'execute', 'function rec_internal.pow2, rec_internal.decay, '
                'rec_internal.seconds, rec_internal.negligible, rec_internal.event_weight, '
                'rec_internal.event_vector, rec_internal.log_mass, rec_internal.decayed_mass, '
                'rec_internal.is_due, rec_internal.is_waiting, rec_internal.is_parked, '
                'rec_internal.queue_state'),

            -- The worker encodes and folds. It cannot insert, change or delete an event or an item, except
            -- that it records which content of an item was encoded, and drops raw texts.
            ('rec_worker', 'select', 'rec.items, rec.events, rec.event_kinds, rec.horizons, '
                'rec.settings, rec_internal.event_vectors, '
                'rec_internal.chosen_events, rec_internal.folded_events, rec_internal.queue'),
            ('rec_worker', 'update (encoded_hash, encode_error)', 'rec.items'),
            ('rec_worker', 'select, insert, update (embedding), delete', 'rec.item_vectors'),
            ('rec_worker', 'update (text)', 'rec.events'),
            ('rec_worker', 'select, update (cleared_at)', 'rec_internal.erasures'),
            ('rec_worker', 'select', 'rec.erasure_status'),
            ('rec_worker', 'select, insert', 'rec_internal.texts'),
            ('rec_worker', 'select, insert, update (active)', 'rec_internal.encoders'),
            ('rec_worker', 'select, update (attempts, retry_at, error), delete', 'rec_internal.pending'),
            ('rec_worker', 'select, insert, update', 'rec.user_interests'),
            ('rec_worker', 'select, insert, delete', 'rec_internal.item_deltas'),
            ('rec_worker', 'select, insert, update, delete',
                'rec_internal.popularity, rec_internal.item_transitions'),
            ('rec_worker', 'execute', 'function rec.make_partitions, rec.apply_pending, '
                'rec.apply_users, rec.merge_deltas, rec.retry, rec.apply_retention, rec.wake'),
            ('rec_worker', 'execute', 'function rec_internal.register_encoder, '
                'rec_internal.check_encoder, rec_internal.active_encoder, rec_internal.claim_items, '
                'rec_internal.claim_texts, rec_internal.release_claims, rec_internal.store_items, '
                'rec_internal.store_texts, rec_internal.fail_item'),
            ('rec_worker', 'execute', 'function rec_internal.space_lock, rec_internal.try_share_space, '
                'rec_internal.share_space, rec_internal.user_lock, rec_internal.text_lock, '
                'rec_internal.texts_lock, rec_internal.counts_lock, rec_internal.item_lock, '
                'rec_internal.encoder_lock, rec_internal.sleep_lock, rec_internal.rest_lock'),
            ('rec_worker', 'execute', 'function rec_internal.apply_event, rec_internal.fold_claimed, '
                'rec_internal.add_shares, rec_internal.add_deltas, rec_internal.merge_changes, '
                'rec_internal.add_mass, rec_internal.requeue, rec_internal.postpone, '
                'rec_internal.retry_waiting, rec_internal.retry_known, rec_internal.park, '
                'rec_internal.oldest_pending, rec_internal.part_of_queue, '
                'rec_internal.drop_raw_texts_of'),
            ('rec_worker', 'execute', 'function rec_internal.vacuum_due, rec_internal.held_age, '
                'rec_internal.personal_tables, rec_internal.qualified, rec_internal.begin_vacuum, '
                'rec_internal.forget_statistics, rec_internal.end_vacuum'),
            ('rec_worker', 'execute', 'function rec_internal.has_work, rec_internal.try_sleep, '
                'rec_internal.stop_sleeping, rec_internal.seconds_to_retry, rec_internal.is_at_work, '
                'rec_internal.end_sessions'),

            -- The analyst reads the catalogue and what belongs to no single person. The views named here
            -- read what they need with the rights of their owner.
            ('rec_analyst', 'select', 'rec.items, rec.event_kinds, rec.horizons, '
                'rec.daily_counts, rec.item_counts, rec.releases')
        ) g (roles, rights, objects)
        cross join lateral string_to_table(g.roles, ', ') as r (role)
        where r.role = 'public' or to_regrole(r.role) is not null
    loop
        execute v_change;
    end loop;

    -- The vacuum after erasures. Before PostgreSQL 17 only the owner can run it.
    for v_change in
        select format('grant maintain on %s to rec_worker', m.relid)
        from rec_internal.personal_tables() t
        cross join lateral (
            select t.name::regclass
            union select p.relid from pg_partition_tree(t.name::regclass) p) m (relid)
        where to_regrole('rec_worker') is not null
            and current_setting('server_version_num')::integer >= 170000
    loop
        execute v_change;
    end loop;

    -- Rights that an administrator may have to give. Without the first, types and operators of pgvector are
    -- out of reach where it has a schema of its own. The second lets a role that vacuums see whether another
    -- session can still read what was erased.
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
