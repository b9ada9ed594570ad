-- Which items go together, from the counts of what users went on to.

-- For each of the latest items of a user, the latest first: its weight, which falls by `latest_decay`; the
-- mass of all transitions from it (`transition_prior` included) and to it; the form in which a mass of one
-- is stored as of p_as_of; and how many transitions of each item count at most.
create or replace function rec_internal.flows(
    p_items text[], p_ranker rec.rankers, p_as_of timestamptz default null)
returns table (
    item_id text, weight double precision, outgoing double precision, incoming double precision,
    moment double precision, most integer)
language sql stable rows 10
set search_path from current
as $$
    select f.item_id,
        rec_internal.pow2((f.place - 1) * ln((p_ranker).latest_decay) / ln(2::double precision)),
        coalesce(rec_internal.pow2(p.log_outgoing - m.moment), 0) + (p_ranker).transition_prior,
        coalesce(rec_internal.pow2(p.log_incoming - m.moment), 0),
        m.moment, (p_ranker).candidates * 4
    from unnest(p_items) with ordinality as f (item_id, place)
    cross join lateral (
        select rec_internal.log_mass(1, rec_internal.moment(p_as_of), s.transition_half_life) as moment
        from rec.settings s) m
    left join rec_internal.popularity p on p.item_id = f.item_id;
$$;

-- What users went on to from these items, the latest first. The strength is the square root of the sum of
-- latest_decay^place * transitions / (all transitions from that item + prior).
create or replace function rec_internal.transitions(
    p_items text[], p_ranker rec.rankers, p_as_of timestamptz default null)
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select o.to_item, sqrt(sum(f.weight / f.outgoing * rec_internal.pow2(o.log_mass - f.moment)))
    from rec_internal.flows(p_items, p_ranker, p_as_of) f cross join lateral (
        select x.to_item, x.log_mass from rec_internal.item_transitions x
        where x.from_item = f.item_id order by x.log_mass desc limit f.most
    ) o
    group by o.to_item;
$$;

-- What users had shortly before or after these items, the latest first. The strength is the square root of
-- the sum of latest_decay^place * transitions both ways / (all transitions from and to that item + prior).
create or replace function rec_internal.companions(
    p_items text[], p_ranker rec.rankers, p_as_of timestamptz default null)
returns table (item_id text, strength double precision)
language sql stable
set search_path from current
as $$
    select o.item_id,
        sqrt(sum(f.weight / (f.outgoing + f.incoming) * rec_internal.pow2(o.log_mass - f.moment)))
    from rec_internal.flows(p_items, p_ranker, p_as_of) f cross join lateral (
        (select x.to_item as item_id, x.log_mass from rec_internal.item_transitions x
        where x.from_item = f.item_id order by x.log_mass desc limit f.most)
        union all
        (select x.from_item, x.log_mass from rec_internal.item_transitions x
        where x.to_item = f.item_id order by x.log_mass desc limit f.most)
    ) o
    group by o.item_id;
$$;
