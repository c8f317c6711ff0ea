-- Events that reached the stream more than a day after the time that they bear, by month: they made an older total change.
SELECT
    month,
    count(*) AS late_events,
    max(arrived_at_us - occurred_at_us) / 3600000000 AS hours_of_the_latest,
    max(arrived_at_us - created_at_us) / 3600000000 AS hours_in_capture
FROM events
WHERE class = 'insert' AND arrived_at_us - occurred_at_us > 86400000000
GROUP BY month
ORDER BY month
