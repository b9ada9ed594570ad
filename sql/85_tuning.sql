-- The ranker fitted to the deployment's own log: what is read for it, and what it changes.

-- rec.tuning_log(limit) -> the latest events, oldest first, users by number
create or replace function rec.tuning_log(p_limit integer)
returns table (
    user_number bigint, item_id text, text_hash bytea, weight double precision,
    kind_weight double precision, marks_seen boolean, at double precision)
language sql stable
set search_path from current
as $$
    select dense_rank() over (order by e.user_id) - 1, e.item_id, e.text_hash,
        rec.event_weight(k.weight, k.neutral, k.scale, e.value), k.weight, k.marks_seen,
        extract(epoch from least(e.occurred_at, e.received_at))::double precision
    from (
        select l.user_id, l.event_id, l.item_id, l.text_hash, l.kind, l.value, l.occurred_at,
            l.received_at
        from rec.events l order by l.occurred_at desc, l.event_id desc limit p_limit
    ) e
    join rec.event_kinds k on k.kind = e.kind
    order by e.occurred_at, e.event_id;
$$;
comment on function rec.tuning_log is
    'The latest p_limit events as pgrec tune reads them: no user id, no text.';

-- rec.tunable_settings() -> the settings that tuning may change
create or replace function rec.tunable_settings()
returns jsonb language sql stable
set search_path from current
as $$
    select jsonb_build_object(
        'content_weight', s.content_weight, 'latest_weight', s.latest_weight,
        'closest_weight', s.closest_weight, 'transition_weight', s.transition_weight,
        'together_weight', s.together_weight, 'trend_weight', s.trend_weight,
        'newness_weight', s.newness_weight, 'repeat_weight', s.repeat_weight,
        'aversion_weight', s.aversion_weight, 'latest_decay', s.latest_decay,
        'session_weight', s.session_weight, 'session_half_life', s.session_half_life,
        'popularity_half_life', s.popularity_half_life)
    from rec.settings s;
$$;
comment on function rec.tunable_settings is 'The settings that pgrec tune may change, as they are.';

-- rec.change_settings(settings) -> nothing; counts are made anew if their half-life changes
create or replace function rec.change_settings(p_settings jsonb)
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_old rec.settings;
    v_new rec.settings;
begin
    select * into v_old from rec.settings for update;
    v_new := jsonb_populate_record(v_old, p_settings);
    update rec.settings set
        content_weight = v_new.content_weight, latest_weight = v_new.latest_weight,
        closest_weight = v_new.closest_weight, transition_weight = v_new.transition_weight,
        together_weight = v_new.together_weight, trend_weight = v_new.trend_weight,
        newness_weight = v_new.newness_weight, repeat_weight = v_new.repeat_weight,
        aversion_weight = v_new.aversion_weight, latest_decay = v_new.latest_decay,
        session_weight = v_new.session_weight, session_half_life = v_new.session_half_life,
        popularity_half_life = v_new.popularity_half_life;
    if v_new.popularity_half_life <> v_old.popularity_half_life then
        perform rec.rebuild_collaborative();
    end if;
end $$;
comment on function rec.change_settings is
    'Change those of the tunable settings that p_settings names; masses are made anew from the log '
    'if the half-life of popularity changes.';

-- rec.record_tuning(after, figures, adopt) -> id of the record; the settings change if adopt
create or replace function rec.record_tuning(p_after jsonb, p_figures jsonb, p_adopt boolean)
returns bigint language plpgsql volatile
set search_path from current
as $$
declare
    v_before jsonb := rec.tunable_settings();
    v_tuning_id bigint;
begin
    if p_adopt then
        perform rec.change_settings(p_after);
    end if;
    insert into rec.tunings (before, after, figures, adopted)
    values (v_before, v_before || p_after, p_figures, p_adopt)
    returning tuning_id into v_tuning_id;
    return v_tuning_id;
end $$;
comment on function rec.record_tuning is
    'Keep what a run of pgrec tune found, and change the settings if p_adopt.';

-- rec.undo_tuning() -> id of the tuning that was taken back, NULL if there is none
create or replace function rec.undo_tuning()
returns bigint language plpgsql volatile
set search_path from current
as $$
declare
    v_tuning rec.tunings;
begin
    select t.* into v_tuning from rec.tunings t
    where t.adopted and t.undone_at is null
    order by t.tuning_id desc limit 1 for update;
    if v_tuning.tuning_id is null then
        return null;
    end if;
    perform rec.change_settings(v_tuning.before);
    update rec.tunings t set undone_at = now() where t.tuning_id = v_tuning.tuning_id;
    return v_tuning.tuning_id;
end $$;
comment on function rec.undo_tuning is
    'Bring back the settings from before the last tuning that was adopted.';
