-- A shop of eight items, from an empty catalogue to a list with its reasons.
--
--     .venv/bin/pgrec up
--     .venv/bin/pgrec psql -f examples/shop.sql
--
-- Run it from the root of the repository. Running it again does no harm.

\set ON_ERROR_STOP on
\pset footer off

\echo 1. Items are rows. Every attribute can be used in a filter.
insert into rec.items (item_id, domain, title, body, attributes, tags) values
    ('ex-tee', 'ex-shop', 'Heavyweight boxy tee', 'Washed cotton, wide cut.',
        '{"category": "t-shirts", "brand": "Loomfield", "price": 29}', '{cotton,summer}'),
    ('ex-linen', 'ex-shop', 'Linen shirt with short sleeves', 'Light and airy.',
        '{"category": "shirts", "brand": "Loomfield", "price": 59}', '{linen,summer}'),
    ('ex-jeans', 'ex-shop', 'Straight selvedge jeans', '14 oz denim, button fly.',
        '{"category": "jeans", "brand": "North Slope", "price": 119}', '{denim}'),
    ('ex-tent', 'ex-shop', 'Two-person tent', 'Sets up in five minutes, 1.9 kg.',
        '{"category": "outdoor", "brand": "North Slope", "price": 249}', '{camping}'),
    ('ex-skillet', 'ex-shop', 'Cast-iron skillet, 12 inches', 'Pre-seasoned.',
        '{"category": "kitchen", "brand": "Hearth", "price": 45}', '{cooking}'),
    ('ex-knife', 'ex-shop', 'Chef''s knife, 8 inches', 'Forged steel, walnut handle.',
        '{"category": "kitchen", "brand": "Hearth", "price": 89}', '{cooking}'),
    ('ex-drill', 'ex-shop', 'Cordless drill with two batteries', '18 V, brushless.',
        '{"category": "tools", "brand": "Torq", "price": 139}', '{diy}'),
    ('ex-lamp', 'ex-shop', 'Desk lamp with a dimmer', 'Warm light, oak base.',
        '{"category": "lighting", "brand": "Oakline", "price": 75}', '{home,office}')
on conflict (item_id) do nothing;

\echo 2. Ben has been here before, and so has Cleo.
select count(rec.track(user_id, item_id, p_dedupe_key => 'example ' || item_id)) as events
from (values ('ex-ben', 'ex-skillet'), ('ex-ben', 'ex-knife'), ('ex-cleo', 'ex-tee'),
    ('ex-cleo', 'ex-linen'), ('ex-cleo', 'ex-jeans')) as seen (user_id, item_id);

\echo 3. Ada writes what she is looking for.
select rec.track('ex-ada', p_kind => 'wish', p_text => 'a light shirt for the summer',
    p_dedupe_key => 'example wish') as event_id;

\echo 4. A worker encodes items and texts. Here it runs until nothing waits; usually it stays.
\! PATH=.venv/bin:$PATH pgrec worker --once 2>/dev/null

\echo 5. The list of Ada, and of Ada with a filter
select rank, title, round(score::numeric, 2) as score, path
from rec.recommend('ex-ada', 5, p_domain => 'ex-shop') join rec.items using (item_id) order by rank;
select rank, title
from rec.recommend('ex-ada', 5, p_domain => 'ex-shop', p_filter => '{"brand": "North Slope"}')
join rec.items using (item_id) order by rank;

\echo 6. A click changes the very next list, in the same transaction too.
begin;
select rec.track('ex-ada', 'ex-skillet') as event_id;
select rank, title, round(score::numeric, 2) as score
from rec.recommend('ex-ada', 3, p_domain => 'ex-shop') join rec.items using (item_id) order by rank;
rollback;

\echo 7. Why the tee? The shares add up to the score.
select term, round(share::numeric, 3) as share, kind, coalesce(title, text) as what
from rec.explain('ex-ada', 'ex-tee');

\echo 8. Erase all three again.
select user_id, rec.forget_user(user_id) as events
from (values ('ex-ada'), ('ex-ben'), ('ex-cleo')) as u (user_id);
