-- Monthly partitions of the event log.

-- Create the missing monthly partitions of rec.events for this month and the next p_months months (0 to
-- 120), and return how many were created. Rows of these months are moved there from the default partition.
-- The function runs with the rights of the owner, so that a worker does not need them; only the owner may
-- read or write a partition itself.
create or replace function rec.make_partitions(p_months integer default 3)
returns integer language plpgsql volatile security definer
set search_path = rec, pg_temp
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
    v_month timestamptz;
    v_name text;
    v_made integer := 0;
begin
    if p_months is null or p_months not between 0 and 120 then
        raise exception 'months must be between 0 and 120' using errcode = 'invalid_parameter_value';
    end if;
    perform pg_advisory_xact_lock(rec_internal.partitions_lock());
    for v_offset in 0..p_months loop
        v_month := date_trunc('month', now()) + make_interval(months => v_offset);
        v_name := to_char(v_month, '"events_"YYYY_MM');
        continue when to_regclass(format('rec_internal.%I', v_name)) is not null;
        execute format(
            'create table rec_internal.%I (like rec.events including defaults including constraints)', v_name);
        perform rec_internal.erasing(true);
        execute format(
            'with strays as (delete from rec_internal.events_default where occurred_at >= %1$L '
            'and occurred_at < %2$L returning *) insert into rec_internal.%3$I select * from strays',
            v_month, v_month + interval '1 month', v_name);
        perform rec_internal.erasing(false);
        execute format(
            'alter table rec.events attach partition rec_internal.%I for values from (%L) to (%L)',
            v_name, v_month, v_month + interval '1 month');
        if to_regrole('rec_worker') is not null
            and current_setting('server_version_num')::integer >= 170000 then
            execute format('grant maintain on rec_internal.%I to rec_worker', v_name);
        end if;
        v_made := v_made + 1;
    end loop;
    return v_made;
end $$;
