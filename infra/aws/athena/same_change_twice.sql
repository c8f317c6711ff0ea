-- The same change under two event IDs: what identity = "event_id" counts twice, and identity = "change" would count once.
-- Expected: no row. Erased rows, whose content hash is zeros, are left out.
SELECT
    group_key,
    month,
    count(*) AS times,
    min(event_id) AS one_event_id,
    max(event_id) AS another_event_id
FROM events
WHERE class = 'insert' AND envelope <> '{"erased":true}'
GROUP BY content_hash, group_key, month
HAVING count(DISTINCT event_id) > 1
ORDER BY times DESC
LIMIT 1000
