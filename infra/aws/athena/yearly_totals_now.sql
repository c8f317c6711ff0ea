-- A view: totals by group and year, counted from the archived events as they are now.
-- A year is the sum of its months. For count = "inserts".
CREATE OR REPLACE VIEW yearly_totals_now AS
SELECT
    group_key,
    substr(month, 1, 4) AS period,
    count(*) AS events,
    coalesce(sum(measure_bytes), 0) AS sum_bytes
FROM events
WHERE class = 'insert' AND source_table = 'scans' AND group_key IS NOT NULL
GROUP BY group_key, substr(month, 1, 4)
