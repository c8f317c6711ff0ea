"""The deployed pipeline: infra/aws/template.yaml as a stack in MiniStack, with the real binaries as its functions.

    RECOUNT_TEST_BINARIES=target/debug python -m unittest tests/aws/test_deployed.py    (tests/run does)

Items go into the source table by boto3, as an application's would. What they come to is counted here, from what was acknowledged,
and compared with the totals table, `recount usage`, Athena SQL over the events, and `recount recompute`: they share no code.
infra/aws/README.md says what of this only AWS can show; a green test here says nothing about that.
"""

import base64
import concurrent.futures
import decimal
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))

import deploy  # noqa: E402
import storm  # noqa: E402
from load import Load  # noqa: E402
from stand_in import KEYS, REGION, StandIn, until  # noqa: E402

ROOT = HERE.parent.parent
TEMPLATE = pathlib.Path(os.environ.get("RECOUNT_TEST_TEMPLATE", ROOT / "infra/aws/template.yaml"))
DEFINITION = ROOT / "infra/local/recount.toml"
BINARIES = pathlib.Path(os.environ.get("RECOUNT_TEST_BINARIES", ROOT / "target/debug"))
SEED = int(os.environ.get("RECOUNT_TEST_SEED", "5"))
STACK = "recount"
COUNTED = 120  # s: until everything written is counted, on a busy machine
SCHEDULED = 120  # s: a schedule of a minute, which MiniStack looks at every ten seconds


