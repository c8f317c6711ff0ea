-- What `recount recompute --engine athena` asks, for count = "inserts". Two questions, one reading of the archive, so that both are
-- about the same files:
--   (month, group_key): the totals. file is null. A group is named by the digits of its UTF-8: so no character of it is changed on the way.
--   (month, file): how many rows each file has, how many of them have a class and a table, its least and its greatest group,
--   and what its measures come to over all of them. They are held against the commit log, so that a month whose partition is missing or
--   behind cannot pass for one without events, nor one without a column for zeros.
-- {table} is the source table's name; {sums} and {all_sums} are two sums for each measure.
SELECT
    month,
    to_hex(to_utf8(group_key)) AS named,
    "$path" AS file,
    count(*) AS archived,
    count(CASE WHEN class = 'insert' AND source_table = {table} THEN 1 END) AS events,
    count(CASE WHEN class IS NOT NULL AND source_table IS NOT NULL THEN 1 END) AS judged,
    CASE WHEN "$path" IS NOT NULL THEN to_hex(to_utf8(min(group_key))) END AS first_group,
    CASE WHEN "$path" IS NOT NULL THEN to_hex(to_utf8(max(group_key))) END AS last_group{sums}{all_sums}
FROM events
GROUP BY GROUPING SETS ((month, group_key), (month, "$path"))
