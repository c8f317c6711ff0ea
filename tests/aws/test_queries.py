"""infra/aws/athena/*.sql over a real archive: made by our binaries in local mode, read by DuckDB. And as Athena's SQL, by its grammar.

    RECOUNT_TEST_BINARIES=target/debug python -m unittest tests/aws/test_queries.py

Athena is Trino; DuckDB stands in for it where the two agree. `AS_DUCKDB` has what is put otherwise for it. What the loader says that
it wrote is the oracle. The columns of the Glue tables are held against those of the files that the code wrote.
"""

import collections
import decimal
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import duckdb
import sqlglot

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from template import ROOT, Template  # noqa: E402

QUERIES = {path.stem: path.read_text() for path in sorted((ROOT / "infra/aws/athena").glob("*.sql"))}
VIEWS = [name for name, text in QUERIES.items() if "CREATE OR REPLACE VIEW" in text]
BINARIES = pathlib.Path(os.environ.get("RECOUNT_TEST_BINARIES", ROOT / "target/debug"))
DUPLICATES = 0.2

# Athena's hidden column is `filename` in DuckDB.
AS_DUCKDB = {'"$path"': "filename"}
# Hive's types, as DuckDB calls them.
HIVE = {"VARCHAR": "string", "BLOB": "binary", "BIGINT": "bigint", "INTEGER": "int", "TIMESTAMP": "timestamp",
        "TIMESTAMP_MS": "timestamp", "DECIMAL(38,9)": "decimal(38,9)"}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# What `recount recompute --engine athena` asks, with its places filled.
ENGINE = ROOT / "infra/aws/athena/engine/recompute.sql"


def engine():
    question = "".join(line for line in ENGINE.read_text().splitlines(keepends=True) if not line.startswith("--"))
    return question.replace("{table}", "'scans'").replace(
        "{sums}", ",\n    sum(CASE WHEN class = 'insert' AND source_table = 'scans' THEN measure_bytes END) AS sum_bytes")


class Grammar(unittest.TestCase):
    def test_each_is_one_statement_of_athena(self):
        for name, text in QUERIES.items():
            for dialect in ("athena", "trino"):
                with self.subTest(name, dialect=dialect):
                    (statement,) = sqlglot.parse(text, dialect=dialect, error_level=sqlglot.ErrorLevel.RAISE)
                    self.assertIsNotNone(statement)
                    self.assertEqual(isinstance(statement, sqlglot.exp.Create), name in VIEWS)
                    self.assertEqual(len(list(statement.find_all(sqlglot.exp.Command))), 0, "not understood")

    def test_the_question_of_a_recount_is_one_statement_of_athena(self):
        for dialect in ("athena", "trino"):
            (statement,) = sqlglot.parse(engine(), dialect=dialect, error_level=sqlglot.ErrorLevel.RAISE)
            self.assertIsInstance(statement, sqlglot.exp.Select)

    def test_they_read_only_what_there_is(self):
        tables = {"events", "monthly_totals", "yearly_totals", "findings", *VIEWS}
        for name, text in QUERIES.items():
            with self.subTest(name):
                statement = sqlglot.parse_one(text, dialect="athena")
                own = {cte.alias for cte in statement.find_all(sqlglot.exp.CTE)}
                self.assertLessEqual({table.name for table in statement.find_all(sqlglot.exp.Table)}, tables | own)

    def test_views_are_named_as_their_files_and_each_says_what_it_is_for(self):
        self.assertEqual(VIEWS, ["monthly_totals_now", "yearly_totals_now"])
        for name, text in QUERIES.items():
            self.assertTrue(text.startswith("-- "), name)
            self.assertTrue(name not in VIEWS or f"VIEW {name} AS" in text)
            self.assertNotIn(";", text)


