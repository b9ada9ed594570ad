-- The arithmetic of decaying sums. Bodies are bound when they are created, so these need no
-- search_path, and simple enough for the planner to inline.

-- rec.pow2(exponent) -> 2^exponent, 0 below 2^-200
create or replace function rec.pow2(p_exponent double precision)
returns double precision language sql immutable parallel safe
return case when p_exponent < -200 then 0 when p_exponent > 200 then power(2::double precision, 200)
    else power(2::double precision, p_exponent) end;
comment on function rec.pow2 is
    'Two to the power of p_exponent, held between 2^-200 (below it, 0) and 2^200, so that no product '
    'with it leaves the range of a double precision, which would raise an error.';

-- rec.seconds(half_life) -> its length, from a microsecond to 30 billion years
create or replace function rec.seconds(p_half_life interval)
returns double precision language sql immutable parallel safe
return greatest(least(date_part('epoch', p_half_life), 1e18), 1e-6);
comment on function rec.seconds is
    'A half-life in seconds, held where one may divide by it: the shortest that counts is the '
    'microsecond, the longest 1e18 seconds.';

-- rec.decay(age, half_life) -> the share left of something of that age, 1 for the future
create or replace function rec.decay(p_age interval, p_half_life interval)
returns double precision language sql immutable parallel safe
-- Each argument is named once, for otherwise the planner would not inline it; 2^-200 is taken away so
-- that what is older than 200 half-lives leaves nothing.
return power(2::double precision, -least(greatest(date_part('epoch', p_age), 0)
    / rec.seconds(p_half_life), 200)) - 6.223015277861142e-61;
comment on function rec.decay is
    'Share 2^(-age / half_life) that is left after p_age, nothing after 200 half-lives; a negative '
    'age counts as none.';

-- rec.faded(mass, share) -> share of the mass, 0 below 1e-30 of either
create or replace function rec.faded(p_mass double precision, p_share double precision)
returns double precision language sql immutable parallel safe
return case when p_mass < 1e-30 or p_share < 1e-30 then 0 else p_mass * p_share end;
comment on function rec.faded is
    'p_mass times p_share, where what is too little to matter counts as nothing, so that a mass can '
    'be brought forward for ever without an underflow.';

-- rec.scaled(vector, factor) -> factor times vector, the zero vector below 2^-60
create or replace function rec.scaled(p_vector vector, p_factor double precision)
returns vector language sql immutable parallel safe
return array_fill(
    (case when abs(p_factor) < 8.7e-19 then 0 else p_factor end)::real, array[vector_dims(p_vector)]
)::vector * p_vector;
comment on function rec.scaled is
    'p_factor times p_vector. A factor below 2^-60 counts as zero, so that no product of a stored '
    'vector underflows.';

-- rec.decayed(sum, factor) -> factor times sum, its components below 2^-84 flushed to zero
create or replace function rec.decayed(p_sum vector, p_factor double precision)
returns vector language sql immutable parallel safe
return case when p_factor = 1 then p_sum
    else (rec.scaled(p_sum, p_factor)
        + array_fill(8.7e-19::real, array[vector_dims(p_sum)])::vector)
    - array_fill(8.7e-19::real, array[vector_dims(p_sum)])::vector end;
comment on function rec.decayed is
    'A decayed sum brought forward by p_factor. Adding and taking away 2^-60 leaves every component '
    'above 2^-36 as it is and flushes those below 2^-84, so that sums can be scaled for ever. A factor '
    'that is not a column keeps the planner from inlining it.';

-- rec.event_weight(weight, neutral, scale, value) -> weight of an event of a kind with that value
create or replace function rec.event_weight(
    p_weight double precision, p_neutral double precision, p_scale double precision,
    p_value double precision)
returns double precision language sql immutable parallel safe
return p_weight * case when p_neutral is null or p_value is null then 1
    when abs(p_value - p_neutral) < 1e-9 then 0
    else greatest(least(greatest(least(p_value - p_neutral, 1e12), -1e12)
        / greatest(p_scale, 1e-9), 1000), -1000)
    end;
comment on function rec.event_weight is
    'Weight of an event: that of its kind, times (value - neutral) / scale for kinds with a value, '
    'such as a rating; at most a thousand times that of its kind, whatever the value.';
