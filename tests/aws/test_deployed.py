"""The deployed pipeline: infra/aws/template.yaml as a stack in MiniStack, with the real binaries as its functions.

    RECOUNT_BINARIES=target/debug python -m unittest tests/aws/test_deployed.py    (tests/run does)

Items go into the source table by boto3, as an application's would. What they come to is counted here, from what was acknowledged,
and compared with the totals table, `recount usage`, Athena SQL over the events, and `recount recompute`: they share no code.
infra/aws/README.md says what of this only AWS can show; a green test here says nothing about that.
"""

import base64
import concurrent.futures
import datetime
import decimal
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import botocore.exceptions

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
BINARIES = pathlib.Path(os.environ.get("RECOUNT_BINARIES", ROOT / "target/debug"))
SEED = int(os.environ.get("RECOUNT_TEST_SEED", "5"))
STACK = "recount"
NEVER = "at(2099-01-01T00:00:00)"
COUNTED = 120  # s: until everything written is counted, on a busy machine
SCHEDULED = 60  # s: MiniStack looks at its schedules every ten
ROUNDS = (6, 20)  # of writing under faults: at least, and at most until each fault has struck


class Deployed(unittest.TestCase):
    """The steps share one stack, and go in the order of their names."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(tempfile.mkdtemp(prefix="recount-aws-"))
        cls.addClassCleanup(shutil.rmtree, cls.place, ignore_errors=True)
        cls.aws = StandIn(cls.place, SEED)
        cls.addClassCleanup(cls.aws.stop)
        cls.aws.begin()
        cls.s3, cls.lambdas, cls.dynamodb = (cls.aws.client(name) for name in ("s3", "lambda", "dynamodb"))
        cls.glue, cls.athena = cls.aws.client("glue"), cls.aws.client("athena")
        parameters = {
            "Capture": "relay",
            "StreamMode": "PROVISIONED",
            "ShardCount": "2",
            "Definition": base64.b64encode(DEFINITION.read_bytes()).decode(),
            # Each goes off when the test says so.
            **dict.fromkeys(["ArchiveSchedule", "CompactSchedule", "RecomputeSchedule", "ReconcileSchedule"], NEVER),
        }
        cls.template = deploy.packaged(TEMPLATE, BINARIES, cls.s3)
        cls.cloudformation = cls.aws.client("cloudformation")
        cls.stack = deploy.deployed(cls.cloudformation, cls.s3, STACK, cls.template, parameters, cls.aws.endpoint)
        for name in ("Consumer", "Relay", "Compactor"):
            cls.lambdas.get_waiter("function_active_v2").wait(FunctionName=cls.stack[f"{name}FunctionName"])
        cls.load = Load(cls.dynamodb, cls.stack["SourceTableName"], SEED)

    def run(self, result=None):
        failures = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > failures:
            # Without the functions' metrics, a line of each batch.
            log = "\n".join(line[:400] for line in self.aws.log("ministack").splitlines() if not line.startswith('{"_aws"'))
            print(f"seed {SEED}; the end of MiniStack's log:\n{log[-8000:]}", file=sys.stderr)

    # What is asked.

    def function(self, name, request):
        """The answer of a function, which must be no error."""
        answer = self.lambdas.invoke(FunctionName=self.stack[f"{name}FunctionName"], Payload=json.dumps(request).encode())
        body = json.loads(answer["Payload"].read())
        self.assertNotIn("FunctionError", answer, body)
        return body

    def recount(self, *arguments, ends=0):
        """What `recount` says as JSON. It has the stack's name and nothing else."""
        environment = {**KEYS, "AWS_REGION": REGION, "AWS_ENDPOINT_URL": self.aws.endpoint, "HOME": str(self.place)}
        command = [BINARIES / "recount", "--stack", STACK, "--format", "json", *arguments]
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

    def scheduled(self, *logical_ids):
        """Has schedules of the template go off, as they stand but for the time."""
        schedules = self.aws.client("scheduler")
        now = datetime.datetime.now(datetime.timezone.utc)
        for logical_id in logical_ids:
            resource = self.cloudformation.describe_stack_resource(StackName=STACK, LogicalResourceId=logical_id)
            schedule = schedules.get_schedule(Name=resource["StackResourceDetail"]["PhysicalResourceId"])
            kept = {name: schedule[name] for name in ("Name", "GroupName", "State", "Target", "FlexibleTimeWindow")}
            schedules.update_schedule(**kept, ScheduleExpression=f"at({now:%Y-%m-%dT%H:%M:%S})", ScheduleExpressionTimezone="UTC")

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

    def test_1_the_stack_is_what_the_template_says_but_for_what_ministack_ignores(self):
        mappings = self.lambdas.list_event_source_mappings()["EventSourceMappings"]
        for mapping in mappings:
            self.assertEqual(
                (mapping["StartingPosition"], mapping["FunctionResponseTypes"], mapping["ParallelizationFactor"], mapping["State"]),
                ("TRIM_HORIZON", ["ReportBatchItemFailures"], 1, "Enabled"),
            )
            self.assertTrue(mapping["DestinationConfig"]["OnFailure"]["Destination"].endswith(self.stack["BucketName"]))
        self.assertEqual(len(mappings), 2)
        self.assertIn(self.stack["ConsumerMappingId"], [mapping["UUID"] for mapping in mappings])
        stream = self.aws.client("kinesis").describe_stream_summary(StreamName=self.stack["StreamName"])["StreamDescriptionSummary"]
        self.assertEqual((stream["RetentionPeriodHours"], stream["StreamModeDetails"]), (168, {"StreamMode": "PROVISIONED"}))
        source = self.dynamodb.describe_table(TableName=self.stack["SourceTableName"])["Table"]
        self.assertEqual(source["StreamSpecification"]["StreamViewType"], "NEW_AND_OLD_IMAGES")
        bucket = {"Bucket": self.stack["BucketName"]}
        self.assertEqual(self.s3.get_bucket_versioning(**bucket)["Status"], "Enabled")
        self.assertTrue(all(self.s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"].values()))
        self.assertIn("TheLogIsNeverOverwritten", self.s3.get_bucket_policy(**bucket)["Policy"])
        workgroup = self.athena.get_work_group(WorkGroup=self.stack["AthenaWorkgroupName"])["WorkGroup"]["Configuration"]
        self.assertTrue(workgroup["EnforceWorkGroupConfiguration"])

        # CREATE_COMPLETE, and yet none of these. The flow below needs none, so nothing is put right by hand; that the template asks
        # for them is another test's. One that MiniStack has learned fails here: then assert it above instead.
        ledger = {"TableName": self.stack["LedgerTableName"]}
        self.assertEqual(self.dynamodb.describe_time_to_live(**ledger)["TimeToLiveDescription"]["TimeToLiveStatus"], "DISABLED")
        backups = self.dynamodb.describe_continuous_backups(**ledger)["ContinuousBackupsDescription"]
        self.assertEqual(backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"], "DISABLED")
        self.assertEqual(stream["EncryptionType"], "NONE")
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "NoSuchLifecycleConfiguration"):
            self.s3.get_bucket_lifecycle_configuration(**bucket)

        # And `recount doctor` names just these, so far as it looks for them; and two that it cannot see: MiniStack answers "50" and
        # "4096" where a number of the template was a parameter, and the SDK takes no text for a number.
        report = self.recount("doctor", ends=1)
        wrong = {check["what"] for check in report["checks"] if check["outcome"] not in ("fine", "not_checked")}
        recovery = {f"{table} table: recovery" for table in ("totals", "ledger", "progress")}
        self.assertEqual(wrong, recovery | {"ledger table: expiry", "consumer mapping", "definition: compactor"}, report)

    def test_2_what_is_put_ends_in_totals_archive_and_athena(self):
        self.load.write(300)
        self.counted()
        self.assertEqual(self.objects("_log/"), [])
        self.scheduled("ArchiveEveryFewMinutes")
        until("an archive run of the schedule", lambda: self.objects("_log/"), SCHEDULED)
        self.assertTrue(self.function("Compactor", {"task": "archive"})["reached_tip"])
        self.partitions_point_at_versions()
        self.everybody_agrees()
        self.scheduled("RecomputeDaily")
        until("the totals of the schedule's recompute", lambda: self.objects("totals/"), SCHEDULED)

    def test_3_after_a_compaction_too(self):
        self.load.write(100)
        self.counted()
        self.function("Compactor", {"task": "archive"})
        before = self.objects("events/")
        self.recount("compact", "--grace", "0", "--under-readers", "--confirm")
        self.assertLess(len(self.objects("events/")), len(before))
        for versions in self.partitions_point_at_versions().values():
            self.assertEqual(len(versions), 1, "a query by location pattern would see events twice")
        self.everybody_agrees()

    def test_4_faults_change_no_total(self):
        tasks = [{"task": "archive"}, {"task": "archive"}, {"task": "reconcile"}]
        archived, verdicts, missing, at_least, at_most = 0, [], storm.faults(), *ROUNDS
        for turn in range(at_most):
            self.aws.rules(storm.rules(rough=turn % 2 == 0, surely=missing))
            self.load.write(60)
            # Two runs at once, as by a schedule that delivers twice, and a reconcile beside them. Any may fail; none may be wrong.
            with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
                *archives, reconciled = pool.map(self.attempt, tasks)
            archived += sum("reached_tip" in answer for answer in archives)
            verdicts.append(reconciled.get("verdict", "failed"))
            self.assertNotEqual(verdicts[-1], "findings", reconciled)
            metrics = self.aws.faults()
            missing = [fault for fault in storm.faults() if not storm.struck(fault, metrics)]
            if turn + 1 >= at_least and archived and "clean" in verdicts and not missing:
                break
        self.assertEqual(missing, [], f"these never struck; what did: {metrics}")
        self.assertTrue(archived and "clean" in verdicts, f"nothing came through: {archived} archive runs, reconciles {verdicts}")
        self.aws.rules([])
        self.counted()
        self.assertTrue(self.function("Compactor", {"task": "archive"})["reached_tip"])
        self.partitions_point_at_versions()
        self.everybody_agrees()
        self.assertEqual(self.recount("fsck")["verdict"], "clean")
        pages = self.dynamodb.scan(TableName=self.stack["LedgerTableName"], Select="COUNT")["Count"]
        self.assertGreater(pages, 0, "no cell grew enough for its keys to be sealed")
        print(f"\n{sum(metrics.values())} faults in {turn + 1} rounds, {archived} archive runs; reconciles: {', '.join(verdicts)}")

    def test_5_the_other_capture_deploys(self):
        """Its records have another shape in MiniStack than on AWS, so none is sent; infra/local and captured records show that way."""
        parameters = {"Capture": "kinesis", "SourceTableName": "others", "GlueDatabase": "others"}
        stack = deploy.deployed(self.cloudformation, self.s3, "others", self.template, parameters, self.aws.endpoint)
        self.assertEqual(stack["Capture"], "kinesis")
        self.assertNotIn("RelayFunctionName", stack)
        # Ignored too. One that MiniStack has learned fails here: then send changes this way as well.
        destinations = self.dynamodb.describe_kinesis_streaming_destination(TableName=stack["SourceTableName"])
        self.assertEqual(destinations["KinesisDataStreamDestinations"], [])

    def test_6_the_log_can_only_be_added_to(self):
        """By the bucket's policy as MiniStack evaluates it, for a user who may do anything to S3. (It lets the root past all policies,
        and this test's other requests and `recount` are the root's; on AWS a denial binds the root too.)"""
        iam = self.aws.client("iam")
        iam.create_user(UserName="operator")
        anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName="operator", PolicyName="s3", PolicyDocument=json.dumps(anything))
        key = iam.create_access_key(UserName="operator")["AccessKey"]
        operator = self.aws.client("s3", keys={"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]})
        bucket = self.stack["BucketName"]
        operator.put_object(Bucket=bucket, Key="elsewhere", Body=b"")
        entry = self.objects("_log/")[0]
        for refused in (
            lambda: operator.delete_object(Bucket=bucket, Key=entry),
            lambda: operator.put_object(Bucket=bucket, Key=entry, Body=b"another"),
            lambda: operator.put_object(Bucket=bucket, Key="_log/999999999999.json", Body=b"another"),
        ):
            with self.assertRaisesRegex(botocore.exceptions.ClientError, "AccessDenied"):
                refused()
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "PreconditionFailed"):
            operator.put_object(Bucket=bucket, Key=entry, Body=b"another", IfNoneMatch="*")

    def test_7_a_function_without_its_rights_is_refused(self):
        """What the others show of the roles, that they suffice, they show only if rights count here at all."""
        iam = self.aws.client("iam")
        role = self.cloudformation.describe_stack_resource(StackName=STACK, LogicalResourceId="CompactorRole")
        role = role["StackResourceDetail"]["PhysicalResourceId"]
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
            document["Statement"] = [s for s in document["Statement"] if "kinesis:GetRecords" not in s["Action"]]
            iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
        self.assertIn("AccessDenied", self.attempt({"task": "archive"})["errorMessage"])

    def attempt(self, request):
        """The compactor's answer, or its error."""
        payload = json.dumps(request).encode()
        return json.loads(self.lambdas.invoke(FunctionName=self.stack["CompactorFunctionName"], Payload=payload)["Payload"].read())


def lines(usage):
    """(group, month) to (events, bytes), of what `usage` and `recompute` print."""
    return {(line["group"], line["month"]): (line["events"], decimal.Decimal(line["sums"]["bytes"])) for line in usage["months"]}


if __name__ == "__main__":
    unittest.main()
