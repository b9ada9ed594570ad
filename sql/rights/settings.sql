-- The meaning of the columns that an operator may change, as `\d+ rec.rankers` and `\d+ rec.settings` show
-- it.

comment on table rec.rankers is
    'What lists are made with, by name: weights of the terms of rec.score, and limits of the search. Ranker '
    '`default` is used unless p_ranker names another. An UPDATE takes effect with the next list; pgrec tune fits the '
    'weights to the log.';
comment on column rec.rankers.ranker is 'The name by which p_ranker chooses the row.';
comment on column rec.rankers.content_weight is
    'Weight of content: cosine of an item to the sum of each horizon, mixed by their present masses.';
comment on column rec.rankers.latest_weight is
    'Weight of latest: cosine of an item to the last events, weighted by latest_decay.';
comment on column rec.rankers.closest_weight is
    'Weight of closest: cosine of an item to the one of the last events that is closest to it.';
comment on column rec.rankers.transition_weight is
    'Weight of transition: how often users went on to the item from the last items.';
comment on column rec.rankers.together_weight is
    'Weight of together: how often users had the item shortly before or after the last items. With 0 the '
    'term is not computed.';
comment on column rec.rankers.trend_weight is
    'Weight of trend: logarithm of the popularity, which decays by settings.popularity_half_life.';
comment on column rec.rankers.newness_weight is
    'Weight of newness: 1 for an item that has no positive event yet.';
comment on column rec.rankers.repeat_weight is
    'Weight of repeat: 1 for an item that the user has seen, if lists include seen items.';
comment on column rec.rankers.aversion_weight is
    'Weight of aversion, which is subtracted: cosine of an item to what the user disliked.';
comment on column rec.rankers.session_weight is
    'In the middle of a visit, transitions count more, and trends and new items count less: right after '
    'an event transition and together are multiplied by 1 + session_weight, trend and newness by '
    '1 - session_weight.';
comment on column rec.rankers.session_half_life is
    'The time without an event after which half of session_weight is left.';
comment on column rec.rankers.latest_items is
    'The number of last events that count for latest, closest, transition, together and aversion.';
comment on column rec.rankers.latest_decay is
    'The weight of each of the last events, as a fraction of the weight of the event after it.';
comment on column rec.rankers.transition_prior is
    'Steps that are added to the total of every item, so that an item with few steps says less.';
comment on column rec.rankers.topics is 'The number of topics into which the latest events are grouped, at most.';
comment on column rec.rankers.topic_events is 'The number of latest events that are grouped into topics.';
comment on column rec.rankers.topic_similarity is
    'The cosine to an existing topic from which an event joins it.';
comment on column rec.rankers.candidates is
    'The number of candidates that each source contributes: each interest, transitions, trend, the newest.';
comment on column rec.rankers.ef_search is
    'hnsw.ef_search of the searches: a greater value finds more of the closest items and takes longer. '
    'A list without a filter uses half of it for each direction, and rec.nearest with a filter uses twice '
    'as much. The value used is at least the number of items to find, at most 1000, and 1000 if policies '
    'hide items.';
comment on column rec.rankers.exact_limit is
    'If at most this many items pass domain and filter, all of them are compared, without the HNSW index; for a '
    'list from n interests the limit is multiplied by the square root of n.';
comment on column rec.rankers.reranked is
    'The number of best candidates that are picked one by one, by diversity and balance.';
comment on column rec.rankers.diversity is
    'From 0 (the list goes by score alone) to 1 (each item is as unlike the ones above it as possible).';
comment on column rec.rankers.balance is
    'How strictly the list follows the shares of the topics of the user; 0: not at all.';
comment on column rec.rankers.exploration is
    'Share of the list that goes to items that few users have chosen, drawn by p_seed of rec.recommend.';

comment on table rec.settings is
    'The settings of the whole deployment, in one row: what is counted, what is kept, and what is published.';
comment on column rec.settings.singleton is 'Always true: there is one row.';
comment on column rec.settings.popularity_half_life is
    'The time after which an event counts half for trend. Call rec.rebuild_collaborative() after a change.';
comment on column rec.settings.transition_half_life is
    'The time after which a step counts half. Call rec.rebuild_collaborative() after a change.';
comment on column rec.settings.transition_window is
    'The number of items before an item from which a step to it is counted; the nth counts 1/n. It is read when '
    'events are folded; rec.rebuild_collaborative() counts again.';
comment on column rec.settings.max_attempts is
    'How often folding an event is tried before the event is parked (rec.parked).';
comment on column rec.settings.keep_text is
    'Whether the raw text of an event stays once it is encoded. Its vector and its hash stay in any case.';
comment on column rec.settings.events_kept is
    'How long events are kept: months of events (UTC) that are older as a whole are dropped, once a day. NULL keeps '
    'them for ever.';
comment on column rec.settings.keep_interests is
    'Whether dropped events still count in the interests.';
comment on column rec.settings.minimum_cohort is
    'Groups of fewer users are left out of rec.daily_counts and rec.item_counts.';
comment on column rec.settings.privacy_budget is
    'The sum of epsilon that all releases together may spend.';

comment on table rec.event_kinds is
    'The kinds of events and their weights. After a change rec.rebuild_user and rec.rebuild_collaborative bring '
    'stored interests and counts up to date.';
comment on column rec.event_kinds.weight is
    'What an event of the kind adds to an interest: 1 for a click, negative for a dislike, 0 for nothing.';
comment on column rec.event_kinds.marks_seen is
    'Whether an item with an event of the kind counts as seen and is not listed again.';
comment on column rec.event_kinds.neutral is
    'For kinds with a value: the value that is neither for nor against. The weight is multiplied by '
    '(value - neutral) / scale.';
comment on column rec.event_kinds.scale is 'The distance from neutral at which a value has the full weight.';

comment on table rec.horizons is
    'How long interests last. After a change rec.rebuild_user brings stored interests up to date.';
comment on column rec.horizons.half_life is 'The time after which an event counts half.';
comment on column rec.horizons.weight is
    'Weight of the horizon in the mix, where it is multiplied by the mass that is left at the time of the '
    'request.';

comment on table rec.items is
    'The catalogue. INSERT and UPDATE rows as in any table; a worker encodes what is new or changed.';
comment on table rec.item_vectors is
    'The unit vector of each encoded item, under an HNSW index for cosine distance.';
comment on table rec.events is
    'The event log: what users did, with an item, a text, or both. It is append-only; rec.undo_event and '
    'rec.forget_user remove events.';
comment on table rec.user_interests is
    'The stored interest of each user and horizon: the decayed sum of event vectors as of the last folded event. '
    'rec.interest adds the events that are not folded yet.';
comment on table rec.tunings is
    'Runs of pgrec tune: the settings before and after, and the figures that decided.';
comment on table rec.releases is
    'Counts with noise that were published, and what each cost of the privacy budget.';
