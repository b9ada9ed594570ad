-- Arithmetic of decaying sums. The bodies are bound at creation, so these functions need no
-- search_path, and they are simple enough for the planner to inline.

-- 2^-60, the smallest factor and the smallest part of a component that still count.
create or replace function rec_internal.negligible()
returns double precision language sql immutable parallel safe
return 8.7e-19;

-- 2^p_exponent: 0 below 2^-200, and 2^200 at most, so that no product with it leaves the range of a double
-- precision, which would raise an error.
create or replace function rec_internal.pow2(p_exponent double precision)
returns double precision language sql immutable parallel safe
return case when p_exponent < -200 then 0 when p_exponent > 200 then power(2::double precision, 200)
    else power(2::double precision, p_exponent) end;

-- A half-life in seconds, between 1e-6 and 1e18, so that it is a safe divisor.
create or replace function rec_internal.seconds(p_half_life interval)
returns double precision language sql immutable parallel safe
return greatest(least(date_part('epoch', p_half_life), 1e18), 1e-6);

-- The share 2^(-age / half_life) that is left after p_age: 1 for a negative age, 0 after 200 half-lives.
create or replace function rec_internal.decay(p_age interval, p_half_life interval)
returns double precision language sql immutable parallel safe
-- Each argument is named once; otherwise the planner would not inline the function. 2^-200 is subtracted
-- so that nothing is left after 200 half-lives.
return power(2::double precision, -least(greatest(date_part('epoch', p_age), 0)
    / rec_internal.seconds(p_half_life), 200)) - 6.223015277861142e-61;

-- p_mass * p_share, or 0 if either is below 1e-30, so that repeated decay never underflows.
create or replace function rec_internal.decayed_mass(p_mass double precision, p_share double precision)
returns double precision language sql immutable parallel safe
return case when p_mass < 1e-30 or p_share < 1e-30 then 0 else p_mass * p_share end;

-- p_factor * p_vector. A factor below negligible() counts as zero, so that no product of a stored vector
-- underflows.
create or replace function rec_internal.scaled(p_vector vector, p_factor double precision)
returns vector language sql immutable parallel safe
return array_fill(
    (case when abs(p_factor) < rec_internal.negligible() then 0 else p_factor end)::real, array[vector_dims(p_vector)]
)::vector * p_vector;

-- p_factor * p_sum, for a sum that is brought forward in time. Adding and subtracting negligible() leaves
-- every component above 2^-36 as it is and flushes those below 2^-84, so that repeated decay never
-- underflows. A factor that is not a column keeps the planner from inlining the function.
create or replace function rec_internal.decayed_sum(p_sum vector, p_factor double precision)
returns vector language sql immutable parallel safe
return case when p_factor = 1 then p_sum
    else (rec_internal.scaled(p_sum, p_factor)
        + array_fill(rec_internal.negligible()::real, array[vector_dims(p_sum)])::vector)
    - array_fill(rec_internal.negligible()::real, array[vector_dims(p_sum)])::vector end;

-- The weight of an event: the weight of its kind, times (value - neutral) / scale for kinds with a value
-- such as a rating. The factor lies between -1000 and 1000 whatever the value.
create or replace function rec_internal.event_weight(
    p_weight double precision, p_neutral double precision, p_scale double precision,
    p_value double precision)
returns double precision language sql immutable parallel safe
return p_weight * case when p_neutral is null or p_value is null then 1
    when abs(p_value - p_neutral) < 1e-9 then 0
    else greatest(least(greatest(least(p_value - p_neutral, 1e12), -1e12)
        / greatest(p_scale, 1e-9), 1000), -1000)
    end;

-- The vector that an event adds to an interest: the vector of its item, of its text, or the unit vector
-- between the two; NULL while a part has none.
create or replace function rec_internal.event_vector(
    p_item_id text, p_item_vector halfvec, p_text_hash bytea, p_text_vector halfvec)
returns vector language sql immutable parallel safe
return case
    when p_text_hash is null then p_item_vector::vector
    when p_item_id is null then p_text_vector::vector
    else l2_normalize(p_item_vector::vector + p_text_vector::vector)
end;

-- What an event of this age adds to an interest sum.
create or replace function rec_internal.share(
    p_vector vector, p_weight double precision, p_age interval, p_half_life interval)
returns vector language sql immutable parallel safe
return rec_internal.scaled(p_vector, p_weight * rec_internal.decay(p_age, p_half_life));

-- What an event of this age adds to the mass of an interest sum.
create or replace function rec_internal.share_mass(
    p_weight double precision, p_age interval, p_half_life interval)
returns double precision language sql immutable parallel safe
return abs(p_weight) * rec_internal.decay(p_age, p_half_life);
