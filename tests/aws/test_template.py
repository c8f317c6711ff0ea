"""Every setting of infra/aws/template.yaml that the pipeline relies on, one by one.

    python -m unittest tests/aws/test_template.py

A setting is not what it should be: find out here why it should. Wanted to change it: change it here too, with the reason.
"""

import base64
import copy
import json
import pathlib
import re
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from template import ROOT, Template  # noqa: E402

DEFINITION = ROOT / "infra/local/recount.toml"
OURS = ("TotalsTable", "LedgerTable", "ProgressTable")
EXISTING = {"CreateSourceTable": "no", "SourceTableName": "orders"}
DAY = 86_400


class TemplateTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.kinesis = Template()
        cls.relay = Template(Capture="relay")

    def both(self):
        return (("kinesis", self.kinesis), ("relay", self.relay))

    def kept(self, table, policy="Retain"):
        self.assertEqual((table["DeletionPolicy"], table["UpdateReplacePolicy"]), (policy, "Retain"))
        properties = table["Properties"]
        self.assertEqual(properties["BillingMode"], "PAY_PER_REQUEST")
        self.assertEqual(properties["PointInTimeRecoverySpecification"], {"PointInTimeRecoveryEnabled": True})
        self.assertEqual(properties["SSESpecification"], {"SSEEnabled": True})


