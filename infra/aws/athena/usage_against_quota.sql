-- Usage of every group and month against its quota, by the last recount.
-- The quotas are those of recount.toml: one row for each group that has its own. Others have the default.
WITH quotas (group_key, quota) AS (
    VALUES ('acme', 500000)
),
usage AS (
    SELECT m.group_key, m.period, m.events, coalesce(q.quota, 10000) AS quota
    FROM monthly_totals AS m
    LEFT JOIN quotas AS q ON q.group_key = m.group_key
)
SELECT
    group_key,
    period,
    events,
    quota,
    round(100.0 * events / nullif(quota, 0), 1) AS percent,
    events > quota AS exceeded
FROM usage
ORDER BY period DESC, percent DESC
