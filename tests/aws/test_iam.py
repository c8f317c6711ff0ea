"""Each role of infra/aws/template.yaml may do what its function's code does, and nothing else.

    python -m unittest tests/aws/test_iam.py

CALLS says of each call that our code makes to AWS what it is on, and who makes it. The test finds the calls in the code (every
operation of every SDK that the crates depend on, by botocore's models), so that a new one fails here until it stands in the
table; and it holds the roles against the table, so that a right that nobody needs fails too.
"""

import pathlib
import re
import sys
import unittest

import botocore.session
from botocore import xform_name

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from template import ROOT, Template  # noqa: E402

CRATES = ("schemas", "consumer", "producer", "compactor")

# The functions; "operator" is who runs `recount` or `producer`, with rights of their own.
CONSUMER, COMPACTOR, RELAY, OPERATOR = "consumer", "compactor", "relay", "operator"

# By file: the operation, what it is on, who calls it there. As often as it stands in the file.
CALLS = {
    "consumer/src/handler/incarnation.rs": [("describe_stream_summary", "stream", {CONSUMER})],
    "consumer/src/progress.rs": [
        ("update_item", "progress", {CONSUMER, OPERATOR}),
        ("query", "progress", {COMPACTOR, OPERATOR}),
    ],
    "consumer/src/quarantine.rs": [("put_object", "bucket", {CONSUMER})],
    "consumer/src/tables.rs": [  # local mode, and sets
        ("describe_table", "tables", {OPERATOR}),
        ("describe_table", "tables", {OPERATOR}),
        ("create_table", "tables", {OPERATOR}),
        ("describe_time_to_live", "tables", {OPERATOR}),
        ("update_time_to_live", "tables", {OPERATOR}),
    ],
    "consumer/src/totals/definition.rs": [
        ("put_item", "totals", {CONSUMER, OPERATOR}),
        ("get_item", "totals", {CONSUMER, COMPACTOR, OPERATOR}),
    ],
    "consumer/src/totals/mod.rs": [
        ("put_item", "ledger", {CONSUMER, OPERATOR}),  # a page
        ("put_item", "ledger", {CONSUMER, OPERATOR}),  # the too-old list
        ("update_item", "totals", {CONSUMER, OPERATOR}),
    ],
    "consumer/src/totals/read.rs": [
        ("get_item", "totals", {CONSUMER, COMPACTOR, OPERATOR}),
        ("scan", "totals", {COMPACTOR, OPERATOR}),
        ("query", "totals", {OPERATOR}),  # of one group: the function reconciles all
        ("query", "ledger", {CONSUMER, COMPACTOR, OPERATOR}),
    ],
    "producer/src/relay/quarantine.rs": [("put_object", "bucket", {RELAY})],
    "producer/src/stream.rs": [("put_records", "stream", {RELAY, OPERATOR})],
    "producer/src/table.rs": [
        ("put_item", "source", {OPERATOR}),
        ("batch_write_item", "source", {OPERATOR}),
    ],
    "compactor/src/archive/kinesis.rs": [
        ("describe_stream_summary", "stream", {COMPACTOR, OPERATOR}),
        ("list_shards", "stream", {COMPACTOR, OPERATOR}),
        ("get_shard_iterator", "stream", {COMPACTOR, OPERATOR}),
        ("get_records", "stream", {COMPACTOR, OPERATOR}),
    ],
    "compactor/src/athena/asker.rs": [(operation, "workgroup", {OPERATOR}) for operation in (
        "get_query_execution", "get_query_results", "start_query_execution", "stop_query_execution")],
    "compactor/src/audit/again.rs": [("batch_get_item", "source", {OPERATOR})],
    "compactor/src/bucket/s3.rs": [
        ("get_object", "bucket", {COMPACTOR, OPERATOR}),
        ("get_object", "bucket", {COMPACTOR, OPERATOR}),  # a range
        ("put_object", "bucket", {COMPACTOR, OPERATOR}),
        ("put_object", "bucket", {COMPACTOR, OPERATOR}),  # if absent, or as it was read
        ("head_object", "bucket", {COMPACTOR, OPERATOR}),
        ("list_objects_v2", "bucket", {COMPACTOR, OPERATOR}),
        ("copy_object", "bucket", {COMPACTOR, OPERATOR}),
        ("delete_object", "bucket", {COMPACTOR, OPERATOR}),
    ],
    "compactor/src/catalog/glue.rs": [
        ("get_partition", "partitions", {COMPACTOR, OPERATOR}),
        ("get_table", "partitions", {COMPACTOR, OPERATOR}),
        ("create_partition", "partitions", {COMPACTOR, OPERATOR}),
        ("batch_update_partition", "partitions", {COMPACTOR, OPERATOR}),
    ],
    "compactor/src/context.rs": [("describe_stream_summary", "stream", {COMPACTOR, OPERATOR})],
    "compactor/src/doctor/look.rs": [(operation, "deployment", {OPERATOR}) for operation in (
        "describe_continuous_backups", "describe_kinesis_streaming_destination", "describe_stream_summary", "describe_table",
        "describe_table", "describe_time_to_live", "get_bucket_lifecycle_configuration", "get_bucket_policy",
        "get_bucket_versioning", "get_event_source_mapping", "get_public_access_block", "list_event_source_mappings", "list_objects_v2", "list_shards",
        "query")],
    "compactor/src/repair/apply.rs": [("update_item", "totals", {OPERATOR})],
    "compactor/src/replay/run.rs": [("describe_stream_summary", "stream", {OPERATOR})],
    "compactor/src/stack/find.rs": [
        ("describe_stacks", "stack", {OPERATOR}),
        ("get_function_configuration", "functions", {OPERATOR}),
    ],
    "compactor/src/table/scan.rs": [("scan", "source", {OPERATOR})],
}

