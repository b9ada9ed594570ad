-- Decayed counts. A mass is stored as log2(mass) + t / half_life, so that it never has to be aged and can
-- be sorted as it is (forward decay; Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009). These functions
-- are declared only as stable as extract() from a timestamptz; otherwise the planner would not inline them.

-- log2(p_amount) + p_at / p_half_life, the form in which masses are stored.
create or replace function rec_internal.log_mass(
    p_amount double precision, p_at timestamptz, p_half_life interval)
returns double precision language sql stable parallel safe
return ln(p_amount) / ln(2::double precision)
    + extract(epoch from p_at)::double precision / rec_internal.seconds(p_half_life);

-- The amount that a stored mass has decayed to by p_at.
create or replace function rec_internal.mass_at(
    p_log_mass double precision, p_half_life interval, p_at timestamptz)
returns double precision language sql stable parallel safe
return rec_internal.pow2(p_log_mass
    - extract(epoch from p_at)::double precision / rec_internal.seconds(p_half_life));

-- The stored mass p_log_mass after p_change, which may be negative, is added; each may be NULL. The result is
-- NULL if 1e-9 or less is left. p_latest is the form in which a mass of one would be stored as of the moment
-- of the change. The expression is written out so that the planner inlines it.
create or replace function rec_internal.add_mass(
    p_log_mass double precision, p_change double precision, p_latest double precision)
returns double precision language sql immutable parallel safe
return case when coalesce(rec_internal.pow2(p_log_mass - greatest(p_log_mass, p_latest)), 0)
        + coalesce(p_change * rec_internal.pow2(p_latest - greatest(p_log_mass, p_latest)), 0) > 1e-9
    then greatest(p_log_mass, p_latest)
        + ln(coalesce(rec_internal.pow2(p_log_mass - greatest(p_log_mass, p_latest)), 0)
            + coalesce(p_change * rec_internal.pow2(p_latest - greatest(p_log_mass, p_latest)), 0))
        / ln(2::double precision) end;
