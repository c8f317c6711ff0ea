-- What `recount recompute --engine athena` asks, for count = "inserts". Two questions, one reading of the archive, so that both are
-- about the same files:
--   (month, group_key): the totals. file is null.
--   (month, file): how many rows each file has, and what its measures come to over all of them. They are held against the commit log, so
--   that a month whose partition is missing or behind cannot pass for one without events, nor one without a column for zeros.
-- {table} is the source table's name; {sums} and {all_sums} are two sums for each measure.
SELECT
    month,
    group_key,
    "$path" AS file,
    count(*) AS archived,
    count(CASE WHEN class = 'insert' AND source_table = {table} THEN 1 END) AS events{sums}{all_sums}
FROM events
GROUP BY GROUPING SETS ((month, group_key), (month, "$path"))