class Deployed(unittest.TestCase):
    """The steps share one stack, and go in the order of their names."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(tempfile.mkdtemp(prefix="recount-aws-"))
        cls.addClassCleanup(shutil.rmtree, cls.place, ignore_errors=True)
        cls.aws = cls.enterClassContext(StandIn(cls.place))
        cls.s3, cls.lambdas, cls.dynamodb = (cls.aws.client(name) for name in ("s3", "lambda", "dynamodb"))
        cls.glue, cls.athena = cls.aws.client("glue"), cls.aws.client("athena")
        parameters = {
            "Capture": "relay",
            "Definition": base64.b64encode(DEFINITION.read_bytes()).decode(),
            "ArchiveSchedule": "rate(1 minute)",
        }
        template = deploy.packaged(TEMPLATE, BINARIES, cls.s3)
        cls.stack = deploy.deployed(cls.aws.client("cloudformation"), cls.s3, STACK, template, parameters, cls.aws.endpoint)
        for name in ("Consumer", "Relay", "Compactor"):
            cls.lambdas.get_waiter("function_active_v2").wait(FunctionName=cls.stack[f"{name}FunctionName"])
        cls.load = Load(cls.dynamodb, cls.stack["SourceTableName"], SEED)

    def run(self, result=None):
        failures = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > failures:
            print(f"seed {SEED}; the end of MiniStack's log:\n{self.aws.log('ministack')}", file=sys.stderr)

    # What is asked.

    def function(self, name, request):
        """The answer of a function, which must be no error."""
        answer = self.lambdas.invoke(FunctionName=self.stack[f"{name}FunctionName"], Payload=json.dumps(request).encode())
        body = json.loads(answer["Payload"].read())
        self.assertNotIn("FunctionError", answer, body)
        return body

    def recount(self, *arguments, ends=0):
        """What `recount` says as JSON."""
        names = {
            "RECOUNT_DEFINITION": str(DEFINITION),
            "RECOUNT_TOTALS_TABLE": self.stack["TotalsTableName"],
            "RECOUNT_LEDGER_TABLE": self.stack["LedgerTableName"],
            "RECOUNT_PROGRESS_TABLE": self.stack["ProgressTableName"],
            "RECOUNT_STREAM": self.stack["StreamName"],
            "RECOUNT_BUCKET": self.stack["BucketName"],
            "RECOUNT_GLUE_DATABASE": self.stack["GlueDatabaseName"],
            "RECOUNT_ATHENA_WORKGROUP": self.stack["AthenaWorkgroupName"],
        }
        environment = {**KEYS, **names, "AWS_REGION": REGION, "AWS_ENDPOINT_URL": self.aws.endpoint, "HOME": str(self.place)}
        command = [BINARIES / "recount", "--format", "json", *arguments]
        done = subprocess.run(command, env=environment, cwd=self.place, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, ends, f"recount {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def table_totals(self):
        """The totals as any client can read them from the table."""
        totals = {}
        for page in self.dynamodb.get_paginator("scan").paginate(TableName=self.stack["TotalsTableName"], ConsistentRead=True):
            for item in page["Items"]:
                if "events" in item:
                    key = item["pk"]["S"], item["sk"]["S"].split("#")[0]
                    events, size = totals.get(key, (0, decimal.Decimal(0)))
                    totals[key] = events + int(item["events"]["N"]), size + decimal.Decimal(item["sum_bytes"]["N"])
        return totals

    def query(self, sql):
        """The rows of a statement, as texts, without the heading."""
        started = self.athena.start_query_execution(
            QueryString=sql, WorkGroup=self.stack["AthenaWorkgroupName"],
            QueryExecutionContext={"Database": self.stack["GlueDatabaseName"]},
        )["QueryExecutionId"]

        def ended():
            status = self.athena.get_query_execution(QueryExecutionId=started)["QueryExecution"]["Status"]
            return status if status["State"] not in ("QUEUED", "RUNNING") else None

        status = until(f"the end of {sql}", ended, 60)
        self.assertEqual(status["State"], "SUCCEEDED", status)
        rows = []
        for page in self.athena.get_paginator("get_query_results").paginate(QueryExecutionId=started):
            rows += [tuple(cell.get("VarCharValue") for cell in row["Data"]) for row in page["ResultSet"]["Rows"]]
        return rows[1:]

    def sql_totals(self):
        sql = "SELECT group_key, month, count(*), sum(measure_bytes) FROM events WHERE class = 'insert' GROUP BY group_key, month"
        return {(group, month): (int(events), decimal.Decimal(size)) for group, month, events, size in self.query(sql)}

    def objects(self, prefix):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.stack["BucketName"], Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def counted(self):
        """Waits until the totals are those of all that was written."""
        try:
            until("the totals", lambda: self.table_totals() == self.load.totals(), COUNTED)
        except TimeoutError:
            self.assertEqual(self.table_totals(), self.load.totals())

    def everybody_agrees(self):
        expected = self.load.totals()
        self.assertEqual(self.table_totals(), expected)
        self.assertEqual(lines(self.recount("usage")), expected)
        self.assertEqual(self.sql_totals(), expected)
        self.assertEqual(lines(self.recount("recompute")), expected)
        verdict = self.recount("reconcile")
        self.assertEqual((verdict["verdict"], verdict["findings"]), ("clean", []))
        self.assertEqual(verdict["events"], sum(events for events, _ in expected.values()))

    def partitions_point_at_versions(self):
        """Each month of the archive is a partition, at the directory of its version."""
        versions = {}
        for key in self.objects("events/"):
            _, month, version, _ = key.split("/")
            versions.setdefault(month.removeprefix("month="), set()).add(version)
        for month, found in versions.items():
            partition = self.glue.get_partition(
                DatabaseName=self.stack["GlueDatabaseName"], TableName="events", PartitionValues=[month],
            )["Partition"]
            location = f"s3://{self.stack['BucketName']}/events/month={month}/{max(found)}"
            self.assertEqual(partition["StorageDescriptor"]["Location"].rstrip("/"), location)
        return versions

    # The steps.

    def test_2_what_is_put_ends_in_totals_archive_and_athena(self):
        self.load.write(300)
        self.counted()
        # The schedule, not this test, asks for this.
        until("an archive run of the schedule", lambda: self.objects("_log/"), SCHEDULED, every=1)
        self.assertTrue(self.function("Compactor", {"task": "archive"})["reached_tip"])
        self.partitions_point_at_versions()
        self.everybody_agrees()

    def test_3_after_a_compaction_too(self):
        self.load.write(100)
        self.counted()
        self.function("Compactor", {"task": "archive"})
        before = self.objects("events/")
        self.recount("compact", "--grace", "0", "--confirm")
        self.assertLess(len(self.objects("events/")), len(before))
        for versions in self.partitions_point_at_versions().values():
            self.assertEqual(len(versions), 1, "a query by location pattern would see events twice")
        self.everybody_agrees()

    def test_4_faults_change_no_total(self):
        self.aws.rules(storm.rules(SEED))
        with concurrent.futures.ThreadPoolExecutor(2) as runs:
            wanted = [storm.strikes(*fault) for fault in storm.faults()]
            for _ in range(40):
                self.load.write(40)
                # Two at once, as a schedule that delivers twice.
                list(runs.map(lambda _: self.attempt("Compactor", {"task": "archive"}), range(2)))
                struck = self.aws.faults()
                missing = [want for want in wanted if not any(want(*at) for at in struck)]
                if not missing:
                    break
            self.assertFalse(missing, f"faults that never struck; those that did: {struck}")
        self.aws.rules([])
        self.counted()
        self.assertTrue(self.function("Compactor", {"task": "archive"})["reached_tip"])
        self.everybody_agrees()
        self.assertEqual(self.recount("fsck")["verdict"], "clean")

    def attempt(self, name, request):
        answer = self.lambdas.invoke(FunctionName=self.stack[f"{name}FunctionName"], Payload=json.dumps(request).encode())
        return answer["Payload"].read()


def lines(usage):
    """(group, month) to (events, bytes), of what `usage` and `recompute` print."""
    return {(line["group"], line["month"]): (line["events"], decimal.Decimal(line["sums"]["bytes"])) for line in usage["months"]}


if __name__ == "__main__":
    unittest.main()
