"""Rows and distinct event keys, by the list of files on the command line and by a glob over the bucket."""
import json
import sys

import duckdb

bucket, files = sys.argv[1], json.loads(sys.argv[2])


def counted(what):
    query = f"SELECT count(*), count(DISTINCT event_key) FROM read_parquet({what}, hive_partitioning = true)"
    return list(duckdb.sql(query).fetchall()[0])


print(json.dumps({"listed": counted(repr(files)), "glob": counted(repr(bucket + "/events/*/*/*.parquet"))}))
