"""The rows of the archive, of all files of all versions, in any of whose columns a text stands."""
import sys

import duckdb

bucket, text = sys.argv[1], sys.argv[2]
files = repr(bucket + "/events/*/*/*.parquet")
columns = "keys, new_image, old_image, user_identity, envelope"
query = f"SELECT count(*) FROM read_parquet({files}) WHERE contains(concat_ws(' ', {columns}), $text)"
print(duckdb.execute(query, {"text": text}).fetchall()[0][0])