class OverAnArchive(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(tempfile.mkdtemp(prefix="recount-queries-"))
        cls.addClassCleanup(shutil.rmtree, cls.place, ignore_errors=True)
        cls.data = cls.place / "data"
        port = free_port()
        cls.environment = {
            **os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "thing", "NO_COLOR": "1",
        }
        command = [BINARIES / "recount-local", "serve", "--port", str(port), "--data", cls.data]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as serve:
            try:
                cls.assertIn(cls, str(port), serve.stdout.readline())
                cls.fill()
            finally:
                serve.send_signal(signal.SIGTERM)
        cls.database = cls.opened(cls.data / "s3/recount-archive")

    @classmethod
    def fill(cls):
        load = "load --projects 5 --months 3 --events 400 --updates 0.3 --deletes 0.2 --seed 21 --into-stream"
        loaded = cls.run_binary("producer", *load.split(), "--duplicates", str(DUPLICATES), "--format", "json")
        cls.monthly = {}
        for row in json.loads(loaded.splitlines()[-1])["tally"]:
            if row["inserts"]:
                cls.monthly[row["project"], row["month"]] = (row["inserts"], decimal.Decimal(row["inserted_bytes"]))
        cls.yearly = collections.defaultdict(lambda: (0, decimal.Decimal(0)))
        for (group, month), (events, size) in cls.monthly.items():
            before = cls.yearly[group, month[:4]]
            cls.yearly[group, month[:4]] = (before[0] + events, before[1] + size)
        cls.run_binary("recount", "archive")
        cls.run_binary("recount", "recompute")
        # One number is spoilt, after the consumer counted: so reconcile, clean before, has something to find.
        cls.counted(sum(events for events, _ in cls.monthly.values()))
        cls.run_binary("recount", "reconcile")
        (cls.spoilt, _) = next(iter(cls.monthly.items()))
        cls.dynamodb("UpdateItem", {
            "TableName": "recount-totals",
            "Key": {"pk": {"S": cls.spoilt[0]}, "sk": {"S": f"{cls.spoilt[1]}#0"}},
            "UpdateExpression": "ADD events :two",
            "ExpressionAttributeValues": {":two": {"N": "2"}},
        })
        cls.run_binary("recount", "reconcile", ends=1)

    @classmethod
    def run_binary(cls, name, *arguments, ends=0):
        command = [BINARIES / name, *arguments]
        done = subprocess.run(command, env=cls.environment, cwd=cls.data, capture_output=True, text=True, timeout=180)
        if done.returncode != ends:
            raise AssertionError(f"{name} {' '.join(arguments)}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    @classmethod
    def counted(cls, expected):
        ends = time.monotonic() + 120
        while True:
            usage = json.loads(cls.run_binary("recount", "usage", "--format", "json"))
            events = sum(line["events"] for line in usage["months"])
            if events == expected:
                return
            if time.monotonic() > ends:
                raise TimeoutError(f"{events} of {expected} events are counted after two minutes")
            time.sleep(0.1)

    @classmethod
    def dynamodb(cls, operation, request):
        # Local mode checks no signature, but wants to see one.
        signature = "AWS4-HMAC-SHA256 Credential=any/20261122/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=none"
        headers = {"X-Amz-Target": f"DynamoDB_20120810.{operation}", "Content-Type": "application/x-amz-json-1.0",
                   "Authorization": signature}
        request = urllib.request.Request(cls.environment["AWS_ENDPOINT_URL"], json.dumps(request).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    @classmethod
    def opened(cls, bucket):
        database = duckdb.connect()
        database.execute("SET TimeZone = 'UTC'")
        for table, files in (("events", "events/*/*/*.parquet"), ("monthly_totals", "totals/monthly/*.parquet"),
                             ("yearly_totals", "totals/yearly/*.parquet"), ("findings", "findings/*.parquet")):
            also = ", hive_partitioning = true, hive_types_autocast = false, filename = true" if table == "events" else ""
            database.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{bucket}/{files}'{also})")
        for name in VIEWS:
            database.execute(QUERIES[name])
        return database

    def query(self, name, *parameters):
        text = QUERIES[name]
        for athena, ours in AS_DUCKDB.items():
            text = text.replace(athena, ours)
        answer = self.database.execute(text, parameters)
        columns = [column[0] for column in answer.description]
        return [dict(zip(columns, row)) for row in answer.fetchall()]

    def totals(self, rows):
        return {(row["group_key"], row["period"]): (row["events"], row["sum_bytes"]) for row in rows}

    def view(self, name):
        answer = self.database.execute(f"SELECT group_key, period, events, sum_bytes FROM {name}")
        return {(group, period): (events, size) for group, period, events, size in answer.fetchall()}

    def test_the_columns_of_glue_are_those_of_the_files(self):
        tables = {one["Properties"]["TableInput"]["Name"]: one["Properties"]["TableInput"]
                  for one in Template().of_type("AWS::Glue::Table").values()}
        self.assertEqual(len(tables), 4)
        for name, table in tables.items():
            with self.subTest(name):
                described = self.database.execute(f"DESCRIBE {name}").fetchall()
                partitions = [(one["Name"], one["Type"]) for one in table["PartitionKeys"]]
                columns = [(one["Name"], one["Type"]) for one in table["StorageDescriptor"]["Columns"]]
                of_files = [(column, HIVE[kind]) for column, kind, *_ in described if column != "filename"]
                self.assertEqual(columns + partitions, of_files)

    def test_the_views_and_the_recount_are_what_was_loaded(self):
        for view, expected in (("monthly_totals_now", self.monthly), ("yearly_totals_now", self.yearly),
                               ("monthly_totals", self.monthly), ("yearly_totals", self.yearly)):
            with self.subTest(view):
                self.assertEqual(self.view(view), dict(expected))

    def test_the_question_of_a_recount_gives_the_totals_and_the_rows_of_each_file(self):
        rows = self.database.execute(engine().replace('"$path"', "filename")).fetchall()
        totals = {(group, month): (events, size) for month, group, file, _, events, size in rows if file is None and events}
        self.assertEqual(totals, self.monthly)
        files = {(month, file): archived for month, _, file, archived, *_ in rows if file is not None}
        self.assertEqual(files, {(row["month"], row["file"]): row["events"] for row in self.query("rows_by_file")})

    def test_the_views_leave_out_other_tables_and_rows_without_a_group(self):
        columns = "* REPLACE ('other' AS source_table)", "* REPLACE (CAST(NULL AS VARCHAR) AS group_key)"
        with duckdb.connect() as database:
            bucket = self.data / "s3/recount-archive"
            files = f"read_parquet('{bucket}/events/*/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
            more = " UNION ALL ".join(f"SELECT {one} FROM {files}" for one in columns)
            database.execute(f"CREATE VIEW events AS SELECT * FROM {files} UNION ALL {more}")
            database.execute(QUERIES["monthly_totals_now"])
            (counted,) = database.execute("SELECT sum(events) FROM monthly_totals_now").fetchone()
        self.assertEqual(counted, sum(events for events, _ in self.monthly.values()))

    def test_usage_against_quota(self):
        rows = self.query("usage_against_quota")
        self.assertEqual({(row["group_key"], row["period"]): row["events"] for row in rows},
                         {cell: events for cell, (events, _) in self.monthly.items()})
        for row in rows:
            self.assertEqual(row["quota"], 500_000 if row["group_key"] == "acme" else 10_000)
            self.assertEqual(row["exceeded"], row["events"] > row["quota"])
            self.assertAlmostEqual(float(row["percent"]), 100 * row["events"] / row["quota"], delta=0.06)

    def test_an_event_is_found_by_its_id(self):
        ((known, month),) = self.database.execute("SELECT event_id, month FROM events LIMIT 1").fetchall()
        (row,) = self.query("event_by_id", known)
        self.assertEqual((row["event_id"], row["month"], row["source_table"]), (known, month, "scans"))
        self.assertIn(f"/month={month}/", row["file"])
        self.assertEqual(self.query("event_by_id", "no such event"), [])

    def test_findings_name_the_number_that_was_spoilt(self):
        rows = self.query("findings_of_the_night")
        found = {(row["kind"], row["group_key"], row["month"], row["expected"], row["actual"]) for row in rows}
        events, _ = self.monthly[self.spoilt]
        self.assertEqual(found, {("damaged", *self.spoilt, events, events + 2)})

    def test_no_conflict_where_there_is_none(self):
        self.assertEqual(self.query("conflicts_of_the_night"), [])

    def test_a_conflict_is_shown_with_the_row_that_is_archived(self):
        key, event, group, month = self.database.execute("SELECT event_key, event_id, group_key, month FROM events LIMIT 1").fetchone()
        with duckdb.connect() as database:
            bucket = self.data / "s3/recount-archive"
            database.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet('{bucket}/events/*/*/*.parquet')")
            database.execute("CREATE TABLE findings (kind VARCHAR, group_key VARCHAR, month VARCHAR, detail VARCHAR, event_key BLOB)")
            database.execute("INSERT INTO findings VALUES ('conflicting', ?, ?, 'd', ?), ('missing', ?, ?, 'd', ?)", [group, month, key] * 2)
            rows = database.execute(QUERIES["conflicts_of_the_night"]).fetchall()
        self.assertEqual([row[:4] for row in rows], [(group, month, "d", event)])

    def test_rows_by_file_are_all_rows(self):
        rows = self.query("rows_by_file")
        (all_rows,) = self.database.execute("SELECT count(*) FROM events").fetchone()
        self.assertEqual(sum(row["events"] for row in rows), all_rows)
        files = {str(path) for path in (self.data / "s3/recount-archive/events").rglob("*.parquet")}
        self.assertEqual({row["file"] for row in rows}, files)

    def test_late_events_are_those_that_came_a_day_after_their_time(self):
        rows = {row["month"]: row for row in self.query("late_events")}
        late = collections.Counter()
        for month, kind, arrived, occurred in self.database.execute(
                "SELECT month, class, arrived_at_us, occurred_at_us FROM events").fetchall():
            late[month] += kind == "insert" and arrived - occurred > 86_400_000_000
        self.assertEqual({month: row["late_events"] for month, row in rows.items()}, dict(+late))
        self.assertGreater(len(rows), 0, "the loader spreads its events over three months")

    def test_the_same_change_under_two_ids_is_shown(self):
        self.assertEqual(self.query("same_change_twice"), [])
        with duckdb.connect() as database:
            bucket = self.data / "s3/recount-archive"
            files = f"read_parquet('{bucket}/events/*/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
            again = f"(SELECT * REPLACE ('again' AS event_id) FROM {files} WHERE class = 'insert' LIMIT 1)"
            database.execute(f"CREATE TABLE events AS SELECT * FROM {files} UNION ALL {again}")
            ((group, month, times, *ids),) = database.execute(QUERIES["same_change_twice"]).fetchall()
        self.assertEqual((times, "again" in ids), (2, True))
        self.assertIn((group, month), self.monthly)

    def test_a_recount_that_is_behind_or_lacks_a_month_is_shown(self):
        self.assertEqual(self.query("recounted_against_now"), [])
        (group, month), (events, _) = next(iter(self.monthly.items()))
        with duckdb.connect() as database:
            bucket = self.data / "s3/recount-archive"
            files = f"read_parquet('{bucket}/events/*/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
            database.execute(f"CREATE VIEW events AS SELECT * FROM {files}")
            database.execute(QUERIES["monthly_totals_now"])
            database.execute(f"CREATE TABLE monthly_totals AS SELECT * FROM read_parquet('{bucket}/totals/monthly/*.parquet')")
            database.execute("DELETE FROM monthly_totals WHERE group_key = ? AND period = ?", [group, month])
            rows = database.execute(QUERIES["recounted_against_now"]).fetchall()
        self.assertEqual(rows, [(group, month, None, events)])


if __name__ == "__main__":
    unittest.main()
