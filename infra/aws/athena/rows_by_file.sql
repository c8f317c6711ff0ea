-- How many rows each file of each month has: to hold against the commit log, as `recount files` and `recount fsck` do.
-- A month whose partition is not registered has no line here.
SELECT
    month,
    "$path" AS file,
    count(*) AS events,
    min(created_at_us) AS first_created_at_us,
    max(created_at_us) AS last_created_at_us
FROM events
GROUP BY month, "$path"
ORDER BY month, file
