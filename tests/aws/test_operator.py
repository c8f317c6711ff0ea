"""infra/aws/operator.yaml against what `recount` asks for: each command is run, and every request must be in the policies that
infra/aws/README.md says it needs.

    RECOUNT_TEST_BINARIES=target/debug python -m unittest tests/aws/test_operator.py

The binaries run in local mode, behind a door that writes down requests (`operator_door.py`). Local mode has no CloudFormation, Lambda,
Glue and Athena: of those `test_iam.py` holds the calls in the code against the policies.
"""

import base64
import fnmatch
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import botocore.config
import botocore.session

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from operator_door import door  # noqa: E402
from template import OPERATOR, ROOT, Template  # noqa: E402

BINARIES = pathlib.Path(os.environ.get("RECOUNT_TEST_BINARIES", ROOT / "target/debug"))
READS, CHECKS, CHANGES = "Reads", "Checks", "Changes"
# As local mode calls its things.
NAMES = {
    "SourceTableName": "scans", "StreamName": "recount-changes", "TotalsTableName": "recount-totals", "LedgerTableName": "recount-ledger",
    "ProgressTableName": "recount-progress", "BucketName": "recount-archive", "GlueDatabaseName": "recount", "AthenaWorkgroupName": "recount",
    "ConsumerFunctionName": "consumer", "CompactorFunctionName": "compactor", "ConsumerMappingId": "mapping", "ReplayStreamName": "mended",
}
# What no command of this test asks for, and what does.
NOT_HERE = {
    "s3:GetObject _state", "s3:PutObject _state", "s3:DeleteObject _state",  # a log of a hundred entries, of four hundred
    "s3:GetObject conflicts", "s3:PutObject conflicts",  # one event with two contents
    "s3:PutObject _catalog",  # Glue
    "dynamodb:PutItem recount-ledger", "dynamodb:PutItem recount-ledger-*",  # a cell with more keys than it holds itself; an event that came too late
    "dynamodb:Query recount-totals-*",  # usage of one group of a set
}


