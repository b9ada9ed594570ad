-- Argument checks shared by the functions that read.

-- p_k, the length of a list; an error if it is NULL or negative.
create or replace function rec_internal.list_length(p_k integer)
returns integer language plpgsql immutable parallel safe
set search_path from current
as $$
begin
    if p_k is null or p_k < 0 then
        raise exception 'k must not be negative or NULL' using errcode = 'invalid_parameter_value';
    end if;
    return p_k;
end $$;

-- p_filter, {} for NULL; an error unless it is a JSON object.
create or replace function rec_internal.attribute_filter(p_filter jsonb)
returns jsonb language plpgsql immutable parallel safe
set search_path from current
as $$
begin
    if jsonb_typeof(p_filter) <> 'object' then
        raise exception 'the filter must be a JSON object of attributes'
            using errcode = 'invalid_parameter_value',
            hint = 'An item passes if its attributes contain the filter: {"brand": "Loomfield"}.';
    end if;
    return coalesce(p_filter, '{}');
end $$;

-- The moment that a question is about: p_as_of, or now for NULL. The year 10,000 is the latest, because no
-- interval is long enough for every age that a timestamptz allows.
create or replace function rec_internal.moment(p_as_of timestamptz)
returns timestamptz language sql stable parallel safe
return least(coalesce(p_as_of, now()), '10000-01-01 00:00:00+00');

-- The diversity of a list: p_diversity, or the ranker's for NULL; an error unless it lies between 0 and 1.
-- Below 1e-100 it counts as 0, so that its products do not underflow.
create or replace function rec_internal.diversity(p_diversity double precision, p_ranker rec.rankers)
returns double precision language plpgsql immutable
set search_path from current
as $$
begin
    if not coalesce(p_diversity, 0) between 0 and 1 then
        raise exception 'diversity must be between 0 and 1'
            using errcode = 'invalid_parameter_value';
    end if;
    return case when coalesce(p_diversity, p_ranker.diversity) < 1e-100 then 0
        else coalesce(p_diversity, p_ranker.diversity) end;
end $$;

-- The row of rec.rankers with this name, `default` for NULL; an error if there is none.
create or replace function rec_internal.ranker(p_ranker text)
returns rec.rankers language plpgsql stable
set search_path from current
as $$
declare
    v_ranker rec.rankers;
begin
    select * into v_ranker from rec.rankers r where r.ranker = coalesce(p_ranker, 'default');
    if not found then
        raise exception 'unknown ranker %', left(quote_literal(coalesce(p_ranker, 'default')), 200)
            using errcode = 'invalid_parameter_value',
            hint = 'The rankers are the rows of rec.rankers; insert one to make a new ranker.';
    end if;
    return v_ranker;
end $$;