# The right that a call needs where it has another name (Service Authorization Reference; S3 User Guide, "Required permissions").
RIGHTS = {
    "head_object": ["s3:GetObject"],
    "list_objects_v2": ["s3:ListBucket"],
    "copy_object": ["s3:GetObject", "s3:PutObject"],
}

# Glue asks for the right on the catalog and the database too (Glue Developer Guide, "Specifying Glue resource ARNs").
PLACES = {"partitions": ["catalog", "database/<Database>", "table/<Database>/events"]}

# What Lambda does in a role's name. The mapping polls, and puts what it gave up into the bucket (Lambda Developer Guide,
# "Process Amazon Kinesis Data Streams records with Lambda", "…DynamoDB records…": permissions; "Retain discarded batch records").
LOGS = {("logs:CreateLogStream", "logs"), ("logs:PutLogEvents", "logs")}
GIVES_UP = {("s3:PutObject", "bucket/aws/lambda/*"), ("s3:ListBucket", "bucket")}
BY_LAMBDA = {
    CONSUMER: LOGS | GIVES_UP | {
        (f"kinesis:{action}", "stream")
        for action in ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")
    },
    RELAY: LOGS | GIVES_UP | {
        (f"dynamodb:{action}", "table/scans/stream/*")
        for action in ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")
    },
    COMPACTOR: LOGS,
}

# Where in the bucket; and the file that has the name, which no other may have.
PREFIXES = {
    CONSUMER: {"s3:PutObject": {"quarantine"}},
    RELAY: {"s3:PutObject": {"quarantine"}},
    COMPACTOR: {
        "s3:GetObject": {"_catalog", "_log", "_state", "_staging", "events", "quarantine", "conflicts", "redriven", "plans"},
        "s3:PutObject": {"_catalog", "_log", "_state", "_staging", "events", "quarantine", "conflicts", "totals", "findings"},
        "s3:DeleteObject": {"_staging", "_state", "events"},
    },
}

OURS = {
    "<Stream.Arn>": "stream", "<TotalsTable.Arn>": "totals", "<LedgerTable.Arn>": "ledger", "<ProgressTable.Arn>": "progress",
    "<Bucket.Arn>": "bucket", "<ConsumerLogs.Arn>": "logs", "<CompactorLogs.Arn>": "logs", "<RelayLogs.Arn>": "logs",
}
DYNAMODB, GLUE = "arn:aws:dynamodb:us-east-1:123456789012:", "arn:aws:glue:us-east-1:123456789012:"


def listed(one_or_more):
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


def named(arn):
    """A resource by the names of the tables above."""
    for ours, name in OURS.items():
        if arn == ours or arn.startswith(f"{ours}/"):
            return name + arn.removeprefix(ours)
    return arn.removeprefix(DYNAMODB).removeprefix(GLUE)


def operations():
    """Each operation of the SDKs that the crates depend on, as the SDK for Rust calls it, with its right."""
    manifests = "".join((ROOT / crate / "Cargo.toml").read_text() for crate in CRATES)
    services = set(re.findall(r"(?m)^aws-sdk-(\w+)", manifests))
    session = botocore.session.get_session()
    found = {}
    for service in services:
        model = session.get_service_model(service)
        for operation in model.operation_names:
            found.setdefault(xform_name(operation), []).append(f"{service}:{operation}")
    return found


def code(path):
    """A file without its tests and comments."""
    text = path.read_text().split("\n#[cfg(test)]\nmod tests {")[0]
    return re.sub(r"(?m)//.*$", "", text)


def calls():
    known = operations()
    found = {}
    for crate in CRATES:
        for path in sorted((ROOT / crate / "src").rglob("*.rs")):
            if path.stem.endswith("tests") or path.stem.startswith("testing"):
                continue
            here = [name for name in re.findall(r"\.([a-z0-9_]+)\(\)", code(path)) if name in known]
            if here:
                found[str(path.relative_to(ROOT))] = here
    return found


