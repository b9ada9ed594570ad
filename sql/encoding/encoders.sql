-- Which encoder the stored vectors come from. Vectors of two encoders are never compared.

-- Make this the active encoder if there is none yet, and return the fingerprint of the active encoder,
-- whichever that is. It is an error if the encoder would become active but its vectors and the tables
-- differ in the number of dimensions.
create or replace function rec_internal.register_encoder(
    p_fingerprint text, p_name text, p_record jsonb, p_dims integer)
returns text language plpgsql volatile
set search_path from current
as $$
declare
    v_dims integer;
begin
    perform pg_advisory_xact_lock(rec_internal.encoder_lock());
    if not exists (select from rec_internal.encoders e where e.active) then
        select a.atttypmod into v_dims from pg_attribute a
        where a.attrelid = 'rec.item_vectors'::regclass and a.attname = 'embedding';
        if v_dims <> p_dims then
            raise exception 'the encoder has % dimensions, but the tables have %', p_dims, v_dims
                using errcode = 'invalid_parameter_value',
                hint = 'Run `pgrec migrate` on a new database, with the encoder that it is to use.';
        end if;
        insert into rec_internal.encoders (fingerprint, name, record, dims, active)
        values (p_fingerprint, p_name, p_record, p_dims, true)
        on conflict (fingerprint) do update set active = true;
    end if;
    return (select e.fingerprint from rec_internal.encoders e where e.active);
end $$;

-- Raise an error unless p_fingerprint is the fingerprint of the active encoder.
create or replace function rec_internal.check_encoder(p_fingerprint text)
returns void language plpgsql stable
set search_path from current
as $$
begin
    if not exists (select from rec_internal.encoders e where e.active and e.fingerprint = p_fingerprint) then
        raise exception 'the vectors come from another encoder than the active one'
            using errcode = 'object_not_in_prerequisite_state',
            detail = format('fingerprint %s', coalesce(p_fingerprint, 'NULL')),
            hint = 'Vectors of two encoders are never compared. Start the worker with the active encoder.';
    end if;
end $$;

-- The active encoder in one row; no row if there is none yet. If the catalogue is calibrated, base is the
-- fingerprint of the encoder that reads the texts, and calibration turns its vectors into the stored ones;
-- otherwise both are NULL.
create or replace function rec_internal.active_encoder()
returns table (fingerprint text, base text, calibration bytea, dims integer)
language sql stable
set search_path from current
as $$ select e.fingerprint, e.base, e.calibration, e.dims from rec_internal.encoders e where e.active; $$;
