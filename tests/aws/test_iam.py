"""Each role of infra/aws/template.yaml may do what its function's code does, and nothing else. So may those who run `recount`, by
infra/aws/operator.yaml, whose policies are each one more than the one before.

    python -m unittest tests/aws/test_iam.py

CALLS says of each call that our code makes to AWS what it is on, and who makes it. The test finds the calls in the code (every
operation of every SDK that the crates depend on, by botocore's models), so that a new one fails here until it stands in the
table; and it holds the roles against the table, so that a right that nobody needs fails too.
"""

import json
import pathlib
import re
import sys
import unittest

import botocore.session
from botocore import xform_name

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from template import OPERATOR, ROOT, Template, raw  # noqa: E402

CRATES = ("schemas", "consumer", "producer", "compactor")

# The functions; then the operator's policies, the first that a call needs; PRODUCER is who runs `producer`, with rights of their own.
CONSUMER, COMPACTOR, RELAY, PRODUCER = "consumer", "compactor", "relay", "producer"
READS, CHECKS, CHANGES = "Reads", "Checks", "Changes"

# By file: the operation, what it is on, who calls it there. As often as it stands in the file.
CALLS = {
    "consumer/src/handler/incarnation.rs": [("describe_stream_summary", "stream", {CONSUMER})],
    "consumer/src/progress.rs": [
        ("update_item", "progress", {CONSUMER, CHANGES}),
        ("query", "progress", {COMPACTOR, READS}),
    ],
    "consumer/src/quarantine.rs": [("put_object", "bucket", {CONSUMER})],
    "consumer/src/tables.rs": [  # local mode, and sets
        ("describe_table", "tables", {READS}),
        ("describe_table", "tables", {READS}),
        ("create_table", "tables", {CHANGES}),
        ("describe_time_to_live", "tables", {READS}),
        ("update_time_to_live", "tables", {CHANGES}),
    ],
    "consumer/src/totals/definition.rs": [
        ("put_item", "totals", {CONSUMER, CHANGES}),
        ("get_item", "totals", {CONSUMER, COMPACTOR, READS}),
    ],
    "consumer/src/totals/mod.rs": [
        ("put_item", "ledger", {CONSUMER, CHANGES}),  # a page
        ("put_item", "ledger", {CONSUMER, CHANGES}),  # the too-old list
        ("update_item", "totals", {CONSUMER, CHANGES}),
    ],
    "consumer/src/totals/read.rs": [
        ("get_item", "totals", {CONSUMER, COMPACTOR, READS}),
        ("scan", "totals", {COMPACTOR, READS}),
        ("query", "totals", {READS}),  # of one group: the function reconciles all
        ("query", "ledger", {CONSUMER, COMPACTOR, READS}),
    ],
    "producer/src/relay/quarantine.rs": [("put_object", "bucket", {RELAY})],
    "producer/src/stream.rs": [("put_records", "stream", {RELAY, CHANGES})],
    "producer/src/table.rs": [
        ("put_item", "source", {PRODUCER}),
        ("batch_write_item", "source", {PRODUCER}),
    ],
    "compactor/src/archive/kinesis.rs": [
        ("describe_stream_summary", "stream", {COMPACTOR, READS}),
        ("list_shards", "stream", {COMPACTOR, READS}),
        ("get_shard_iterator", "stream", {COMPACTOR, CHECKS}),
        ("get_records", "stream", {COMPACTOR, CHECKS}),
    ],
    "compactor/src/athena/asker.rs": [(operation, "workgroup", {CHECKS}) for operation in (
        "get_query_execution", "get_query_results", "start_query_execution", "stop_query_execution")],
    "compactor/src/audit/again.rs": [("batch_get_item", "source", {CHECKS})],
    "compactor/src/bucket/s3.rs": [
        ("get_object", "bucket", {COMPACTOR, READS, CHECKS, CHANGES}),
        ("get_object", "bucket", {COMPACTOR, READS, CHECKS, CHANGES}),  # a range
        ("put_object", "bucket", {COMPACTOR, CHECKS, CHANGES}),
        ("put_object", "bucket", {COMPACTOR, CHECKS, CHANGES}),  # if absent, or as it was read
        ("head_object", "bucket", {COMPACTOR, READS}),
        ("list_objects_v2", "bucket", {COMPACTOR, READS}),
        ("copy_object", "bucket", {COMPACTOR, CHECKS}),
        ("delete_object", "bucket", {COMPACTOR, CHECKS, CHANGES}),
    ],
    "compactor/src/catalog/glue.rs": [
        ("get_partition", "partitions", {COMPACTOR, READS}),
        ("get_table", "partitions", {COMPACTOR, CHECKS}),
        ("create_partition", "partitions", {COMPACTOR, CHECKS}),
        ("batch_update_partition", "partitions", {COMPACTOR, CHECKS}),
    ],
    "compactor/src/context.rs": [("describe_stream_summary", "stream", {COMPACTOR, READS})],
    "compactor/src/doctor/look.rs": [(operation, "deployment", {READS}) for operation in (
        "describe_continuous_backups", "describe_kinesis_streaming_destination", "describe_stream_summary", "describe_table",
        "describe_table", "describe_time_to_live", "get_bucket_lifecycle_configuration", "get_bucket_policy",
        "get_bucket_versioning", "get_event_source_mapping", "get_public_access_block", "list_event_source_mappings", "list_objects_v2", "list_shards",
        "query")],
    "compactor/src/repair/apply.rs": [("update_item", "totals", {CHANGES})],
    "compactor/src/replay/run.rs": [("describe_stream_summary", "target", {CHANGES})],
    "compactor/src/stack/find.rs": [
        ("describe_stacks", "stack", {READS}),
        ("get_function_configuration", "functions", {READS}),
    ],
    "compactor/src/table/scan.rs": [("scan", "source", {CHECKS})],
}

