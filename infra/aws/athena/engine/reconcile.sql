-- What `recount reconcile --engine athena` asks, for count = "inserts". Three questions, one reading of the archive, so that all are
-- about the same files:
--   (month, group_key, lane): what the events of a cell come to: their number, the sum of the two halves of a hash of their keys, their
--   sums, their least key, and, where that is older than the ledger reaches back, their greatest keys. One line more, without group and lane,
--   is of the rows that count nowhere.
--   (month, file): how many rows each file has, how many of them have a class and a table, its least and its greatest key and group,
--   and what its measures come to over all of them: held against the commit log.
--   (month, shard_id): how far the events of each shard go, as text that sorts as the numbers do: three digits of length, then the digits.
-- A key is compared as its hexadecimal digits, which sort as its bytes do. A group is named by the digits of its UTF-8: so no character of it
-- is changed on the way. The sums of bigint would overflow; those of decimal do not.
-- {table} is the source table's name, {and_group} a condition where one group is asked for, {lane_bits} the number of lanes less one,
-- {horizon} the least key that the ledger still reaches, {and_older} a condition that leaves out
-- months in which no event should be older, so that nothing is kept for them, {tail} how many of the greatest keys are named, {measures}, {sums} and {all_sums} a
-- line for each measure, {where} a condition where one month is asked for.
SELECT
    month,
    to_hex(to_utf8(group_key)) AS named,
    lane,
    file,
    shard_id,
    count(*) AS archived,
    count(event) AS events,
    sum(CAST(from_big_endian_64(substr(hash, 1, 8)) AS decimal(38, 0))) AS high,
    sum(CAST(from_big_endian_64(substr(hash, 9, 8)) AS decimal(38, 0))) AS low,
    min(event) AS least,
    CASE WHEN lane IS NOT NULL AND min(event) < '{horizon}' THEN array_join(max(older, {tail}), ' ') END AS greatest,
    max(reached) AS reached,
    count(CASE WHEN judged THEN 1 END) AS judged,
    CASE WHEN file IS NOT NULL THEN min(key_digits) END AS first_key,
    CASE WHEN file IS NOT NULL THEN max(key_digits) END AS last_key,
    CASE WHEN file IS NOT NULL THEN to_hex(to_utf8(min(any_group))) END AS first_group,
    CASE WHEN file IS NOT NULL THEN to_hex(to_utf8(max(any_group))) END AS last_group{sums}{all_sums}
FROM (
    SELECT
        month,
        file,
        shard_id,
        key_digits,
        group_key AS any_group,
        class IS NOT NULL AND source_table IS NOT NULL AS judged,
        CASE WHEN counts THEN group_key END AS group_key,
        CASE WHEN counts THEN bitwise_and(from_big_endian_64(substr(event_key, 9, 8)), {lane_bits}) END AS lane,
        CASE WHEN counts THEN key_digits END AS event,
        CASE WHEN counts{and_older} THEN key_digits END AS older,
        CASE WHEN counts THEN sha256(event_key) END AS hash,
        CASE WHEN counts THEN lpad(CAST(length(sequence_number) AS varchar), 3, '0') || sequence_number END AS reached{measures}
    FROM (
        SELECT
            *,
            "$path" AS file,
            to_hex(event_key) AS key_digits,
            class = 'insert' AND source_table = {table} AND group_key IS NOT NULL{and_group} AS counts
        FROM events{where}
    )
)
GROUP BY GROUPING SETS ((month, group_key, lane), (month, file), (month, shard_id))
