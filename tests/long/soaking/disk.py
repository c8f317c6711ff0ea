"""Bytes by part of the data directory, and what each part is.

A file that belongs to no part is a finding: growth that nobody explains.
"""

import os
import sqlite3

BUCKET = "s3/recount-archive/"
# prefix of the path below the data directory → part
PARTS = {
    "dynamodb.sqlite-": "dynamodb log",
    "dynamodb.sqlite": "dynamodb",
    "kinesis.sqlite-": "kinesis log",
    "kinesis.sqlite": "kinesis",
    "positions.sqlite": "positions",
    BUCKET + "events/": "parquet",
    BUCKET + "_log/": "commit log",
    BUCKET + "_state/": "folded log",
    BUCKET + "_staging/": "staging",
    BUCKET + "totals/": "recomputed",
    BUCKET + "findings/": "recomputed",
    BUCKET + "quarantine/": "quarantine",
    BUCKET + "on-failure/": "given up",
    "s3-work/temp/": "temporary",
    "s3-work/locks/": "locks",
    "s3-work/uploads/": "uploads",
    "recount.toml": "definition",
    "lock": "lock",
}
# part → what it is, and what ends its growth
EXPLAINED = {
    "dynamodb": "source items, their stream records for 24 h, totals, ledger pages, progress: see its tables",
    "dynamodb log": "write-ahead log: used again from its start after each checkpoint (1,000 pages, 4 MiB), and its index",
    "kinesis": "a record per change, kept 7 days",
    "kinesis log": "write-ahead log, as above",
    "positions": "a row per mapping and shard, and its write-ahead log (up to 4 MiB)",
    "parquet": "a row per change, kept for ever; a file per commit and month until files are compacted",
    "commit log": "an entry per archive commit, kept for ever",
    "folded log": "the log at each hundredth entry; the newest three stay",
    "staging": "uploads whose run was killed; deleted when the log is 64 entries past them",
    "recomputed": "three objects, replaced by each recompute and reconcile",
    "temporary": "objects being written; swept when the server starts",
    "locks": "64 empty files",
    "uploads": "multipart uploads; none here",
}
UNKNOWN = "unknown"
# part → the most bytes that it may ever have here
LIMITS = {"dynamodb log": 64 << 20, "kinesis log": 64 << 20, "positions": 16 << 20, "staging": 64 << 20, "temporary": 64 << 20,
          "folded log": 32 << 20, "recomputed": 1 << 20, "locks": 0, "uploads": 0, "quarantine": 0, "given up": 0, UNKNOWN: 0}


def part_of(path):
    return next((part for prefix, part in PARTS.items() if path.startswith(prefix)), UNKNOWN)


def sizes(data):
    """Part → [bytes, bytes on disk in whole blocks, files]."""
    found = {}
    for folder, _, names in os.walk(data):
        for name in names:
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except FileNotFoundError:  # deleted meanwhile
                continue
            part = found.setdefault(part_of(os.path.relpath(path, data)), [0, 0, 0])
            part[0] += status.st_size
            part[1] += status.st_blocks * 512
            part[2] += 1
    return found


def excesses(samples):
    """Which parts were ever above their bound."""
    most = {part: max(found.get(part, [0])[0] for found in samples) for part in LIMITS}
    return [f"{part} has had {most[part]} bytes, more than {limit}" for part, limit in LIMITS.items() if most[part] > limit]


def tables(path):
    """Bytes of each table with its indexes; and whether the file is sound. The server must be down."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        sound = db.execute("PRAGMA integrity_check").fetchone()[0]
        try:
            found = db.execute("SELECT m.tbl_name, sum(s.pgsize) FROM dbstat AS s JOIN sqlite_schema AS m ON m.name = s.name "
                               "GROUP BY m.tbl_name ORDER BY 2 DESC").fetchall()
        except sqlite3.OperationalError:  # this Python's SQLite was built without dbstat
            found = []
    return found, sound
