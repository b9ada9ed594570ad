-- The HNSW index of the item vectors.

-- Drop the HNSW index of the item vectors if there are no vectors yet, because an index is built much faster
-- than it grows, and return whether there is no index now. If there are vectors, the index stays, because
-- lists need it.
create or replace function rec_internal.drop_vector_index()
returns boolean language plpgsql volatile
set search_path from current
as $$
begin
    if not exists (select from rec.item_vectors) then
        drop index if exists rec.item_vectors_hnsw;
    end if;
    return to_regclass('rec.item_vectors_hnsw') is null;
end $$;

-- Build the HNSW index of the item vectors, and return true; false if there is one already. p_workers is
-- the number of processes beside this one, and p_memory an amount such as `2GB`; NULL means the setting of
-- the server. rec_internal.index_progress() shows how far the build has come.
create or replace function rec_internal.make_vector_index(p_workers integer default null, p_memory text default null)
returns boolean language plpgsql volatile
set search_path from current
as $$
begin
    if to_regclass('rec.item_vectors_hnsw') is not null then
        return false;
    end if;
    perform set_config('max_parallel_maintenance_workers', p_workers::text, true)
    where p_workers is not null;
    perform set_config('maintenance_work_mem', p_memory, true) where p_memory is not null;
    create index item_vectors_hnsw on rec.item_vectors
        using hnsw (embedding halfvec_cosine_ops) with (m = 16, ef_construction = 100);
    analyze rec.item_vectors;
    return true;
end $$;

-- How far session p_pid has come in building an index: the blocks of the table that are done, and their
-- total; no row if it is building none.
create or replace function rec_internal.index_progress(p_pid integer)
returns table (done bigint, total bigint)
language sql stable
set search_path from current
as $$
    select p.blocks_done, p.blocks_total from pg_stat_progress_create_index p where p.pid = p_pid;
$$;
