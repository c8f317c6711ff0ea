-- A view: totals by group and month, counted from the archived events as they are now.
-- No distinct: the archive never holds an event key twice. For count = "inserts".
-- WHERE period = '2026-11' reads that month's files only.
CREATE OR REPLACE VIEW monthly_totals_now AS
SELECT
    group_key,
    month AS period,
    count(*) AS events,
    coalesce(sum(measure_bytes), 0) AS sum_bytes
FROM events
WHERE class = 'insert' AND source_table = 'scans' AND group_key IS NOT NULL
GROUP BY group_key, month