class Calls(unittest.TestCase):
    maxDiff = None

    def test_every_call_of_the_code_stands_in_the_table(self):
        found = {path: sorted(here) for path, here in calls().items()}
        expected = {path: sorted(operation for operation, _, _ in here) for path, here in CALLS.items()}
        self.assertEqual(found, expected)

    def test_the_names_of_objects_are_those_of_the_code(self):
        text = "".join(code(path) for crate in CRATES for path in (ROOT / crate / "src").rglob("*.rs"))
        for prefixes in PREFIXES.values():
            for prefix in set().union(*prefixes.values()):
                self.assertIn(f'"{prefix}/', text)


class Roles(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.template = Template(Capture="relay")

    def statements(self, logical):
        role = self.template.properties(logical)
        self.assertNotIn("ManagedPolicyArns", role)
        (policy,) = role["Policies"]
        return policy["PolicyDocument"]["Statement"]

    def rights(self, logical):
        rights = [(action, named(resource)) for statement in self.statements(logical)
                  for action in listed(statement["Action"]) for resource in listed(statement["Resource"])]
        self.assertEqual(len(rights), len(set(rights)), "a right is given twice")
        return set(rights)

    def needed(self, role):
        known = operations()
        needed = set(BY_LAMBDA[role])
        for here in CALLS.values():
            for operation, resource, who in here:
                if role not in who:
                    continue
                for right in RIGHTS.get(operation) or known[operation]:
                    if resource == "bucket" and right != "s3:ListBucket":
                        needed |= {(right, f"bucket/{prefix}/*") for prefix in PREFIXES[role][right]}
                    else:
                        needed |= {(right, place) for place in PLACES.get(resource, [resource])}
        return needed

    def test_each_role_is_given_what_its_code_needs_and_nothing_else(self):
        for logical, role in (("ConsumerRole", CONSUMER), ("RelayRole", RELAY), ("CompactorRole", COMPACTOR)):
            with self.subTest(logical):
                self.assertEqual(sorted(self.rights(logical)), sorted(self.needed(role)))

    def test_the_scheduler_may_invoke_the_compactor(self):
        (statement,) = self.statements("SchedulerRole")
        self.assertEqual((statement["Action"], statement["Resource"]), ("lambda:InvokeFunction", "<Compactor.Arn>"))

    def test_no_action_and_no_resource_is_a_wildcard(self):
        for logical in self.template.of_type("AWS::IAM::Role"):
            for statement in self.statements(logical):
                with self.subTest(logical, sid=statement["Sid"]):
                    self.assertEqual(statement["Effect"], "Allow")
                    self.assertEqual(set(statement), {"Sid", "Effect", "Action", "Resource"})
                    for action in listed(statement["Action"]):
                        self.assertNotIn("*", action)
                    for resource in listed(statement["Resource"]):
                        # Of what is in a bucket, or the time in a stream's name: no ARN has these beforehand.
                        self.assertRegex(resource, r"^(<\w+\.Arn>(/[\w/]+/\*)?|arn:aws:\w+:us-east-1:123456789012:[^*]+(/stream/\*)?)$")

    def test_nobody_may_delete_from_the_log_or_from_tables(self):
        for logical in self.template.of_type("AWS::IAM::Role"):
            for action, resource in self.rights(logical) if logical != "SchedulerRole" else ():
                if "Delete" in action:
                    places = ("bucket/_staging/*", "bucket/_state/*", "bucket/events/*")
                    self.assertEqual((action, resource in places), ("s3:DeleteObject", True))

    def test_each_function_has_a_role_of_its_own_that_only_its_service_takes(self):
        functions = self.template.of_type("AWS::Serverless::Function")
        roles = {name: function["Properties"]["Role"] for name, function in functions.items()}
        self.assertEqual(roles, {name: f"<{name}Role.Arn>" for name in functions})
        for name, function in functions.items():
            self.assertEqual(set(function["Properties"]) & {"Policies", "Events", "ManagedPolicyArns"}, set(), "SAM would add rights")
            self.assertEqual(self.trusted(f"{name}Role"), ("lambda.amazonaws.com", None))
        condition = {"StringEquals": {"aws:SourceAccount": "123456789012"}}
        self.assertEqual(self.trusted("SchedulerRole"), ("scheduler.amazonaws.com", condition))
        self.assertEqual(set(self.template.of_type("AWS::IAM::Role")), {f"{name}Role" for name in functions} | {"SchedulerRole"})

    def trusted(self, logical):
        (statement,) = self.template.properties(logical)["AssumeRolePolicyDocument"]["Statement"]
        self.assertEqual((statement["Effect"], statement["Action"]), ("Allow", "sts:AssumeRole"))
        return statement["Principal"]["Service"], statement.get("Condition")


if __name__ == "__main__":
    unittest.main()
