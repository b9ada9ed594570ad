-- Counts that are published with noise, and the privacy budget that they use up. `pgrec release` adds the
-- noise with OpenDP.

-- Numbers of users with an event from p_since up to p_until, by `kind`, `domain` or `item`, before noise is
-- added. Every key in rec.event_kinds or in the catalogue has a row, even if it has 0 users. Each user
-- counts under at most p_keys_per_user keys, chosen by a hash, so that without one user the numbers differ
-- by at most that much in total.
create or replace function rec_internal.bounded_counts(
    p_by text, p_since timestamptz, p_until timestamptz, p_keys_per_user integer)
returns table (key text, users bigint)
language sql stable
set search_path from current
as $$
    with known as materialized (
        select k.kind as key from rec.event_kinds k where p_by = 'kind'
        union select i.domain from rec.items i where p_by = 'domain'
        union select i.item_id from rec.items i where p_by = 'item'
    ), own as (
        select distinct e.user_id,
            case p_by when 'kind' then e.kind when 'domain' then i.domain else e.item_id end as key
        from rec.events e left join rec.items i on i.item_id = e.item_id
        where e.occurred_at >= p_since and e.occurred_at < p_until
    ), counted as (
        select o.key, row_number() over (
            partition by o.user_id order by hashtextextended(o.user_id || chr(1) || o.key, 7), o.key
        ) as place
        from own o join known k on k.key = o.key
    )
    select k.key, count(c.key)
    from known k left join counted c on c.key = k.key and c.place <= p_keys_per_user
    group by k.key order by k.key;
$$;

-- The answer that was released to this question before; NULL if there is none. Until the end of the
-- transaction no other session can release anything.
create or replace function rec_internal.released(p_question jsonb)
returns jsonb language plpgsql volatile
set search_path from current
as $$
begin
    perform pg_advisory_xact_lock(rec_internal.release_lock());
    return (select r.answer from rec.releases r where r.question = p_question);
end $$;

-- Store a released answer with its cost epsilon, and return the id of the release. It is an error if all
-- releases together would then cost more than settings.privacy_budget, or if the question has more than 2,000
-- bytes.
create or replace function rec_internal.record_release(
    p_question jsonb, p_epsilon double precision, p_answer jsonb)
returns bigint language plpgsql volatile
set search_path from current
as $$
declare
    v_left double precision;
    v_release_id bigint;
begin
    perform pg_advisory_xact_lock(rec_internal.release_lock());
    select s.privacy_budget - coalesce((select sum(r.epsilon) from rec.releases r), 0) into v_left
    from rec.settings s;
    if not p_epsilon <= v_left + 1e-9 then
        raise exception 'the privacy budget does not allow epsilon %', p_epsilon
            using errcode = 'program_limit_exceeded',
            detail = format('%s is left', round(greatest(v_left, 0)::numeric, 6)),
            hint = 'settings.privacy_budget is the sum that all releases together may cost.';
    end if;
    if octet_length(p_question::text) > 2000 then
        raise exception 'a question may have at most 2,000 bytes'
            using errcode = 'string_data_right_truncation';
    end if;
    insert into rec.releases (question, epsilon, answer) values (p_question, p_epsilon, p_answer)
    returning release_id into v_release_id;
    return v_release_id;
end $$;
