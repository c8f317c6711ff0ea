-- What the last reconcile of all totals found: a row per event that a finding names, one for a finding that names none.
-- No row where nothing is wrong. What to do: `recount reconcile`, then `recount repair`.
SELECT
    finding,
    kind,
    group_key,
    month,
    lane,
    expected,
    actual,
    events,
    detail,
    event_id,
    shard_id,
    sequence_number,
    file,
    row_number AS row_in_file,
    found_at
FROM findings
ORDER BY finding, event_id
