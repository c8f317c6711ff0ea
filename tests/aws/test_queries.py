"""infra/aws/athena/*.sql over a real archive: made by our binaries in local mode, read by DuckDB. And as Athena's SQL, by its grammar.

    RECOUNT_TEST_BINARIES=target/debug python -m unittest tests/aws/test_queries.py

Athena is Trino; DuckDB stands in for it where the two agree. `AS_DUCKDB` has what is put otherwise for it. What the loader says that
it wrote is the oracle. The columns of the Glue tables are held against those of the files that the code wrote.

`--engine athena` of recompute and reconcile is run as it is, by the real binary, against `duckdb_athena.py`; what it then asked there is
held against a count in Python.
"""

import base64
import collections
import decimal
import hashlib
import json
import os
import pathlib
import re
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

from duckdb_athena import Lake, Server  # noqa: E402
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


class Grammar(unittest.TestCase):
    def test_each_is_one_statement_of_athena(self):
        for name, text in QUERIES.items():
            for dialect in ("athena", "trino"):
                with self.subTest(name, dialect=dialect):
                    (statement,) = sqlglot.parse(text, dialect=dialect, error_level=sqlglot.ErrorLevel.RAISE)
                    self.assertIsNotNone(statement)
                    self.assertEqual(isinstance(statement, sqlglot.exp.Create), name in VIEWS)
                    self.assertEqual(len(list(statement.find_all(sqlglot.exp.Command))), 0, "not understood")

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
        cls.monthly = {}
        cls.loaded(400, 21)
        cls.run_binary("recount", "archive")
        cls.busy_by_athena()
        cls.yearly = collections.defaultdict(lambda: (0, decimal.Decimal(0)))
        for (group, month), (events, size) in cls.monthly.items():
            before = cls.yearly[group, month[:4]]
            cls.yearly[group, month[:4]] = (before[0] + events, before[1] + size)
        cls.run_binary("recount", "archive")
        cls.run_binary("recount", "recompute")
        # One number is spoilt, after the consumer counted: so reconcile, clean before, has something to find.
        cls.run_binary("recount", "reconcile")
        cls.by_athena()
        (cls.spoilt, _) = next(iter(cls.monthly.items()))
        cls.dynamodb("UpdateItem", {
            "TableName": "recount-totals",
            "Key": {"pk": {"S": cls.spoilt[0]}, "sk": {"S": f"{cls.spoilt[1]}#0"}},
            "UpdateExpression": "ADD events :two",
            "ExpressionAttributeValues": {":two": {"N": "2"}},
        })
        cls.run_binary("recount", "reconcile", ends=1)

    @classmethod
    def loaded(cls, events, seed):
        """So many events more, of which the loader says what they come to; and they are counted."""
        load = f"load --projects 5 --months 3 --events {events} --updates 0.3 --deletes 0.2 --seed {seed} --into-stream"
        loaded = cls.run_binary("producer", *load.split(), "--duplicates", str(DUPLICATES), "--format", "json")
        for row in json.loads(loaded.splitlines()[-1])["tally"]:
            if row["inserts"]:
                of = row["project"], row["month"]
                before = cls.monthly.get(of, (0, 0))
                cls.monthly[of] = (before[0] + row["inserts"], before[1] + decimal.Decimal(row["inserted_bytes"]))
        cls.counted(sum(events for events, _ in cls.monthly.values()))

    @classmethod
    def busy_by_athena(cls):
        """What reconcile says while the archive goes on, before Athena has read or after; and while its months are compacted."""
        cls.lake = Lake(cls.data / "s3/recount-archive", "recount-archive")
        server = Server(cls.lake)
        cls.addClassCleanup(server.close)
        cls.athena = {"AWS_ENDPOINT_URL_ATHENA": server.url, "AWS_ENDPOINT_URL_GLUE": server.url,
                      "RECOUNT_GLUE_DATABASE": "lake", "RECOUNT_ATHENA_WORKGROUP": "recount"}
        # A run that archives nothing finishes the last entry: it gives the catalog all its months.
        cls.run_binary("recount", "archive", more=cls.athena)
        cls.busy = {}
        for seed, when in enumerate(("after", "before"), start=22):
            def goes_on(seed=seed):
                cls.loaded(60, seed)
                cls.run_binary("recount", "archive", more=cls.athena)

            setattr(cls.lake, when, goes_on)
            cls.busy[when] = cls.reconciled()
        cls.lake.before = lambda: cls.run_binary("recount", "compact", "--confirm", more=cls.athena)
        cls.busy["compacted"] = cls.reconciled()
        # What is read by a glob from here on sees each event once.
        cls.run_binary("recount", "compact", "--grace", "0", "--under-readers", "--confirm", more=cls.athena)

    @classmethod
    def reconciled(cls):
        return json.loads(cls.run_binary("recount", "reconcile", "--engine", "athena", "--format", "json", more=cls.athena))

    @classmethod
    def by_athena(cls):
        """What the commands say with `--engine athena`, of a clean archive and of a spoilt one, beside what they say without."""
        athena = cls.athena

        def said(command, *arguments, ends=0):
            own = json.loads(cls.run_binary("recount", command, *arguments, "--format", "json", ends=ends))
            asked = json.loads(cls.run_binary("recount", command, *arguments, "--engine", "athena", "--format", "json",
                                              ends=ends, more=athena))
            return own, asked

        cls.recounts = said("recompute")
        cls.clean = said("reconcile")
        (group, month), _ = next(iter(cls.monthly.items()))
        cls.of_a_group = said("reconcile", "--group", group, "--month", month)
        # An event leaves its ledger and its number, as if it had never been counted.
        where = {"TableName": "recount-totals", "Key": {"pk": {"S": group}, "sk": {"S": f"{month}#0"}}}
        key = cls.dynamodb("GetItem", where)["Item"]["recent"]["BS"][0]
        values = {":key": {"BS": [key]}, ":one": {"N": "-1"}}
        cls.lost = key
        cls.dynamodb("UpdateItem", {**where, "UpdateExpression": "DELETE recent :key ADD events :one", "ExpressionAttributeValues": values})
        cls.damaged = said("reconcile", ends=1)
        values[":one"] = {"N": "1"}
        cls.dynamodb("UpdateItem", {**where, "UpdateExpression": "ADD recent :key, events :one", "ExpressionAttributeValues": values})
        cls.without_a_workgroup = cls.run_binary("recount", "reconcile", "--engine", "athena", ends=3, streams="stderr")
        # A partition is not there.
        cls.hidden = month
        cls.lake.hidden.add(month)
        asked = len(cls.lake.queries)
        cls.undecided = cls.run_binary("recount", "reconcile", "--engine", "athena", ends=2, more=athena, streams="stderr")
        cls.tries = len(cls.lake.queries) - asked
        cls.lake.hidden.clear()
        # A partition lacks a column that decides what counts.
        cls.lacking = {}
        for command, column in (("recompute", "class"), ("recompute", "group_key"), ("reconcile", "event_key")):
            cls.lake.lacking = {month: column}
            cls.lacking[column] = cls.run_binary("recount", command, "--engine", "athena", ends=2, more=athena, streams="stderr")
        cls.lake.lacking = {}
        # A cell comes back under another name.
        theirs, nobody = (name.encode().hex().upper() for name in (group, "nobody"))
        cls.lake.misread = lambda line: [nobody if (at, one) == (1, theirs) else one for at, one in enumerate(line)]
        misnamed = "reconcile", "--engine", "athena", "--month", month, "--format", "json"
        cls.misnamed = json.loads(cls.run_binary("recount", *misnamed, ends=2, more=athena))
        cls.lake.misread = list

    @classmethod
    def run_binary(cls, name, *arguments, ends=0, more=(), streams="stdout"):
        command, environment = [BINARIES / name, *arguments], {**cls.environment, **dict(more)}
        done = subprocess.run(command, env=environment, cwd=cls.data, capture_output=True, text=True, timeout=180)
        if done.returncode != ends:
            raise AssertionError(f"{name} {' '.join(arguments)}: {done.returncode}: {done.stdout}{done.stderr}")
        return getattr(done, streams)

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

    def asked(self, what):
        return next(query for query in self.lake.queries if what in query)

    def test_the_questions_of_the_engine_are_statements_of_athena(self):
        self.assertGreaterEqual(len(set(self.lake.queries)), 3)
        for query in set(self.lake.queries):
            for dialect in ("athena", "trino"):
                (statement,) = sqlglot.parse(query, dialect=dialect, error_level=sqlglot.ErrorLevel.RAISE)
                self.assertIsInstance(statement, sqlglot.exp.Select)
                # Complex groupings take names of columns only.
                (sets,) = statement.find_all(sqlglot.exp.GroupingSets)
                self.assertEqual([kind for kind in ("Func", "Case", "Binary") if sets.find(getattr(sqlglot.exp, kind))], [])

    def test_the_question_of_a_recount_gives_the_totals_and_the_rows_of_each_file(self):
        _, rows = self.lake.query(self.asked("(month, group_key)"))
        totals = {(bytes.fromhex(group).decode(), month): (events, size)
                  for month, group, file, _, events, _, _, _, size, _ in rows if file is None and events}
        self.assertEqual(totals, self.monthly)
        files = {(month, pathlib.Path(file).name): archived for month, _, file, archived, *_ in rows if file is not None}
        self.assertEqual(files, {(row["month"], pathlib.Path(row["file"]).name): row["events"] for row in self.query("rows_by_file")})
        with self.lake.opened() as database:
            ends = database.execute(
                """SELECT month, "$path", count(*), min(group_key), max(group_key) FROM events GROUP BY month, "$path" ORDER BY ALL""").fetchall()
        spelt = lambda text: None if text is None else text.encode().hex().upper()
        self.assertEqual(sorted((month, file, judged, first, last) for month, _, file, _, _, judged, first, last, *_ in rows if file is not None),
                         [(month, file, count, spelt(first), spelt(last)) for month, file, count, first, last in ends])

    def test_a_recount_by_athena_is_our_own(self):
        own, asked = self.recounts
        self.assertEqual((own["months"], own["years"]), (asked["months"], asked["years"]))
        self.assertEqual((own["entries"], own["files"], own["rows"]), (asked["entries"], asked["files"], asked["rows"]))

    def test_the_question_of_reconcile_is_a_count_of_every_row(self):
        # As if all were older than the ledger reaches, and as it is.
        question = self.asked("(month, group_key, lane)")
        (horizon,) = (part.split("'")[0] for part in question.split("min(event) < '")[1:])
        all_old = re.sub(r" AND month <= '[0-9-]+'", "", question.replace(horizon, "F" * 32))
        for question, old in ((all_old, True), (question, False)):
            _, rows = self.lake.query(question)
            self.assertEqual(sorted(map(repr, rows)), sorted(map(repr, self.counted_by_hand(old))))

    def counted_by_hand(self, old):
        groups = collections.defaultdict(list)
        with self.lake.opened() as database:
            events = database.execute(
                """SELECT month, group_key, "$path", shard_id, sequence_number, event_key, class, measure_bytes FROM events""").fetchall()
        for month, group, file, shard, sequence, key, kind, size in events:
            counts = kind == "insert" and group is not None
            row = (key, sequence, size) if counts else None
            whole = row, size, key.hex().upper(), group
            groups[month, group.encode().hex().upper() if counts else None, 0 if counts else None, None, None].append(whole)
            groups[month, None, None, file, None].append(whole)
            groups[month, None, None, None, shard].append(whole)
        for of, rows in groups.items():
            counted = [row for row, *_ in rows if row]
            keys = sorted((key.hex().upper() for key, *_ in counted), reverse=True)
            hashes = [hashlib.sha256(key).digest() for key, *_ in counted]
            halves = [[int.from_bytes(hash[at:at + 8], "big", signed=True) for hash in hashes] for at in (0, 8)]
            ends = [None] * 4
            if of[3] is not None:
                every, named = [key for *_, key, _ in rows], [group.encode().hex().upper() for *_, group in rows if group is not None]
                ends = [min(every), max(every), min(named, default=None), max(named, default=None)]
            total = lambda sizes: sum(sizes, decimal.Decimal("0E-9")) if sizes else None
            yield (*of, len(rows), len(counted), *(decimal.Decimal(sum(half)) if half else None for half in halves), keys[-1] if keys else None,
                   " ".join(keys[:64]) if old and of[2] is not None else None,
                   max((f"{len(number):03}{number}" for _, number, _ in counted), default=None), len(rows), *ends,
                   total([size for *_, size in counted if size is not None]), total([size for _, size, *_ in rows if size is not None]))

    def test_a_clean_archive_is_clean_by_athena_alone(self):
        for own, asked in (self.clean, self.of_a_group):
            said = asked.pop("athena")
            self.assertEqual(own, asked)
            self.assertEqual((asked["verdict"], asked["findings"]), ("clean", []))
            self.assertEqual((said["cells_read"], said["scanned_bytes"]), (0, 1234))
        self.assertEqual(self.clean[0]["cells"], len(self.monthly))
        self.assertEqual(self.of_a_group[0]["cells"], 1)

    def test_an_archive_that_goes_on_is_clean_too(self):
        after, before = (self.busy[when] for when in ("after", "before"))
        self.assertEqual((after["verdict"], before["verdict"]), ("clean", "clean"))
        # What came after Athena had read is in no cell that was read; what it read more than the cells is looked at again.
        self.assertEqual(after["athena"]["cells_read"], 0)
        self.assertGreater(before["athena"]["cells_read"], 0)
        self.assertGreater(before["athena"]["rows"], after["athena"]["rows"])
        self.assertEqual([busy["athena"]["query"] for busy in self.busy.values()], ["q0", "q1", "q2"], "each was asked once")

    def test_months_that_are_compacted_meanwhile_are_clean_too(self):
        before, compacted = (self.busy[when] for when in ("before", "compacted"))
        self.assertEqual((compacted["verdict"], compacted["athena"]["cells_read"]), ("clean", 0))
        self.assertEqual(compacted["athena"]["rows"], before["athena"]["rows"])
        self.assertLess(compacted["athena"]["files"], before["athena"]["files"])
        self.assertGreater(compacted["athena"]["entries"], before["athena"]["entries"])

    def test_a_damaged_cell_is_found_and_its_event_named_as_without_athena(self):
        own, asked = self.damaged
        said = asked.pop("athena")
        for report in own, asked:
            report["coverage"].pop("oldest_unverified_age_s")
        self.assertEqual(own, asked)
        self.assertEqual(said["cells_read"], 1)
        named = [event["event_key"] for finding in asked["findings"] if finding["kind"] == "missing" for event in finding["events"]]
        self.assertEqual(named, [base64.b64decode(self.lost).hex()])

    def test_it_needs_a_workgroup(self):
        told = self.without_a_workgroup
        self.assertIn("--engine athena needs RECOUNT_GLUE_DATABASE", told)

    def test_a_missing_partition_cannot_pass_for_a_clean_month(self):
        self.assertIn("Athena did not read the archive as the log has it", self.undecided)
        self.assertIn(self.hidden, self.undecided)
        self.assertEqual(self.tries, 2)

    def test_a_column_that_a_partition_lacks_cannot_pass_for_no_events(self):
        self.assertIn(f"{self.hidden} comes to other rows with class and source_table than the log has", self.lacking["class"])
        self.assertIn(f"{self.hidden} comes to other ends of group_key than the log has", self.lacking["group_key"])
        self.assertIn("a cell of no event", self.lacking["event_key"])

    def test_a_cell_that_is_named_otherwise_is_not_passed_over(self):
        self.assertEqual((self.misnamed["verdict"], self.misnamed["findings"]), ("undecided", []))
        self.assertIn('Athena said that group "nobody" has ', self.misnamed["undecided_because"])

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
