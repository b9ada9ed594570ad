-- What the columns mean that an operator may change: `\d+ rec.settings` shows it.

comment on table rec.settings is
    'Weights and limits, one row. Terms of the score are those of rec.score; an UPDATE counts for the '
    'next list. pgrec tune fits the weights to the log.';
comment on column rec.settings.singleton is 'Always true: there is one row.';
comment on column rec.settings.content_weight is
    'Weight of content: cosine of an item to the sum of each horizon, mixed by their present masses.';
comment on column rec.settings.latest_weight is
    'Weight of latest: cosine of an item to the last events, weighted by latest_decay.';
comment on column rec.settings.closest_weight is
    'Weight of closest: cosine of an item to that of the last events which is closest to it.';
comment on column rec.settings.transition_weight is
    'Weight of transition: how often others went on to the item from the last items.';
comment on column rec.settings.together_weight is
    'Weight of together: how often others had the item shortly before or after the last items. With 0 '
    'the term is not computed.';
comment on column rec.settings.trend_weight is
    'Weight of trend: logarithm of the popularity, which decays by popularity_half_life.';
comment on column rec.settings.newness_weight is
    'Weight of newness: 1 for an item for which no event speaks yet.';
comment on column rec.settings.repeat_weight is
    'Weight of repeat: 1 for an item that the user has seen, where seen ones are let in.';
comment on column rec.settings.aversion_weight is
    'What aversion takes away: cosine of an item to what the user disliked.';
comment on column rec.settings.diversity is
    'From 0, the list goes by score alone, to 1, each item is as unlike the ones above it as can be.';
comment on column rec.settings.balance is
    'How hard each topic of the user is given its share of the list; 0: not at all.';
comment on column rec.settings.exploration is
    'Share of the list that goes to items with few exposures, drawn by p_seed of rec.recommend.';
comment on column rec.settings.candidates is
    'How many candidates each source brings: each interest, transitions, trend, the newest.';
comment on column rec.settings.reranked is
    'How many of the best candidates are picked one by one, by diversity and balance.';
comment on column rec.settings.exact_limit is
    'If at most so many items match domain and filter, all are compared, without the HNSW index; for '
    'a list from n interests, if at most so many times the square root of n.';
comment on column rec.settings.ef_search is
    'hnsw.ef_search of the searches: greater finds more of the closest, and takes longer. Without '
    'a filter a list looks half as far in each direction, with one rec.nearest looks twice as far; no '
    'search less far than the number of items it is to find, and each 1000 far where policies hide items.';
comment on column rec.settings.topics is 'Into how many topics the latest events are grouped at most.';
comment on column rec.settings.topic_events is 'How many of the latest events are grouped into topics.';
comment on column rec.settings.topic_similarity is
    'Cosine from which on an event belongs to a topic that is there already.';
comment on column rec.settings.latest_items is
    'How many of the last events count for latest, closest, transition, together and aversion.';
comment on column rec.settings.latest_decay is
    'By what the weight of the last events falls from one to the one before it.';
comment on column rec.settings.session_weight is
    'In the middle of a visit what people went on to counts more and what is popular less: transition '
    'and together times 1 + session_weight, trend and newness times 1 - session_weight right after an '
    'event.';
comment on column rec.settings.session_half_life is
    'After how long without an event half of session_weight is left.';
comment on column rec.settings.transition_window is
    'From how many of the items before an item a step to it is counted; the nth counts 1/n. Read when '
    'events are folded; rec.rebuild_collaborative() counts anew.';
comment on column rec.settings.transition_prior is
    'Steps that are assumed from every item: an item with few steps tells less.';
comment on column rec.settings.popularity_half_life is
    'After how long an event counts half for trend. rec.rebuild_collaborative() after a change.';
comment on column rec.settings.transition_half_life is
    'After how long a step counts half. rec.rebuild_collaborative() after a change.';
comment on column rec.settings.max_attempts is
    'How often an event is tried that cannot be folded before it is parked (rec.parked).';
comment on column rec.settings.sql_digest is
    'The version of functions and views, written by pgrec migrate; not to be changed.';
comment on column rec.settings.keep_text is
    'Whether the raw text of an event stays once it is encoded. Its vector and its hash stay anyway.';
comment on column rec.settings.events_kept is
    'Events of months that are wholly older are dropped, once a day; NULL keeps them for ever.';
comment on column rec.settings.keep_interests is
    'Whether dropped events go on counting in the interests.';
comment on column rec.settings.minimum_cohort is
    'Fewer users than these are left out of rec.daily_counts and rec.item_counts.';
comment on column rec.settings.privacy_budget is
    'The sum of epsilon that all releases together may spend.';
comment on column rec.settings.recount is
    'Set where events were dropped that popularity and transitions still count; not to be changed.';

comment on table rec.event_kinds is
    'The kinds of events and what they weigh. After a change rec.rebuild_user and '
    'rec.rebuild_collaborative bring what is stored in line.';
comment on column rec.event_kinds.weight is
    'What an event of the kind adds to an interest: 1 for a click, negative for a dislike, 0 for nothing.';
comment on column rec.event_kinds.marks_seen is 'Whether its item counts as seen and is not listed again.';
comment on column rec.event_kinds.neutral is
    'For kinds with a value: the value that says neither yes nor no. The weight is multiplied by '
    '(value - neutral) / scale.';
comment on column rec.event_kinds.scale is 'How far from neutral a value has the full weight.';

comment on table rec.horizons is
    'Over how long interests reach. After a change rec.rebuild_user brings what is stored in line.';
comment on column rec.horizons.half_life is 'After how long an event counts half.';
comment on column rec.horizons.weight is
    'Weight of the horizon in the mix, times what is left of its mass at the moment of the question.';
