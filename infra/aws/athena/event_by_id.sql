-- One event by its ID, with everything that the archive has of it. Execution parameter: the ID, in quotes.
-- Where the month is known, `AND month = '2026-11'` reads that month's files only.
SELECT
    month,
    event_id,
    event_name,
    class,
    group_key,
    occurred_at,
    created_at_us,
    arrived_at_us,
    source_table,
    shard_id,
    sequence_number,
    keys,
    new_image,
    old_image,
    user_identity,
    "$path" AS file
FROM events
WHERE event_id = ?