class Parameters(TemplateTest):
    def test_each_says_what_it_is_for_and_has_a_default_that_can_be_deployed(self):
        for name, parameter in self.kinesis.raw["Parameters"].items():
            with self.subTest(name):
                self.assertTrue(parameter["Description"].endswith((".", "later.")), parameter["Description"])
                self.assertIn("Default", parameter)
                if "AllowedPattern" in parameter:
                    self.assertRegex(str(parameter["Default"]), f"^(?:{parameter['AllowedPattern']})$")
                if "AllowedValues" in parameter:
                    self.assertIn(parameter["Default"], parameter["AllowedValues"])
                self.assertLessEqual(parameter.get("MinValue", 0), parameter["Default"] if parameter["Type"] == "Number" else 0)

    def test_each_stands_in_a_group_of_the_console_once(self):
        groups = self.kinesis.raw["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [name for group in groups for name in group["Parameters"]]
        self.assertEqual(sorted(grouped), sorted(self.kinesis.raw["Parameters"]))

    def test_the_defaults_are_the_safe_ones(self):
        expected = {
            "Capture": "kinesis", "CreateSourceTable": "yes", "StreamMode": "ON_DEMAND", "BatchSize": 1000, "BatchWindowSeconds": 1,
            "RetryAttempts": 50, "ConsumerEnabled": "true", "SchedulesEnabled": "ENABLED", "ArchiveSchedule": "rate(5 minutes)",
            "ScanLimitBytes": 100 << 30, "Architecture": "x86_64", "StagingVersionDays": 0,
        }
        self.assertEqual({name: self.kinesis.parameters[name] for name in expected}, expected)

    def test_the_definition_is_by_default_that_of_the_repository(self):
        self.assertEqual(base64.b64decode(self.kinesis.parameters["Definition"]), DEFINITION.read_bytes())

    def test_architectures_and_captures_to_choose_from(self):
        parameters = self.kinesis.raw["Parameters"]
        self.assertEqual(parameters["Architecture"]["AllowedValues"], ["x86_64", "arm64"])
        self.assertEqual(parameters["Capture"]["AllowedValues"], ["kinesis", "relay"])
        self.assertEqual(parameters["StreamMode"]["AllowedValues"], ["ON_DEMAND", "PROVISIONED"])
        self.assertEqual(parameters["BatchWindowSeconds"]["MinValue"], 1)
        self.assertGreaterEqual(parameters["RetryAttempts"]["MinValue"], 1, "-1 would be for ever")

    def test_a_relay_needs_the_stream_of_a_table_that_is_there_already(self):
        (rule,) = self.kinesis.raw["Rules"].values()
        self.assertEqual(rule["RuleCondition"], {"Fn::And": [
            {"Fn::Equals": [{"Ref": "Capture"}, "relay"]},
            {"Fn::Equals": [{"Ref": "CreateSourceTable"}, "no"]},
        ]})
        no_stream = self.kinesis.parameters["SourceTableStreamArn"]
        (assertion,) = rule["Assertions"]
        self.assertEqual(assertion["Assert"], {"Fn::Not": [{"Fn::Equals": [{"Ref": "SourceTableStreamArn"}, no_stream]}]})


class Source(TemplateTest):
    def test_capture_by_kinesis_says_microseconds(self):
        table = self.kinesis.properties("SourceTable")
        self.assertEqual(table["KinesisStreamSpecification"], {
            "StreamArn": "<Stream.Arn>",
            "ApproximateCreationDateTimePrecision": "MICROSECOND",
        })
        self.assertNotIn("StreamSpecification", table)

    def test_capture_by_the_relay_has_both_images_and_never_both_captures(self):
        table = self.relay.properties("SourceTable")
        self.assertEqual(table["StreamSpecification"], {"StreamViewType": "NEW_AND_OLD_IMAGES"})
        self.assertNotIn("KinesisStreamSpecification", table)

    def test_no_relay_without_capture_by_relay(self):
        relays = [name for name in self.kinesis.resources if "Relay" in name]
        self.assertEqual(relays, [])
        self.assertNotIn("RelayFunctionName", self.kinesis.outputs)

    def test_a_made_table_is_kept_backed_up_and_encrypted(self):
        for how, template in self.both():
            with self.subTest(how):
                # It has a name, and would be in the way of the attempt after one that failed.
                self.kept(template.resources["SourceTable"], "RetainExceptOnCreate")
                table = template.properties("SourceTable")
                self.assertEqual(table["TableName"], "scans")
                self.assertEqual(table["AttributeDefinitions"], [{"AttributeName": "scan_id", "AttributeType": "S"}])
                self.assertEqual(table["KeySchema"], [{"AttributeName": "scan_id", "KeyType": "HASH"}])

    def test_an_existing_table_is_left_alone_and_its_owner_is_told_what_to_run(self):
        template = Template(**EXISTING)
        self.assertNotIn("SourceTable", template.resources)
        command = template.outputs["EnableCapture"]["Value"]
        for part in ("enable-kinesis-streaming-destination", "--table-name orders", "--stream-arn <Stream.Arn>",
                     "ApproximateCreationDateTimePrecision=MICROSECOND"):
            self.assertIn(part, command)
        self.assertNotIn("EnableCapture", self.kinesis.outputs)

    def test_the_relay_reads_the_stream_of_an_existing_table(self):
        arn = "arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/2026-11-22T00:00:00.000"
        template = Template(**EXISTING, Capture="relay", SourceTableStreamArn=arn)
        self.assertEqual(template.properties("RelayMapping")["EventSourceArn"], arn)
        self.assertEqual(self.relay.properties("RelayMapping")["EventSourceArn"], "<SourceTable.StreamArn>")
        self.assertNotIn("EnableCapture", template.outputs)

    def test_the_stream_keeps_seven_days_and_is_kept_itself(self):
        stream = self.kinesis.resources["Stream"]
        # Empty it costs as much, so an attempt that failed leaves none.
        self.assertEqual((stream["DeletionPolicy"], stream["UpdateReplacePolicy"]), ("RetainExceptOnCreate", "Retain"))
        self.assertEqual(stream["Properties"], {
            "RetentionPeriodHours": 7 * 24,
            "StreamModeDetails": {"StreamMode": "ON_DEMAND"},
            "StreamEncryption": {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"},
        })
        shards = Template(StreamMode="PROVISIONED", ShardCount=7).properties("Stream")
        self.assertEqual((shards["StreamModeDetails"], shards["ShardCount"]), ({"StreamMode": "PROVISIONED"}, 7))


class Tables(TemplateTest):
    def test_totals_ledger_and_progress_are_kept_backed_up_and_encrypted(self):
        for name in OURS:
            with self.subTest(name):
                self.kept(self.kinesis.resources[name])

    def test_keys(self):
        keys = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
        for name, sort in zip(OURS, "SBS"):
            with self.subTest(name):
                table = self.kinesis.properties(name)
                self.assertEqual(table["KeySchema"], keys)
                types = {one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]}
                self.assertEqual(types, {"pk": "S", "sk": sort})

    def test_only_the_ledger_expires(self):
        expiring = {name: self.kinesis.properties(name).get("TimeToLiveSpecification") for name in OURS}
        self.assertEqual(expiring, {
            "TotalsTable": None, "LedgerTable": {"AttributeName": "expires", "Enabled": True}, "ProgressTable": None})


class Bucket(TemplateTest):
    def setUp(self):
        self.bucket = self.kinesis.properties("Bucket")
        self.rules = self.bucket["LifecycleConfiguration"]["Rules"]

    def test_it_is_kept_private_versioned_and_encrypted(self):
        bucket = self.kinesis.resources["Bucket"]
        self.assertEqual((bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]), ("Retain", "Retain"))
        block = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
        self.assertEqual(self.bucket["PublicAccessBlockConfiguration"], dict.fromkeys(block, True))
        self.assertEqual(self.bucket["OwnershipControls"], {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})
        self.assertEqual(self.bucket["VersioningConfiguration"], {"Status": "Enabled"})
        (encryption,) = self.bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        self.assertEqual(encryption, {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}})

    def test_incomplete_uploads_are_aborted_after_seven_days(self):
        (rule,) = [rule for rule in self.rules if "AbortIncompleteMultipartUpload" in rule]
        self.assertEqual(rule["AbortIncompleteMultipartUpload"], {"DaysAfterInitiation": 7})
        self.assertEqual(set(rule) - {"AbortIncompleteMultipartUpload"}, {"Id", "Status"}, "of the whole bucket, and nothing else")

    def test_noncurrent_versions_expire_after_thirty_days(self):
        expiring = {rule["Prefix"] for rule in self.rules if rule.get("NoncurrentVersionExpiration") == {"NoncurrentDays": 30}}
        self.assertEqual(expiring, {
            "events/", "_state/", "quarantine/", "conflicts/", "redriven/", "plans/", "backfills/", "replays/", "totals/",
            "findings/", "aws/lambda/"})

    def test_no_rule_touches_the_log_or_the_staging(self):
        for rule in self.rules:
            with self.subTest(rule["Id"]):
                self.assertEqual(rule["Status"], "Enabled")
                if "AbortIncompleteMultipartUpload" in rule:
                    continue  # it concerns uploads, no object
                prefix = rule["Prefix"]
                for kept in ("_log/", "_staging/", "sets/x/_log/", "sets/x/_staging/"):
                    self.assertFalse(kept.startswith(prefix) or prefix.startswith(kept), f"{prefix} covers {kept}")

    def test_only_query_results_expire_by_age(self):
        aging = {rule["Prefix"]: rule["ExpirationInDays"] for rule in self.rules if "ExpirationInDays" in rule}
        self.assertEqual(aging, {"athena/": 7})
        others = {key for rule in self.rules for key in rule} - {
            "Id", "Status", "Prefix", "ExpirationInDays", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"}
        self.assertEqual(others, set(), "a transition or a date would be another way for objects to go")

    def test_versions_of_uploads_expire_only_where_asked(self):
        rules = Template(StagingVersionDays=30).properties("Bucket")["LifecycleConfiguration"]["Rules"]
        self.assertEqual(rules[:-1], self.rules)
        self.assertEqual((rules[-1]["Prefix"], rules[-1]["NoncurrentVersionExpiration"]), ("_staging/", {"NoncurrentDays": 30}))
        self.assertNotIn("ExpirationInDays", rules[-1])

    def test_the_policy_is_kept_with_the_bucket(self):
        policy = self.kinesis.resources["BucketPolicy"]
        self.assertEqual((policy["DeletionPolicy"], policy["UpdateReplacePolicy"]), ("Retain", "Retain"))

    def statements(self):
        policy = self.kinesis.properties("BucketPolicy")
        self.assertEqual(policy["Bucket"], "<Bucket>")
        return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}

    def test_the_policy_takes_tls_only(self):
        self.assertEqual(self.statements()["OnlyTls"], {
            "Sid": "OnlyTls", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
            "Resource": ["<Bucket.Arn>", "<Bucket.Arn>/*"], "Condition": {"Bool": {"aws:SecureTransport": "false"}}})

    def test_the_policy_lets_nobody_delete_or_overwrite_the_log(self):
        log = ["<Bucket.Arn>/_log/*", "<Bucket.Arn>/sets/*/_log/*"]
        statements = self.statements()
        self.assertEqual(statements["TheLogIsNeverDeleted"], {
            "Sid": "TheLogIsNeverDeleted", "Effect": "Deny", "Principal": "*",
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"], "Resource": log})
        self.assertEqual(statements["TheLogIsNeverOverwritten"], {
            "Sid": "TheLogIsNeverOverwritten", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": log,
            "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}})
        self.assertEqual(len(statements), 3)
        self.assertEqual({one["Effect"] for one in statements.values()}, {"Deny"}, "the policy gives nothing")


class Functions(TemplateTest):
    FUNCTIONS = {"Consumer": "consumer", "Compactor": "compactor", "Relay": "relay"}
    NAMES = {
        "RECOUNT_DEFINITION_TOML": f"base64:{base64.b64encode(DEFINITION.read_bytes()).decode()}",
        "RECOUNT_TOTALS_TABLE": "<TotalsTable>",
        "RECOUNT_LEDGER_TABLE": "<LedgerTable>",
        "RECOUNT_PROGRESS_TABLE": "<ProgressTable>",
        "RECOUNT_STREAM": "<Stream>",
        "RECOUNT_BUCKET": "<Bucket>",
    }

    def test_they_are_built_by_cargo_lambda_from_the_workspace(self):
        functions = self.relay.of_type("AWS::Serverless::Function")
        self.assertEqual(set(functions), set(self.FUNCTIONS))
        for name, binary in self.FUNCTIONS.items():
            with self.subTest(name):
                self.assertEqual(functions[name]["Metadata"], {
                    "BuildMethod": "rust-cargolambda", "BuildProperties": {"Binary": binary}})
                # The root: one set of features, so that what they depend on is built once.
                self.assertEqual((ROOT / "infra/aws" / functions[name]["Properties"]["CodeUri"]).resolve(), ROOT)
                sources = [path for crate in ("consumer", "producer", "compactor") for path in (
                    ROOT / crate / "Cargo.toml", ROOT / crate / f"src/bin/{binary}.rs") if path.exists()]
                self.assertTrue(any(path.suffix == ".rs" or f'name = "{binary}"' in path.read_text() for path in sources))

    def test_runtime_and_architecture(self):
        for architecture in ("x86_64", "arm64"):
            everywhere = Template(Architecture=architecture).globals["Function"]
            self.assertEqual((everywhere["Runtime"], everywhere["Handler"]), ("provided.al2023", "bootstrap"))
            self.assertEqual(everywhere["Architectures"], [architecture])

    def test_the_shipped_profile_unwinds(self):
        (release,) = re.findall(r"(?ms)^\[profile\.release\]\n(.*?)(?=^\[|\Z)", (ROOT / "Cargo.toml").read_text())
        self.assertIn('panic = "unwind"', release, "cargo lambda makes it abort where nothing is said")

    def test_the_environment_is_what_the_code_reads(self):
        of = {name: self.relay.properties(name)["Environment"]["Variables"] for name in self.FUNCTIONS}
        self.assertEqual(of["Consumer"], self.NAMES)
        self.assertEqual(of["Compactor"], {
            **self.NAMES, "RECOUNT_GLUE_DATABASE": "<Database>", "RECOUNT_ATHENA_WORKGROUP": "<Workgroup>"})
        self.assertEqual(of["Relay"], {"RECOUNT_STREAM": "<Stream>", "RECOUNT_BUCKET": "<Bucket>"})
        code = "".join(path.read_text() for crate in ("schemas", "consumer", "compactor", "producer")
                       for path in (ROOT / crate / "src").rglob("*.rs"))
        for variable in {variable for variables in of.values() for variable in variables}:
            self.assertIn(f'"{variable}"', code)

    def test_the_environment_fits(self):
        for name in self.FUNCTIONS:
            size = sum(len(key) + len(str(value)) for key, value in self.relay.properties(name)["Environment"]["Variables"].items())
            self.assertLess(size, 4_096 - 500, "Lambda takes 4 KB; real names are longer than those here")

    def test_each_has_its_own_log_kept_for_a_bounded_time(self):
        groups = self.relay.of_type("AWS::Logs::LogGroup")
        names = {name: group["Properties"]["LogGroupName"] for name, group in groups.items()}
        self.assertEqual(names, {f"{name}Logs": f"/aws/lambda/recount/{name.lower()}" for name in self.FUNCTIONS})
        for name in self.FUNCTIONS:
            with self.subTest(name):
                self.assertEqual(self.relay.properties(name)["LoggingConfig"], {"LogGroup": f"<{name}Logs>"})
                self.assertEqual(groups[f"{name}Logs"]["Properties"]["RetentionInDays"], 30)
        logging = self.relay.globals["Function"]["LoggingConfig"]
        self.assertEqual(logging["LogFormat"], "JSON")

    def test_times_and_sizes(self):
        compactor = self.kinesis.properties("Compactor")
        self.assertEqual(compactor["Timeout"], 900)
        self.assertGreaterEqual(compactor["MemorySize"], 2048, "a compaction wants 2 GiB")
        self.assertEqual(compactor["EphemeralStorage"], {"Size": 4096})
        self.assertEqual(compactor["EventInvokeConfig"], {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 900})
        self.assertNotIn("ReservedConcurrentExecutions", compactor, "runs may overlap")
        consumer, relay = self.kinesis.properties("Consumer"), self.relay.properties("Relay")
        self.assertEqual((consumer["Timeout"], consumer["MemorySize"]), (120, 512))
        self.assertEqual((relay["Timeout"], relay["MemorySize"]), (60, 256))


class Mappings(TemplateTest):
    def test_the_consumers_mapping(self):
        self.assertEqual(self.kinesis.properties("ConsumerMapping"), {
            "FunctionName": "<Consumer>",
            "EventSourceArn": "<Stream.Arn>",
            "Enabled": "true",
            # LATEST would lose what comes while the mapping is made.
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 1000,
            "MaximumBatchingWindowInSeconds": 1,
            # More would make the consumer's progress a lie.
            "ParallelizationFactor": 1,
            # Without it Lambda ignores what the consumer says of single records, and loses them.
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "BisectBatchOnFunctionError": True,
            # Bounded, and the age below the stream's retention: given up is told of, trimmed is not.
            "MaximumRetryAttempts": 50,
            "MaximumRecordAgeInSeconds": 6 * DAY,
            "DestinationConfig": {"OnFailure": {"Destination": "<Bucket.Arn>"}},
            "MetricsConfig": {"Metrics": ["EventCount"]},
        })
        retention = self.kinesis.properties("Stream")["RetentionPeriodHours"] * 3_600
        self.assertLess(self.kinesis.properties("ConsumerMapping")["MaximumRecordAgeInSeconds"], retention)

    def test_its_numbers_are_parameters(self):
        mapping = Template(BatchSize=250, BatchWindowSeconds=20, RetryAttempts=7, ConsumerEnabled="false").properties("ConsumerMapping")
        names = ("BatchSize", "MaximumBatchingWindowInSeconds", "MaximumRetryAttempts", "Enabled")
        self.assertEqual([mapping[name] for name in names], [250, 20, 7, "false"])

    def test_the_relays_mapping(self):
        self.assertEqual(self.relay.properties("RelayMapping"), {
            "FunctionName": "<Relay>",
            "EventSourceArn": "<SourceTable.StreamArn>",
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 500,
            "MaximumBatchingWindowInSeconds": 1,
            "ParallelizationFactor": 1,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "BisectBatchOnFunctionError": True,
            # DynamoDB Streams lose changes after a day.
            "MaximumRetryAttempts": 10000,
            "MaximumRecordAgeInSeconds": 22 * 3_600,
            "DestinationConfig": {"OnFailure": {"Destination": "<Bucket.Arn>"}},
            "MetricsConfig": {"Metrics": ["EventCount"]},
        })


class Schedules(TemplateTest):
    def test_each_task_has_its_schedule(self):
        schedules = self.kinesis.of_type("AWS::Scheduler::Schedule")
        tasks = {}
        for schedule in schedules.values():
            properties = schedule["Properties"]
            self.assertEqual(properties["State"], "ENABLED")
            self.assertEqual(properties["FlexibleTimeWindow"], {"Mode": "OFF"})
            target = properties["Target"]
            self.assertEqual((target["Arn"], target["RoleArn"]), ("<Compactor.Arn>", "<SchedulerRole.Arn>"))
            task = json.loads(target["Input"])["task"]
            tasks[task] = properties["ScheduleExpression"]
            # What comes again in minutes is not asked for again.
            retry = (0, 300) if task == "archive" else (3, 3_600)
            self.assertEqual(target["RetryPolicy"], dict(zip(("MaximumRetryAttempts", "MaximumEventAgeInSeconds"), retry)))
            self.assertEqual(properties.get("ScheduleExpressionTimezone", "UTC"), "UTC")
        self.assertEqual(tasks, {
            "archive": "rate(5 minutes)",
            "compact": "cron(10 1 * * ? *)",
            "recompute": "cron(40 1 * * ? *)",
            "reconcile": "cron(10 2 * * ? *)",
        })

    def test_the_compactor_knows_the_tasks(self):
        code = (ROOT / "compactor/src/bin/compactor.rs").read_text()
        self.assertIn('rename_all = "snake_case"', code)
        for task in ("Archive", "Compact", "Recompute", "Reconcile"):
            self.assertRegex(code, rf"(?m)^    {task},$")

    def test_they_can_be_stopped(self):
        for schedule in Template(SchedulesEnabled="DISABLED").of_type("AWS::Scheduler::Schedule").values():
            self.assertEqual(schedule["Properties"]["State"], "DISABLED")


class Queries(TemplateTest):
    TABLES = {
        "EventsTable": ("events", "s3://<Bucket>/events/", [{"Name": "month", "Type": "string"}]),
        "MonthlyTotalsTable": ("monthly_totals", "s3://<Bucket>/totals/monthly/", []),
        "YearlyTotalsTable": ("yearly_totals", "s3://<Bucket>/totals/yearly/", []),
        "FindingsTable": ("findings", "s3://<Bucket>/findings/", []),
    }

    def test_the_tables_are_parquet_where_the_code_writes(self):
        self.assertEqual(set(self.kinesis.of_type("AWS::Glue::Table")), set(self.TABLES))
        for logical, (name, location, partitions) in self.TABLES.items():
            with self.subTest(name):
                table = self.kinesis.properties(logical)
                self.assertEqual((table["DatabaseName"], table["CatalogId"]), ("<Database>", "123456789012"))
                table = table["TableInput"]
                self.assertEqual((table["Name"], table["TableType"]), (name, "EXTERNAL_TABLE"))
                self.assertEqual(table["PartitionKeys"], partitions)
                storage = table["StorageDescriptor"]
                self.assertEqual(storage["Location"], location)
                hive = "org.apache.hadoop.hive.ql.io.parquet."
                self.assertEqual(storage["InputFormat"], f"{hive}MapredParquetInputFormat")
                self.assertEqual(storage["OutputFormat"], f"{hive}MapredParquetOutputFormat")
                self.assertEqual(storage["SerdeInfo"], {"SerializationLibrary": f"{hive}serde.ParquetHiveSerDe"})

    def test_no_partition_is_projected(self):
        for logical in self.TABLES:
            parameters = self.kinesis.properties(logical)["TableInput"]["Parameters"]
            self.assertEqual(parameters, {"EXTERNAL": "TRUE", "classification": "parquet"})

    def test_measures_have_columns(self):
        template = Template(Measure1="bytes", Measure2="pages")
        of = lambda name: [one["Name"] for one in template.properties(name)["TableInput"]["StorageDescriptor"]["Columns"]]  # noqa: E731
        self.assertEqual(of("EventsTable")[-2:], ["measure_bytes", "measure_pages"])
        self.assertEqual(of("MonthlyTotalsTable")[3:], ["sum_bytes", "sum_pages"])
        self.assertEqual(of("MonthlyTotalsTable"), of("YearlyTotalsTable"))
        self.assertEqual(of("FindingsTable")[-4:], ["expected_sum_bytes", "expected_sum_pages", "actual_sum_bytes", "actual_sum_pages"])
        none = Template(Measure1="").properties("MonthlyTotalsTable")["TableInput"]["StorageDescriptor"]["Columns"]
        self.assertEqual([one["Name"] for one in none], ["group_key", "period", "events"])

    def test_the_workgroup_bounds_scans_and_encrypts_results(self):
        workgroup = self.kinesis.properties("Workgroup")
        self.assertEqual((workgroup["Name"], workgroup["State"]), ("recount", "ENABLED"))
        configuration = workgroup["WorkGroupConfiguration"]
        self.assertEqual(configuration["EnforceWorkGroupConfiguration"], True)
        self.assertEqual(configuration["BytesScannedCutoffPerQuery"], 100 << 30)
        self.assertEqual(configuration["PublishCloudWatchMetricsEnabled"], True)
        self.assertEqual(configuration["ResultConfiguration"], {
            "OutputLocation": "s3://<Bucket>/athena/",
            "ExpectedBucketOwner": "123456789012",
            "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
        })

    def test_every_file_of_queries_is_saved_as_it_is(self):
        saved = {}
        for query in self.kinesis.of_type("AWS::Athena::NamedQuery").values():
            query = query["Properties"]
            self.assertEqual((query["Database"], query["WorkGroup"]), ("<Database>", "<Workgroup>"))
            saved[query["Name"]] = query["QueryString"]
        files = {path.stem: path.read_text() for path in (ROOT / "infra/aws/athena").glob("*.sql")}
        self.assertEqual(saved, files)
        self.assertGreaterEqual(len(files), 8)


class Alarms(TemplateTest):
    # The metrics that an alarm looks at, with statistic and period, and what rings it.
    EXPECTED = {
        "ConsumerBehind": [
            "AWS/Lambda IteratorAge FunctionName=<Consumer> Maximum, 60 s",
            "above 600000 in 5 of 5, no data: notBreaching",
        ],
        "CaptureDelayed": [
            "SELECT MAX(AgeOfOldestUnreplicatedRecord) FROM SCHEMA(\"AWS/DynamoDB\", TableName,DelegatedOperation) WHERE TableName = 'scans', 60 s",
            "above 900000 in 5 of 5, no data: notBreaching",
        ],
        "CaptureFailed": [
            "SELECT MAX(FailedToReplicateRecordCount) FROM SCHEMA(\"AWS/DynamoDB\", TableName,DelegatedOperation) WHERE TableName = 'scans', 300 s",
            "above 0 in 1 of 1, no data: notBreaching",
        ],
        "CaptureThrottled": [
            "SELECT MAX(ThrottledPutRecordCount) FROM SCHEMA(\"AWS/DynamoDB\", TableName,DelegatedOperation) WHERE TableName = 'scans', 300 s",
            "above 0 in 3 of 3, no data: notBreaching",
        ],
        "ConsumerErrors": [
            "AWS/Lambda Errors FunctionName=<Consumer> Sum, 300 s",
            "above 0 in 1 of 1, no data: notBreaching",
        ],
        "ConsumerThrottled": [
            "AWS/Lambda Throttles FunctionName=<Consumer> Sum, 300 s",
            "above 0 in 3 of 3, no data: notBreaching",
        ],
        "ConsumerGaveUp": [
            "AWS/Lambda OnFailureDestinationDeliveredEventCount EventSourceMappingUUID=<ConsumerMapping> Sum, 300 s",
            "AWS/Lambda DroppedEventCount EventSourceMappingUUID=<ConsumerMapping> Sum, 300 s",
            "AWS/Lambda DestinationDeliveryFailures FunctionName=<Consumer> Sum, 300 s",
            "above 0 in 1 of 3, no data: notBreaching",
        ],
        "StreamThrottled": [
            "AWS/Kinesis WriteProvisionedThroughputExceeded StreamName=<Stream> Sum, 300 s",
            "AWS/Kinesis ReadProvisionedThroughputExceeded StreamName=<Stream> Sum, 300 s",
            "above 0 in 3 of 4, no data: notBreaching",
        ],
        "TablesThrottled": [
            "AWS/DynamoDB WriteThrottleEvents TableName=<TotalsTable> Sum, 300 s",
            "AWS/DynamoDB WriteThrottleEvents TableName=<LedgerTable> Sum, 300 s",
            "AWS/DynamoDB WriteThrottleEvents TableName=<ProgressTable> Sum, 300 s",
            "above 0 in 3 of 4, no data: notBreaching",
        ],
        "Quarantined": [
            "Recount Quarantined Stream=<Stream> Sum, 300 s",
            "above 0 in 1 of 1, no data: notBreaching",
        ],
        "UnusableItems": [
            "Recount Unusable Stream=<Stream> Sum, 300 s",
            "above 0 in 1 of 1, no data: notBreaching",
        ],
        "ArchiveBehind": [
            "Recount ArchiveLagSeconds Stream=<Stream> Minimum, 900 s",
            "above 7200 in 4 of 4, no data: breaching",
        ],
        "ArchiveLost": [
            "Recount ArchiveLost Stream=<Stream> Sum, 300 s",
            "above 0 in 1 of 1, no data: notBreaching",
        ],
        "CompactorErrors": [
            "AWS/Lambda Errors FunctionName=<Compactor> Sum, 900 s",
            "above 0 in 1 of 1, no data: notBreaching",
        ],
        "CompactorThrottled": [
            "AWS/Lambda Throttles FunctionName=<Compactor> Sum, 900 s",
            "above 0 in 2 of 2, no data: notBreaching",
        ],
        "Findings": [
            "Recount Findings Stream=<Stream> Maximum, 3600 s",
            "above 0 in 1 of 26, no data: notBreaching",
        ],
        "NothingReconciled": [
            "Recount Undecided Stream=<Stream> Minimum, 3600 s",
            "above 0 in 26 of 26, no data: breaching",
        ],
        "RelayBehind": [
            "AWS/Lambda IteratorAge FunctionName=<Relay> Maximum, 60 s",
            "above 900000 in 5 of 5, no data: notBreaching",
        ],
        "RelayErrors": [
            "AWS/Lambda Errors FunctionName=<Relay> Sum, 300 s",
            "above 0 in 1 of 1, no data: notBreaching",
        ],
        "RelayThrottled": [
            "AWS/Lambda Throttles FunctionName=<Relay> Sum, 300 s",
            "above 0 in 3 of 3, no data: notBreaching",
        ],
        "RelayGaveUp": [
            "AWS/Lambda OnFailureDestinationDeliveredEventCount EventSourceMappingUUID=<RelayMapping> Sum, 300 s",
            "AWS/Lambda DroppedEventCount EventSourceMappingUUID=<RelayMapping> Sum, 300 s",
            "AWS/Lambda DestinationDeliveryFailures FunctionName=<Relay> Sum, 300 s",
            "above 0 in 1 of 3, no data: notBreaching",
        ],
        "RelayQuarantined": [
            "Recount/Relay recount-quarantined Sum, 300 s",
            "above 0 in 1 of 1, no data: notBreaching",
        ],
    }
    BY_KINESIS = {"CaptureDelayed", "CaptureFailed", "CaptureThrottled"}

    def alarms(self):
        return {**self.kinesis.of_type("AWS::CloudWatch::Alarm"), **self.relay.of_type("AWS::CloudWatch::Alarm")}

    def asked(self, alarm):
        """What an alarm asks, in a line for each metric and one for the answer."""
        if "Metrics" not in alarm:
            lines = [self.metric(alarm, alarm["Statistic"], alarm["Period"])]
        else:
            (query,) = [one for one in alarm["Metrics"] if one.pop("ReturnData")]
            parts = [one for one in alarm["Metrics"] if one is not query]
            stats = [one["MetricStat"] for one in parts]
            lines = [self.metric(one["Metric"], one["Stat"], one["Period"]) for one in stats]
            if parts:
                self.assertEqual(query, {"Id": "all", "Expression": "+".join(f"FILL({one['Id']},0)" for one in parts)})
                self.assertLess(alarm["DatapointsToAlarm"], alarm["EvaluationPeriods"], "FILL makes a zero of what comes late")
            else:
                lines = [f"{query['Expression']}, {query['Period']} s"]
        self.assertEqual(alarm["ComparisonOperator"], "GreaterThanThreshold")
        periods = f"{alarm.get('DatapointsToAlarm', alarm['EvaluationPeriods'])} of {alarm['EvaluationPeriods']}"
        return [*lines, f"above {alarm['Threshold']} in {periods}, no data: {alarm['TreatMissingData']}"]

    def metric(self, metric, statistic, period):
        dimensions = [f"{one['Name']}={one['Value']}" for one in metric.get("Dimensions", [])]
        return " ".join([metric["Namespace"], metric["MetricName"], *dimensions, f"{statistic},", f"{period} s"])

    def test_all_are_there_and_ask_what_they_should(self):
        asked = {name: self.asked(copy.deepcopy(alarm["Properties"])) for name, alarm in self.alarms().items()}
        self.assertEqual(asked, self.EXPECTED)

    def test_each_tells_the_topic_and_says_what_to_do(self):
        for name, alarm in self.alarms().items():
            with self.subTest(name):
                alarm = alarm["Properties"]
                self.assertEqual((alarm["AlarmActions"], alarm["OKActions"]), (["<AlarmTopic>"], ["<AlarmTopic>"]))
                self.assertGreater(len(alarm["AlarmDescription"].split(". ")), 1, "what it is, then what to do")
                self.assertLessEqual(len(alarm["AlarmDescription"]), 1_024)

    def test_captures_have_their_own(self):
        kinesis, relay = (set(template.of_type("AWS::CloudWatch::Alarm")) for template in (self.kinesis, self.relay))
        self.assertEqual(kinesis - relay, self.BY_KINESIS)
        self.assertEqual({name for name in relay - kinesis if not name.startswith("Relay")}, set())

    def test_our_metrics_are_those_that_the_code_writes(self):
        code = "".join((ROOT / path).read_text() for path in (
            "consumer/src/metrics.rs", "compactor/src/reconcile/metrics.rs", "compactor/src/archive/metrics.rs"))
        self.assertIn('NAMESPACE: &str = "Recount"', code)
        self.assertIn('STREAM: &str = "Stream"', code)
        ours = [alarm["Properties"] for alarm in self.alarms().values() if alarm["Properties"].get("Namespace") == "Recount"]
        self.assertEqual(len(ours), 6)
        for alarm in ours:
            self.assertEqual(alarm["Dimensions"], [{"Name": "Stream", "Value": "<Stream>"}])
        shown = re.findall(r'\["Recount", "(\w+)"|\[".", "(\w+)", ".", "."\]', self.kinesis.properties("Dashboard")["DashboardBody"])
        aws = {"WriteProvisionedThroughputExceeded", "ReadProvisionedThroughputExceeded", "Throttles"}
        names = {alarm["MetricName"] for alarm in ours} | ({name for pair in shown for name in pair if name} - aws)
        for name in names:
            self.assertIn(f'"{name}"', code)

    def test_the_relays_log_line_is_what_the_code_says(self):
        pattern = self.relay.properties("RelayQuarantines")["FilterPattern"]
        self.assertIn(pattern, (ROOT / "producer/src/relay/mod.rs").read_text())
        (made,) = self.relay.properties("RelayQuarantines")["MetricTransformations"]
        alarm = self.relay.properties("RelayQuarantined")
        self.assertEqual((made["MetricNamespace"], made["MetricName"]), (alarm["Namespace"], alarm["MetricName"]))

    def test_the_topic_takes_alarms_of_this_account_and_an_address_if_there_is_one(self):
        (statement,) = self.kinesis.properties("AlarmTopicPolicy")["PolicyDocument"]["Statement"]
        self.assertEqual(self.kinesis.properties("AlarmTopicPolicy")["Topics"], ["<AlarmTopic>"])
        self.assertEqual((statement["Effect"], statement["Principal"]), ("Allow", {"Service": "cloudwatch.amazonaws.com"}))
        self.assertEqual((statement["Action"], statement["Resource"]), ("sns:Publish", "<AlarmTopic>"))
        self.assertEqual(statement["Condition"], {"StringEquals": {"aws:SourceAccount": "123456789012"}})
        self.assertNotIn("AlarmSubscription", self.kinesis.resources)
        told = Template(AlarmEmail="ops@example.com").properties("AlarmSubscription")
        self.assertEqual(told, {"TopicArn": "<AlarmTopic>", "Protocol": "email", "Endpoint": "ops@example.com"})

    def test_the_dashboard_is_json(self):
        body = json.loads(self.kinesis.properties("Dashboard")["DashboardBody"])
        self.assertEqual(len(body["widgets"]), 11)
        (alarms,) = [widget for widget in body["widgets"] if widget["type"] == "alarm"]
        for arn in alarms["properties"]["alarms"]:
            self.assertIn(arn[1:-len(".Arn>")], self.kinesis.resources)


class Outputs(TemplateTest):
    def test_the_names_that_recount_looks_for(self):
        values = {name: output["Value"] for name, output in self.relay.outputs.items()}
        expected = {
            "Capture": "relay", "SourceTableName": "scans", "StreamName": "<Stream>", "TotalsTableName": "<TotalsTable>",
            "LedgerTableName": "<LedgerTable>", "ProgressTableName": "<ProgressTable>", "BucketName": "<Bucket>",
            "GlueDatabaseName": "<Database>", "AthenaWorkgroupName": "<Workgroup>", "ConsumerFunctionName": "<Consumer>",
            "CompactorFunctionName": "<Compactor>", "RelayFunctionName": "<Relay>", "ConsumerMappingId": "<ConsumerMapping>",
        }
        self.assertEqual({name: values[name] for name in expected}, expected)

    def test_they_give_the_commands_to_run_next(self):
        values = {name: output["Value"] for name, output in self.kinesis.outputs.items()}
        self.assertEqual(values["CheckDeployment"], "recount --stack recount doctor")
        self.assertEqual(values["ShowUsage"], "recount --stack recount usage")
        for name, task in (("ReconcileNow", "reconcile"), ("ArchiveNow", "archive")):
            self.assertTrue(values[name].startswith("aws lambda invoke --region us-east-1 --function-name <Compactor> "))
            self.assertIn(json.dumps({"task": task}, separators=(",", ":")), values[name])


class Text(TemplateTest):
    def test_nothing_is_aliased(self):
        text = (ROOT / "infra/aws/template.yaml").read_text()
        self.assertNotRegex(text, r"(?m)^[^#\n]*:\s+[&*][a-z]", "CloudFormation takes no YAML aliases")

    def test_everything_that_holds_data_is_kept(self):
        for how, template in self.both():
            for name, resource in template.resources.items():
                if resource["Type"] in ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::Kinesis::Stream"):
                    with self.subTest(name, capture=how):
                        self.assertIn(resource["DeletionPolicy"], ("Retain", "RetainExceptOnCreate"))
                        self.assertEqual(resource["UpdateReplacePolicy"], "Retain")


if __name__ == "__main__":
    unittest.main()
