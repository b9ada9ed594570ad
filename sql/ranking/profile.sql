-- What a list and its scores depend on: the profile of one user.

-- Everything that is dropped with the type is created again by the files that follow.
drop type if exists rec_internal.profile cascade;
create type rec_internal.profile as (
    interests vector[],  -- the sums of the horizons that have a direction
    content vector,  -- their unit vectors, mixed by their present weights
    latest vector,  -- unit vector of the weighted sum of the last positive events
    recent vector[],  -- unit vectors of these events
    disliked vector[],  -- unit vectors of the last negative events
    strengths double precision[],  -- and how much each still counts
    centres vector[],  -- centres of the topics
    shares double precision[],  -- and the share of a list that each is due
    seen text[],  -- the items that the user has seen
    next_items text[],  -- what users went on to from the latest items, the strongest first
    next_strengths double precision[],
    companions text[],  -- what goes together with the latest items, if together_weight is not 0
    companion_strengths double precision[],
    session double precision  -- what is left of session_weight since the last event
);
comment on type rec_internal.profile is
    'Everything about one user that a list and its scores depend on.';

-- The profile of a user now, or as of a past moment.
create or replace function rec_internal.profile_of(
    p_user_id text, p_ranker rec.rankers, p_as_of timestamptz default null)
returns rec_internal.profile
language plpgsql stable
set search_path from current
as $$
declare
    v_profile rec_internal.profile;
    v_chosen text[] := rec.latest_items(p_user_id, p_ranker.latest_items, p_as_of);
begin
    select array_agg(i.interest) filter (where i.weight > 0),
        sum(rec_internal.scaled(l2_normalize(i.interest), i.weight)) filter (where i.weight > 0),
        case when count(*) = 0 then 0 else p_ranker.session_weight * rec_internal.decay(
            rec_internal.moment(p_as_of) - max(i.as_of), p_ranker.session_half_life) end
    into v_profile.interests, v_profile.content, v_profile.session
    from rec.interest(p_user_id, p_as_of) i;
    select sum(rec_internal.scaled(l.embedding, l.weight)),
        array_agg(l2_normalize(l.embedding)) filter (where vector_norm(l.embedding) > 0)
    into v_profile.latest, v_profile.recent
    from rec_internal.latest_shares(p_user_id, p_ranker, p_as_of) l;
    select array_agg(l2_normalize(d.embedding)), array_agg(d.strength)
    into v_profile.disliked, v_profile.strengths
    from rec_internal.dislikes(p_user_id, p_ranker, p_as_of) d;
    select array_agg(t.centre order by t.topic), array_agg(t.share order by t.topic)
    into v_profile.centres, v_profile.shares
    from rec_internal.topics(p_user_id, p_ranker, p_as_of) t;
    v_profile.seen := rec.seen_items(p_user_id, p_as_of);
    select array_agg(t.item_id order by t.strength desc, t.item_id),
        array_agg(t.strength order by t.strength desc, t.item_id)
    into v_profile.next_items, v_profile.next_strengths
    from rec_internal.transitions(v_chosen, p_ranker, p_as_of) t;
    if p_ranker.together_weight <> 0 then
        select array_agg(c.item_id order by c.strength desc, c.item_id),
            array_agg(c.strength order by c.strength desc, c.item_id)
        into v_profile.companions, v_profile.companion_strengths
        from rec_internal.companions(v_chosen, p_ranker, p_as_of) c;
    end if;
    return v_profile;
end $$;
