-- What the reading functions accept, said in one place.

-- rec.list_length(k) -> k, or the error that it is none
create or replace function rec.list_length(p_k integer)
returns integer language plpgsql immutable parallel safe
set search_path from current
as $$
begin
    if p_k is null or p_k < 0 then
        raise exception 'k must not be negative or NULL' using errcode = 'invalid_parameter_value';
    end if;
    return p_k;
end $$;
comment on function rec.list_length is 'The length of a list that is asked for, checked.';

-- rec.attribute_filter(filter) -> filter, {} for NULL, or the error that it is no object
create or replace function rec.attribute_filter(p_filter jsonb)
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
comment on function rec.attribute_filter is 'The attributes that items must have, checked.';

-- rec.moment(as_of) -> the moment that a question is about: as_of, or now for NULL
create or replace function rec.moment(p_as_of timestamptz)
returns timestamptz language sql stable parallel safe
return least(coalesce(p_as_of, now()), '10000-01-01 00:00:00+00');
comment on function rec.moment is
    'The moment that a question is about: p_as_of, or now for NULL; the year 10,000 at the latest, '
    'for no interval is long enough to tell an age in all that a timestamptz can hold.';
