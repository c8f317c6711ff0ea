"""Reads an archive as a stranger would: DuckDB, by plain glob, no code of ours.

usage: archive.py EVENTS_DIR TIME_ZONE
Prints one JSON object: rows, distinct event keys, column types, and per group and month, by Python's own idea of the
zone, the number of inserts and the sum of their bytes.
"""

import json
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import duckdb

events, zone = sys.argv[1], ZoneInfo(sys.argv[2])
con = duckdb.connect()
con.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet('{events}/*/*/*.parquet', hive_partitioning = true)")
rows, keys, ids = con.execute("SELECT count(*), count(DISTINCT event_key), count(DISTINCT event_id) FROM events").fetchone()
types = {name: kind for name, kind, *_ in con.execute("DESCRIBE events").fetchall()}
measure = "measure_bytes" if "measure_bytes" in types else "NULL"
epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
counts, wrong_month, wrong_ms = {}, 0, 0
for group, month, at_us, at_ms, size in con.execute(
    f"SELECT group_key, month, occurred_at_us, epoch_ms(occurred_at), {measure} FROM events WHERE class = 'insert'"
).fetchall():
    own = (epoch + timedelta(microseconds=at_us)).astimezone(zone).strftime("%Y-%m")
    wrong_month += own != str(month)
    wrong_ms += at_us // 1000 != at_ms
    count, total = counts.setdefault(group, {}).get(own, (0, Decimal(0)))
    counts[group][own] = (count + 1, total + (size or 0))
shown = {g: {m: [c, format(s.normalize(), "f")] for m, (c, s) in months.items()} for g, months in counts.items()}
print(json.dumps({"rows": rows, "keys": keys, "ids": ids, "types": types, "counts": shown,
                  "wrong_month": wrong_month, "wrong_ms": wrong_ms}))