class Operator(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        template = Template(OPERATOR, Stack="recount", **NAMES)
        cls.policies = {}
        for policy in (READS, CHECKS, CHANGES):
            statements = template.properties(policy)["PolicyDocument"]["Statement"]
            cls.policies[policy] = {(action, resource) for statement in statements
                                    for action in listed(statement["Action"]) for resource in listed(statement["Resource"])}

    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="recount-operator-")
        self.addCleanup(place.cleanup)
        self.data = pathlib.Path(place.name) / "data"
        serve = [BINARIES / "recount-local", "serve", "--port", "0", "--data", self.data, "--archive-every", "1"]
        self.serve = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(self.stop)
        self.port = int(re.match(r"ready: http://127\.0\.0\.1:(\d+) ", self.serve.stdout.readline())[1])
        session = botocore.session.Session()
        session.set_credentials("any", "any")
        path = botocore.config.Config(s3={"addressing_style": "path"})
        self.dynamodb, self.kinesis, self.s3 = (
            session.create_client(service, region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{self.port}", config=path)
            for service in ("dynamodb", "kinesis", "s3"))
        self.used = set()

    def stop(self):
        self.serve.send_signal(signal.SIGTERM)
        self.serve.wait(60)
        self.serve.stdout.close()

    def put(self, scan, **others):
        item = {"scan_id": {"S": scan}, "project_id": {"S": "acme"}, "scanned_at": {"S": "2026-11-10T00:00:00Z"}, "bytes": {"N": "5"}}
        self.dynamodb.put_item(TableName="scans", Item={**item, **others})

    def recount(self, port, words):
        env = {**os.environ, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1",
               "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        return subprocess.run([BINARIES / "recount", *words], cwd=self.data, env=env, capture_output=True, text=True, timeout=120)

    def until_counted(self, events):
        ends = time.monotonic() + 60
        while True:
            usage = json.loads(self.recount(self.port, ["usage", "acme", "--format", "json"]).stdout)
            if sum(month["events"] for month in usage["months"]) >= events:
                return
            self.assertLess(time.monotonic(), ends, usage)
            time.sleep(0.2)

    def needs(self, policy, line, code=0):
        """Runs a command with the policies up to this one, and no others. What it said, as JSON."""
        allowed = set().union(*(rights for name, rights in self.policies.items() if (READS, CHECKS, CHANGES).index(name)
                                <= (READS, CHECKS, CHANGES).index(policy)))
        with door(self.port) as (port, seen):
            done = self.recount(port, [*line.split(), "--format", "json"])
        self.assertEqual(done.returncode, code, f"{line}\n{done.stdout[-2000:]}\n{done.stderr}")
        self.assertTrue(seen, line)
        for action, resource in seen:
            by = {right for right in allowed if right[0] == action and fnmatch.fnmatchcase(resource, right[1])}
            self.assertTrue(by, f"recount {line}: {action} on {resource} is not in the policies up to {policy}")
            self.used |= by
        return json.loads(done.stdout)

    def test_each_command_asks_for_no_more_than_its_policies_give(self):
        for n in range(20):
            self.put(f"a-{n}", scanned_at={"S": f"2026-{10 + n % 2}-10T00:00:00Z"})
        self.put("bad", bytes={"S": "many"})
        self.until_counted(20)
        self.recount(self.port, ["archive"])

        for line in ("usage", "usage acme", "explain acme 2026-11 --all", "fsck", "fsck --deep", "fsck --repair", "files", "sets", "compact", "doctor"):
            self.needs(READS, line)
        for line in ("reconcile --quarantined", "redrive", "erase --before 2026-11"):
            self.needs(READS, line, 1)
        event = self.needs(READS, "explain acme 2026-11")["events"][0]["event_id"]
        self.needs(READS, f"why {event}")
        self.needs(READS, "rebuild --into x")

        for line in ("archive", "reconcile", "reconcile --group acme", "recompute", "repair"):
            self.needs(CHECKS, line)
        self.needs(CHECKS, "audit --settle 1", 1)  # of `bad` nothing is archived
        self.needs(CHECKS, "erase scan_id=a-1", 1)

        # Somebody edits a counter.
        (cell, *_) = [item for item in self.dynamodb.scan(TableName="recount-totals")["Items"] if item["pk"] == {"S": "acme"}]
        self.dynamodb.update_item(TableName="recount-totals", Key={"pk": cell["pk"], "sk": cell["sk"]}, UpdateExpression="ADD events :n",
                                  ExpressionAttributeValues={":n": {"N": "7"}})
        plan = self.needs(CHECKS, "repair", 1)["plans"][0]["hash"]
        self.needs(READS, f"repair --plan {plan}", 1)
        (report,) = self.needs(CHANGES, f"repair --plan {plan} --confirm")["reports"]
        self.needs(READS, f"repair --report {report}")
        self.needs(CHANGES, "repair --confirm")

        # A quarantined record becomes one that is understood.
        (kept,) = self.s3.list_objects_v2(Bucket="recount-archive", Prefix="quarantine/")["Contents"]
        record = json.loads(self.s3.get_object(Bucket="recount-archive", Key=kept["Key"])["Body"].read())
        change = json.loads(base64.b64decode(record["data"]))
        change["dynamodb"]["NewImage"]["bytes"] = {"N": "9"}
        record["data"] = base64.b64encode(json.dumps(change).encode()).decode()
        self.s3.put_object(Bucket="recount-archive", Key=kept["Key"], Body=json.dumps(record).encode())
        self.needs(CHANGES, "redrive --confirm")

        # Capture is off.
        stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        self.dynamodb.update_table(TableName="scans", StreamSpecification={"StreamEnabled": False})
        self.put("lost")
        self.dynamodb.update_table(TableName="scans", StreamSpecification=stream)
        plan = self.needs(CHECKS, "backfill", 1)["plan"]
        self.needs(READS, f"backfill --plan {plan}", 1)
        self.needs(CHANGES, f"backfill --plan {plan} --confirm --settle 0")

        self.needs(CHANGES, "erase scan_id=a-1 --confirm")
        self.needs(CHANGES, "compact --confirm --grace 0")
        self.needs(CHANGES, "fsck --repair --confirm")

        self.kinesis.create_stream(StreamName="mended", ShardCount=1)
        self.needs(CHANGES, "replay --into mended")
        self.needs(CHANGES, "replay --into mended --confirm", 1)  # the erased one is not sent
        self.needs(CHANGES, "replay --into mended --positions")
        self.needs(CHANGES, "replay --into mended --hand-over --confirm", 1)

        self.needs(CHANGES, "rebuild --into x --confirm")
        for line in ("sets", "--set x usage", "--set x fsck", "--set x doctor", "--set x explain acme 2026-11"):
            self.needs(READS, line)
        self.needs(CHECKS, "--set x archive")
        self.needs(CHANGES, "switch --to x --unchecked --confirm")
        self.needs(READS, "usage")
        self.needs(CHECKS, "switch --to base")
        self.needs(CHANGES, "switch --to base --confirm")

        self.assertEqual(self.unused() & NOT_HERE, NOT_HERE, "it is asked for after all")
        self.assertEqual(self.unused() - NOT_HERE, set(), "a right that no command of this test needs")

    def unused(self):
        """The rights of what local mode has that nothing asked for, by the last word of their place. Those in sets/ are the base's, twice."""
        def shown(action, resource):
            place = resource.rpartition("table/")[2] if "table/" in resource else resource.rpartition(":::recount-archive/")[2].removesuffix("/*")
            return f"{action} {place}"

        local = {(action, resource) for rights in self.policies.values() for action, resource in rights
                 if action.split(":")[0] in ("dynamodb", "kinesis", "s3") and "/athena/*" not in resource and "/sets/*/" not in resource}
        of_athena = {"s3:GetBucketLocation", "s3:ListBucketMultipartUploads"}
        return {shown(*right) for right in local - self.used if right[0] not in of_athena}


def listed(one_or_more):
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


if __name__ == "__main__":
    unittest.main()
