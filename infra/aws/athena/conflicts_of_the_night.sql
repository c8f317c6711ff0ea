-- Events that came with two contents, as the last reconcile names them. The archive has the row that is shown.
-- The other variants stand under conflicts/ in the bucket.
SELECT
    f.group_key,
    f.month,
    f.detail,
    e.event_id,
    e.shard_id,
    e.sequence_number,
    e.new_image
FROM findings AS f
INNER JOIN events AS e ON e.event_key = f.event_key
WHERE f.kind = 'conflicting'
ORDER BY f.group_key, f.month, e.event_id
