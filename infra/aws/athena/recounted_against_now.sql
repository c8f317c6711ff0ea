-- The last recount against the events as they are now. Rows are months to which events came since the recount, and months whose
-- partition or recount is missing.
SELECT
    coalesce(n.group_key, m.group_key) AS group_key,
    coalesce(n.period, m.period) AS period,
    m.events AS recounted,
    n.events AS counted_now
FROM monthly_totals AS m
FULL OUTER JOIN monthly_totals_now AS n ON n.group_key = m.group_key AND n.period = m.period
WHERE m.events IS NULL OR n.events IS NULL OR m.events <> n.events
ORDER BY period, group_key
