-- What `pgrec tune` reads and what it changes.

-- The latest p_limit events as pgrec tune reads them: no user id, no text.
create or replace function rec_internal.tuning_log(p_limit integer)
returns table (
    user_number bigint, item_id text, text_hash bytea, weight double precision,
    kind_weight double precision, marks_seen boolean, at double precision)
language sql stable
set search_path from current
as $$
    select dense_rank() over (order by e.user_id) - 1, e.item_id, e.text_hash,
        rec_internal.event_weight(k.weight, k.neutral, k.scale, e.value), k.weight, k.marks_seen,
        extract(epoch from least(e.occurred_at, e.received_at))::double precision
    from (
        select l.user_id, l.event_id, l.item_id, l.text_hash, l.kind, l.value, l.occurred_at,
            l.received_at
        from rec.events l order by l.occurred_at desc, l.event_id desc limit p_limit
    ) e
    join rec.event_kinds k on k.kind = e.kind
    order by e.occurred_at, e.event_id;
$$;

-- The settings that tuning may change, as they are: all weights of a ranker, its latest_decay and
-- session_half_life, and the half-life of popularity, which all rankers share.
create or replace function rec_internal.tunable_settings(p_ranker text)
returns jsonb language sql stable
set search_path from current
as $$
    select jsonb_object_agg(c.key, c.value)
        || (select jsonb_build_object('popularity_half_life', s.popularity_half_life) from rec.settings s)
    from jsonb_each(to_jsonb(rec_internal.ranker(p_ranker))) as c
    where c.key like '%\_weight' or c.key in ('latest_decay', 'session_half_life');
$$;

-- Change the tunable settings that p_settings names. If the half-life of popularity changes, all counts are
-- computed again from the log.
create or replace function rec_internal.change_settings(p_ranker text, p_settings jsonb)
returns void language plpgsql volatile
set search_path from current
as $$
declare
    v_new rec.rankers;
    v_half_life interval := (
        select (jsonb_populate_record(s, p_settings)).popularity_half_life from rec.settings s);
begin
    select r.* into v_new from rec.rankers r where r.ranker = p_ranker for update;
    v_new := jsonb_populate_record(v_new, p_settings);
    update rec.rankers r set
        content_weight = v_new.content_weight, latest_weight = v_new.latest_weight,
        closest_weight = v_new.closest_weight, transition_weight = v_new.transition_weight,
        together_weight = v_new.together_weight, trend_weight = v_new.trend_weight,
        newness_weight = v_new.newness_weight, repeat_weight = v_new.repeat_weight,
        aversion_weight = v_new.aversion_weight, latest_decay = v_new.latest_decay,
        session_weight = v_new.session_weight, session_half_life = v_new.session_half_life
    where r.ranker = p_ranker;
    update rec.settings s set popularity_half_life = v_half_life
    where s.popularity_half_life <> v_half_life;
    if found then
        perform rec.rebuild_collaborative();
    end if;
end $$;

-- Store what a run of tuning found for a ranker and, if p_adopt, change its settings; return the tuning_id of
-- the stored run.
create or replace function rec_internal.record_tuning(
    p_ranker text, p_after jsonb, p_figures jsonb, p_adopt boolean)
returns bigint language plpgsql volatile
set search_path from current
as $$
declare
    v_before jsonb := rec_internal.tunable_settings(p_ranker);
    v_tuning_id bigint;
begin
    if p_adopt then
        perform rec_internal.change_settings(p_ranker, p_after);
    end if;
    insert into rec.tunings (ranker, before, after, figures, adopted)
    values (p_ranker, v_before, v_before || p_after, p_figures, p_adopt)
    returning tuning_id into v_tuning_id;
    return v_tuning_id;
end $$;

-- Restore the settings from before the last adopted tuning of a ranker that was not undone, and return the
-- tuning_id of that run; NULL if there is none.
create or replace function rec.undo_tuning(p_ranker text default 'default')
returns bigint language plpgsql volatile
set search_path from current
as $$
declare
    v_ranker rec.rankers := rec_internal.ranker(p_ranker);
    v_tuning rec.tunings;
begin
    select t.* into v_tuning from rec.tunings t
    where t.ranker = v_ranker.ranker and t.adopted and t.undone_at is null
    order by t.tuning_id desc limit 1 for update;
    if v_tuning.tuning_id is null then
        return null;
    end if;
    perform rec_internal.change_settings(v_tuning.ranker, v_tuning.before);
    update rec.tunings t set undone_at = now() where t.tuning_id = v_tuning.tuning_id;
    return v_tuning.tuning_id;
end $$;