# The right that a call needs where it has another name (Service Authorization Reference; S3 User Guide, "Required permissions").
RIGHTS = {
    "create_table": ["dynamodb:CreateTable"],  # Glue has one, too
    "get_bucket_lifecycle_configuration": ["s3:GetLifecycleConfiguration"],
    "get_public_access_block": ["s3:GetBucketPublicAccessBlock"],
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

# The same of the operator's policies, and of sets, which have all but the catalog and the switches under a name of their own.
OF_ALL_HOMES = {
    CHECKS: {
        "s3:PutObject": {"_log", "_staging", "_state", "backfills", "conflicts", "events", "findings", "plans", "quarantine", "totals"},
        "s3:DeleteObject": {"_staging", "_state"},
    },
    CHANGES: {
        "s3:PutObject": {"redriven", "replays"},
        "s3:DeleteObject": {"backfills/parts", "events"},
    },
}
OF_THE_BASE = {
    READS: {"s3:GetObject": {"_catalog", "_log", "_state", "_switch", "backfills", "conflicts", "events", "plans", "quarantine", "sets"}},
    CHECKS: {"s3:GetObject": {"_staging"}, "s3:PutObject": {"_catalog"}},
    CHANGES: {"s3:GetObject": {"replays"}, "s3:PutObject": {"_switch"}},
}
OF_A_SET = {CHANGES: {"s3:PutObject": {"loaded.json", "recount.toml"}}}

# What the operator's calls are on. What only a set needs done is done to no table of the base.
TOTALS, LEDGER, PROGRESS = (["table/totals", "table/totals-*"], ["table/ledger", "table/ledger-*"], ["table/progress", "table/progress-*"])
TABLES = TOTALS + LEDGER + PROGRESS
OPERATES_ON = {
    "totals": TOTALS, "ledger": LEDGER, "progress": PROGRESS, "tables": TABLES, "source": ["table/source"], "stream": ["stream/stream"],
    "target": ["stream/target"], "workgroup": ["workgroup/workgroup"], "stack": ["stack/recount/*"],
    "functions": ["function:consumer", "function:compactor"], "partitions": ["catalog", "database/database", "table/database/events"],
    ("create_table", "tables"): ["table/totals-*", "table/ledger-*", "table/progress-*"],
    ("update_time_to_live", "tables"): ["table/ledger-*"],
    ("put_item", "totals"): ["table/totals-*"],  # the claim
    ("update_item", "progress"): ["table/progress-*"],
    ("put_records", "stream"): ["stream/target"],
    **{(operation, "deployment"): ["table/source", *TABLES] for operation in (
        "describe_continuous_backups", "describe_table", "describe_time_to_live")},
    **{(operation, "deployment"): ["bucket"] for operation in (
        "get_bucket_lifecycle_configuration", "get_bucket_policy", "get_bucket_versioning", "get_public_access_block", "list_objects_v2")},
    ("describe_kinesis_streaming_destination", "deployment"): ["table/source"],
    ("describe_stream_summary", "deployment"): ["stream/stream"], ("list_shards", "deployment"): ["stream/stream"],
    ("query", "deployment"): LEDGER + PROGRESS,
    ("get_event_source_mapping", "deployment"): ["event-source-mapping:consumer", "event-source-mapping:relay"],
    ("list_event_source_mappings", "deployment"): ["*"],
}

# What Athena does in the name of who asks (Athena User Guide, "Control access to Amazon S3 from Athena", "Configure access to databases
# and tables in the AWS Glue Data Catalog").
BY_ATHENA = {("s3:GetBucketLocation", "bucket"), ("s3:ListBucketMultipartUploads", "bucket")} | {
    (f"s3:{action}", "bucket/athena/*") for action in ("AbortMultipartUpload", "GetObject", "ListMultipartUploadParts", "PutObject")
} | {(f"glue:{action}", place) for action in ("GetDatabase", "GetPartitions") for place in OPERATES_ON["partitions"]}

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
        for prefixes in [*PREFIXES.values(), *OF_ALL_HOMES.values(), *OF_THE_BASE.values()]:
            for prefix in set().union(*prefixes.values()):
                self.assertIn(f'"{prefix}/', text)
        for name in OF_A_SET[CHANGES]["s3:PutObject"]:
            self.assertIn(f'"{name}"', text)


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


class Operator(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        names = [name for name in raw(OPERATOR)["Parameters"] if name.endswith(("Name", "MappingId")) and name != "ReplayStreamName"]
        cls.outputs = set(names)
        short = {name: re.sub("TableName|FunctionName|MappingId|Name$", "", name).lower() for name in names}
        short.update(GlueDatabaseName="database", AthenaWorkgroupName="workgroup", SourceTableName="source")
        cls.template = Template(OPERATOR, Stack="recount", ReplayStreamName="target", **short)
        cls.bare = Template(OPERATOR, Stack="recount", **{**short, "RelayMappingId": ""})

    @staticmethod
    def rights(template, policy):
        document = template.properties(policy)["PolicyDocument"]
        def named(arn):
            return re.sub(r"^arn:aws:\w+:(us-east-1)?:(123456789012)?:", "", arn)
        return [(action, named(resource)) for statement in document["Statement"]
                for action in listed(statement["Action"]) for resource in listed(statement["Resource"])]

    @staticmethod
    def needed(policy):
        known = operations()
        needed = {(right, f"bucket/{home}{prefix}/*") for right, prefixes in OF_ALL_HOMES.get(policy, {}).items()
                  for prefix in prefixes for home in ("", "sets/*/")}
        needed |= {(right, f"bucket/{prefix}/*") for right, prefixes in OF_THE_BASE[policy].items() for prefix in prefixes}
        needed |= {(right, f"bucket/sets/*/{name}") for right, names in OF_A_SET.get(policy, {}).items() for name in names}
        if policy == CHECKS:
            needed |= BY_ATHENA
        for here in CALLS.values():
            for operation, resource, who in here:
                if policy not in who:
                    continue
                for right in RIGHTS.get(operation) or known[operation]:
                    if resource != "bucket":
                        places = OPERATES_ON.get((operation, resource)) or OPERATES_ON[resource]
                        needed |= {(right, place) for place in places}
                    elif right == "s3:ListBucket":
                        needed.add((right, "bucket"))
                    else:
                        assert any(right in of.get(policy, {}) for of in (OF_ALL_HOMES, OF_THE_BASE)), (operation, policy)
        return needed

    def test_each_policy_gives_what_the_calls_need_and_what_none_before_it_gives(self):
        before = set()
        for policy in (READS, CHECKS, CHANGES):
            with self.subTest(policy):
                rights = self.rights(self.template, policy)
                self.assertEqual(len(rights), len(set(rights)), "a right is given twice")
                self.assertEqual(sorted(rights), sorted(self.needed(policy) - before))
                before |= set(rights)

    def test_who_reads_changes_nothing(self):
        for action, _ in self.rights(self.template, READS):
            self.assertRegex(action, r"^\w+:(Describe|Get|List|Query|Scan)\w*$")

    def test_nobody_deletes_items_entries_of_the_log_or_whole_things(self):
        for policy in (READS, CHECKS, CHANGES):
            for action, resource in self.rights(self.template, policy):
                if "Delete" in action:
                    self.assertEqual(action, "s3:DeleteObject")
                    self.assertRegex(resource, r"/(_staging|_state|events|backfills/parts)/\*$")

    def test_no_action_is_a_wildcard_and_no_resource_that_has_a_name(self):
        for policy in (READS, CHECKS, CHANGES):
            for action, resource in self.rights(self.template, policy):
                self.assertNotIn("*", action)
                # What is in a bucket, a set's name, the ID in a stack's: no ARN has these beforehand. Listing mappings has no resource.
                plain = re.sub(r"/\*$|-\*$|sets/\*/", "", resource)
                self.assertNotIn("*", plain if action != "lambda:ListEventSourceMappings" else "")

    def test_what_is_not_there_needs_no_rights(self):
        gone = set()
        for policy in (READS, CHECKS, CHANGES):
            gone |= set(self.rights(self.template, policy)) - set(self.rights(self.bare, policy))
        self.assertEqual(gone, {
            ("lambda:GetEventSourceMapping", "event-source-mapping:relay"), ("lambda:ListEventSourceMappings", "*"),
            ("kinesis:DescribeStreamSummary", "stream/target"), ("kinesis:PutRecords", "stream/target")})

    def test_its_parameters_are_outputs_of_the_stack(self):
        self.assertLessEqual(self.outputs, set(Template(Capture="relay").outputs))

    def test_each_fits_a_managed_policy(self):
        # 6,144 characters without white space (IAM User Guide, "IAM and AWS STS quotas"); CloudFormation's names are at most this long.
        long = {name: "x" * 63 if name == "BucketName" else "x" * 64 for name in self.outputs | {"Stack", "ReplayStreamName"}}
        template = Template(OPERATOR, **long)
        for policy in (READS, CHECKS, CHANGES):
            text = json.dumps(template.properties(policy)["PolicyDocument"], separators=(",", ":"))
            self.assertLessEqual(len(text), 6144, policy)


if __name__ == "__main__":
    unittest.main()
