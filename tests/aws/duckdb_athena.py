"""Athena and Glue, as much of them as `recount` asks, over the files of a bucket: DuckDB answers. For tests.

What is put otherwise for DuckDB than for Trino is in `AS_DUCKDB` and `FUNCTIONS`, and nowhere else.
"""

import decimal
import http.server
import json
import threading

import duckdb

# Functions of Trino that DuckDB has with another meaning, under names of our own; those that it lacks stand in FUNCTIONS only.
AS_DUCKDB = {"substr(": "part(", "sha256(": "sha256_bytes("}
FUNCTIONS = """
CREATE MACRO part(b, i, n) AS unhex(substr(hex(b), 2 * i - 1, 2 * n));
CREATE MACRO sha256_bytes(b) AS unhex(sha256(b));
CREATE MACRO unsigned(b) AS CAST(CAST('0x' || hex(b) AS UBIGINT) AS HUGEINT);
CREATE MACRO from_big_endian_64(b) AS CAST(
    CASE WHEN unsigned(b) >= 9223372036854775808 THEN unsigned(b) - 18446744073709551616 ELSE unsigned(b) END AS BIGINT);
CREATE MACRO to_utf8(s) AS encode(s);
CREATE MACRO bitwise_and(a, b) AS a & b;
CREATE MACRO array_join(l, s) AS array_to_string(l, s);
"""
PAGE = 7  # lines; Athena's pages have up to 1,000


class Lake:
    """The table `events` of a bucket: a month is what its partition's location has. `hidden` months have none for who asks Athena, and
    those of a month that is `lacking` lack a column. `misread` changes a line of an answer.
    What `before` and `after` do is done while the next query runs, before it reads and after it has read."""

    def __init__(self, bucket, name):
        self.bucket, self.name = bucket, name
        self.partitions, self.hidden, self.queries, self.answers = {}, set(), [], {}
        self.lacking, self.misread = {}, list
        self.before = self.after = None

    def files(self):
        for month, partition in sorted(self.partitions.items()):
            location = partition["StorageDescriptor"]["Location"].removeprefix(f"s3://{self.name}/")
            if month not in self.hidden:
                yield from sorted(str(path) for path in (self.bucket / location).glob("*.parquet"))

    def opened(self):
        database = duckdb.connect()
        database.execute("SET TimeZone = 'UTC'")
        database.execute(FUNCTIONS)
        files = ", ".join(f"'{file}'" for file in self.files())
        database.execute(
            f"""CREATE VIEW events AS SELECT * EXCLUDE (filename){self.replaced()}, replace(filename, '{self.bucket}/', 's3://{self.name}/') AS "$path"
                FROM read_parquet([{files}], hive_partitioning = true, hive_types_autocast = false, filename = true)""")
        return database

    def replaced(self):
        nulls = ", ".join(f"CASE WHEN month <> '{month}' THEN {column} END AS {column}" for month, column in self.lacking.items())
        return f" REPLACE ({nulls})" if nulls else ""

    def query(self, sql):
        for athena, ours in AS_DUCKDB.items():
            sql = sql.replace(athena, ours)
        with self.opened() as database:
            answer = database.execute(sql)
            return [column[0] for column in answer.description], answer.fetchall()

    # ---- Athena

    def StartQueryExecution(self, body):
        assert body["ResultReuseConfiguration"]["ResultReuseByAgeConfiguration"]["Enabled"] is False
        query = f"q{len(self.queries)}"
        self.queries.append(body["QueryString"])
        meanwhile, self.before, self.after = (self.before, self.after), None, None
        running = threading.Thread(target=self.run, args=(query, body["QueryString"], *meanwhile), daemon=True)
        running.start()
        if meanwhile == (None, None):
            running.join()
        return {"QueryExecutionId": query}

    def run(self, query, sql, before, after):
        try:
            if before:
                before()
            columns, rows = self.query(sql)
            if after:
                after()
            self.answers[query] = [columns, *(self.misread([None if one is None else text(one) for one in row]) for row in rows)]
        except Exception as error:
            self.answers[query] = error

    def GetQueryExecution(self, body):
        answer = self.answers.get(body["QueryExecutionId"])
        status = {"State": "RUNNING" if answer is None else "SUCCEEDED"}
        if isinstance(answer, Exception):
            status = {"State": "FAILED", "StateChangeReason": repr(answer)}
        return {"QueryExecution": {"Status": status, "Statistics": {"DataScannedInBytes": 1234}}}

    def GetQueryResults(self, body):
        at = int(body.get("NextToken", 0))
        lines = self.answers[body["QueryExecutionId"]]
        rows = [{"Data": [{} if one is None else {"VarCharValue": one} for one in line]} for line in lines[at:at + PAGE]]
        more = {"NextToken": str(at + PAGE)} if at + PAGE < len(lines) else {}
        return {"ResultSet": {"Rows": rows}, **more}

    # ---- Glue

    def GetTable(self, body):
        return {"Table": {"Name": body["Name"], "StorageDescriptor": {"Columns": []}}}

    def GetPartition(self, body):
        (month,) = body["PartitionValues"]
        return {"Partition": self.partitions[month]} if month in self.partitions else None

    def BatchUpdatePartition(self, body):
        for entry in body["Entries"]:
            (month,) = entry["PartitionValueList"]
            self.partitions[month] = entry["PartitionInput"]
        return {"Errors": []}

    def CreatePartition(self, body):
        (month,) = body["PartitionInput"]["Values"]
        self.partitions[month] = body["PartitionInput"]
        return {}


def text(value):
    return format(value, "f") if isinstance(value, decimal.Decimal) else str(value)


class Server(http.server.ThreadingHTTPServer):
    """Answers for a lake, at `url`, until it is closed."""

    daemon_threads = True

    def __init__(self, lake):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lake, self.url = lake, f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        operation = self.headers["X-Amz-Target"].rsplit(".", 1)[1]
        try:
            answer = getattr(self.server.lake, operation)(body)
            status = 200 if answer is not None else 400
            answer = answer if answer is not None else {"__type": "EntityNotFoundException", "message": "none"}
        except Exception as error:  # as Athena does, it tells who asked
            status, answer = 400, {"__type": "InvalidRequestException", "message": f"{operation}: {error!r}"}
        answer = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass
