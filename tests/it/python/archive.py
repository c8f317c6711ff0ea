"""Reads an archive as a stranger would: DuckDB, by plain glob, no code of ours.

usage: archive.py BUCKET_DIR TIME_ZONE
Prints one JSON object: rows, distinct event keys, column types, and per group and month, by Python's own idea of the
zone, the number of inserts and the sum of their bytes; the same from the recounted totals, where there are any.
"""

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import duckdb

bucket, zone = sys.argv[1], ZoneInfo(sys.argv[2])
con = duckdb.connect()
con.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet('{bucket}/events/*/*/*.parquet', hive_partitioning = true)")


def types(table):
    return {name: kind for name, kind, *_ in con.execute(f"DESCRIBE {table}").fetchall()}


def plain(number):
    return format(number, "f").rstrip("0").rstrip(".") if "." in format(number, "f") else format(number, "f")


def shown(sums):
    return {group: {period: [n, plain(size)] for period, (n, size) in periods.items()} for group, periods in sums.items()}


rows, keys, ids = con.execute("SELECT count(*), count(DISTINCT event_key), count(DISTINCT event_id) FROM events").fetchone()
classes = dict(con.execute("SELECT class, count(*) FROM events GROUP BY class").fetchall())
epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
counts, wrong = {}, {"month": 0, "ms": 0, "group": 0, "bytes": 0}
for group, month, at_us, at_ms, size, image in con.execute(
    "SELECT group_key, month, occurred_at_us, epoch_ms(occurred_at), measure_bytes, new_image FROM events WHERE class = 'insert'"
).fetchall():
    own = (epoch + timedelta(microseconds=at_us)).astimezone(zone).strftime("%Y-%m")
    item = json.loads(image)
    wrong["month"] += own != month
    wrong["ms"] += at_us // 1000 != at_ms
    wrong["group"] += item["project_id"]["S"] != group
    wrong["bytes"] += Decimal(item["bytes"]["N"]) != size
    count, total = counts.setdefault(group, {}).get(own, (0, Decimal(0)))
    counts[group][own] = (count + 1, total + size)
result = {"rows": rows, "keys": keys, "ids": ids, "classes": classes, "types": types("events"), "counts": shown(counts),
          "wrong": wrong}
for table in ("monthly", "yearly"):
    path = f"{bucket}/totals/{table}"
    if os.path.exists(path):
        con.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{path}/*.parquet')")
        totals = {}
        for group, period, events, size in con.execute(f"SELECT group_key, period, events, sum_bytes FROM {table}").fetchall():
            totals.setdefault(group, {})[period] = (events, size)
        result[table] = {"types": types(table), "counts": shown(totals)}
print(json.dumps(result))
