"""MiniStack, a stand-in for AWS, started in this process with the patches that a change-capture pipeline needs.

    python ministack_launcher.py

Everything else comes from the environment, see `stand_in.py`. It listens on loopback only, and does not start where the version
is another one than the one that the patches were written for, or where a patch does not do what it is for: `patch` asks.

Each patch stands with its reason and the rule of AWS that it restores; they reach into private functions. What is wrong in
MiniStack and stays wrong, so that no test here may imply it:

- capture by Kinesis: other records than AWS writes, seconds for their time, another partition key for each change, none for TTL;
- mappings: batching window, bisecting, bounds on retries and age, on-failure destinations (a failed batch comes again for ever);
- streams: no limits, and a split shard is deleted with its records;
- DynamoDB: no throttling, no conflicts, no stale reads; expiry, backups and, made by CloudFormation, TTL are ignored;
- S3: lifecycle; Athena: DuckDB's dialect over all files below the table's location, whatever its partitions say;
- schedules go off up to ten seconds late, and metrics, alarms and the dashboard do nothing.
"""

import base64
import importlib.metadata
import json
import os
import sys
import threading
import urllib.parse

VERSION = "1.5.33"

# MiniStack also opens an MQTT and an SFTP server, on all interfaces, and its functions call the real AWS where it does not
# know an endpoint of its own. AUTH: each request is judged by the policies of its caller's role and of the bucket.
SURROUNDINGS = {"BIND_HOST": "127.0.0.1", "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0", "AUTH": "true"}


def refuse(why):
    sys.exit(f"ministack_launcher: {why}")


def check_surroundings():
    found = importlib.metadata.version("ministack")
    if found != VERSION:
        refuse(f"MiniStack is {found}; the patches are for {VERSION}: read them again, then raise VERSION")
    for name, value in SURROUNDINGS.items():
        if os.environ.get(name) != value:
            refuse(f"{name} must be {value}")
    if not os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://127.0.0.1:"):
        refuse("AWS_ENDPOINT_URL must be on loopback: functions would call the real AWS")
    stray = sorted(name for name in os.environ if name.startswith("RECOUNT_"))
    if stray:
        refuse(f"functions inherit {', '.join(stray)}: what the template forgets would not show")


class PartialFailures:
    """Patch 1: an event source mapping obeys `batchItemFailures` of a stream's batch.

    Stock, MiniStack's mappings of Kinesis and DynamoDB streams take any answer for success and go on behind the batch: what the
    function reported as failed is lost.

    AWS (Lambda Developer Guide, "Configuring partial batch response with Kinesis Data Streams and Lambda"): where the mapping has
    `ReportBatchItemFailures`, the lowest sequence number of the list is the checkpoint, and everything from it on comes again. No
    list, or an empty one, is success. An empty or unknown identifier fails the whole batch. Elsewhere the answer is ignored.

    How: the poller keeps its position when a function fails. So the position is moved up to the first failed record, and the call
    is told to have failed; the poller comes again from there, after its pause of a second. Bisecting, bounds on retries and age,
    and destinations are not added: the test must not rely on them.
    """

    def __init__(self, functions):
        self.functions = functions
        self.execute = functions._execute_function
        # The poller's thread: a call to Invoke with such an event is none of a mapping.
        self.poller = threading.local()

    def install(self):
        self.functions._poll_kinesis = self.polling(self.functions._poll_kinesis)
        self.functions._poll_dynamodb_streams = self.polling(self.functions._poll_dynamodb_streams)
        self.functions._execute_function = self.executing

    def polling(self, poll):
        def marked():
            self.poller.polls = True
            try:
                return poll()
            finally:
                self.poller.polls = False

        return marked

    def executing(self, function, event):
        result = self.execute(function, event)
        if not getattr(self.poller, "polls", False) or result.get("error"):
            return result
        records = event["Records"]
        mapping = self.mapping(function, records[0]["eventSourceARN"])
        if "ReportBatchItemFailures" not in (mapping.get("FunctionResponseTypes") or []):
            return result
        first = first_failure(result.get("body"), [sequence_number(record) for record in records])
        if first is None:
            return result
        if mapping.get("FilterCriteria"):
            raise NotImplementedError("positions of a mapping with a filter are not those of its batch")
        self.move(mapping, records[0], first)
        message = f"the function reported the record at {first} of {len(records)} as failed"
        return {"error": True, "body": {"errorType": "BatchItemFailures", "errorMessage": message}}

    def mapping(self, function, source):
        name = function["config"]["FunctionName"]
        found = [
            mapping
            for mapping in self.functions._esms.values()
            if mapping["FunctionName"] == name and mapping["EventSourceArn"] == source
        ]
        if len(found) != 1:
            raise LookupError(f"{len(found)} mappings of {source} to {name}")
        return found[0]

    def move(self, mapping, record, count):
        uuid = mapping["UUID"]
        if record["eventSource"] == "aws:kinesis":
            # The outer event ID is shard:sequence number (Lambda Developer Guide, "Using Lambda with Kinesis").
            self.functions._kinesis_positions[uuid][record["eventID"].rsplit(":", 1)[0]] += count
        else:
            with self.functions._dynamodb_stream_positions_lock:
                self.functions._dynamodb_stream_positions[uuid] += count


def sequence_number(record):
    return record["kinesis"]["sequenceNumber"] if "kinesis" in record else record["dynamodb"]["SequenceNumber"]


def first_failure(answer, sequence_numbers):
    """The index of the record that the answer of a function reports as the first failed one; None: all went well."""
    if isinstance(answer, (str, bytes)):
        answer = json.loads(answer or "null")
    failures = (answer or {}).get("batchItemFailures") or []
    if not failures:
        return None
    reported = [failure.get("itemIdentifier") for failure in failures]
    if any(number not in sequence_numbers for number in reported):
        return 0
    return min(sequence_numbers.index(number) for number in reported)


def number_records_like_kinesis(kinesis):
    """Patch 2: sequence numbers without leading zeros.

    MiniStack's have 30 digits, the first ones zeros. AWS (Kinesis API Reference, `Record`): 0, or up to 129 digits the first of which
    is none; the archiver refuses what is no such number. All have the same length still, since MiniStack compares them as text.
    """
    stock = kinesis._next_sequence_number
    kinesis._next_sequence_number = lambda: f"49{stock()}"


def make_alarms_of_expressions(provisioners):
    """Patch 3: a stack may have alarms of metric math (`Metrics` of `AWS::CloudWatch::Alarm`).

    MiniStack refuses the whole stack. Here such an alarm is made with a metric that nobody sends: it is there for what refers to it, and
    says nothing; no test may look at it.
    """
    stock = provisioners._cw_metric_alarm_record

    def record(name, props):
        metrics = props.get("Metrics")
        if metrics:
            props = {key: value for key, value in props.items() if key != "Metrics"}
            props |= {"Namespace": "MiniStack/NoMetricMath", "MetricName": name}
        return stock(name, props)

    provisioners._cw_metric_alarm_record = record


class Judging:
    """Patch 4: what MiniStack's evaluation of IAM (`AUTH=true`) takes for otherwise than AWS, where our functions meet it.

    - A request over loopback counts as one over TLS: there is none here, and the bucket denies everything without it.
    - Signature Version 4 is over the path as the service encodes it again, so `=` and `%3D` are one (IAM User Guide, "Create a signed
      AWS API request"). MiniStack takes it as it came, and microburst writes it otherwise than the client.
    - `kinesis:GetRecords` is judged on the stream of its iterator (Service Authorization Reference, "Amazon Kinesis Data Streams":
      resource type stream, required); for MiniStack it has no resource.
    - `s3:if-none-match` and `s3:ObjectCreationOperation` are condition keys of a put (S3 User Guide, "Enforce conditional writes on
      Amazon S3 buckets"). MiniStack does not know them.
    """

    def __init__(self, app, iam_actions, kinesis):
        self.kinesis = kinesis
        self.pin_signed, self.pin_origin = app.pin_signed_request, app.pin_request_origin
        self.resource, self.s3_context = iam_actions.extract_resource_arn, iam_actions.s3_service_context

    def install(self, app, iam_actions):
        app.pin_signed_request = self.signed
        app.pin_request_origin = lambda address, _secure: self.pin_origin(address, True)
        iam_actions.extract_resource_arn = self.resource_arn
        iam_actions.s3_service_context = self.context

    def signed(self, method, path, *more):
        return self.pin_signed(method, urllib.parse.quote(urllib.parse.unquote(path), safe="/~"), *more)

    def resource_arn(self, service, method, path, headers, body, *more):
        if service == "kinesis" and headers.get("x-amz-target", "").endswith(".GetRecords"):
            iterator = self.kinesis._shard_iterators.get(json.loads(body).get("ShardIterator"))
            if iterator:
                return iterator["stream_arn"]
        return self.resource(service, method, path, headers, body, *more)

    def context(self, action, query, path, headers):
        keys = dict(self.s3_context(action, query, path, headers) or {})
        if action == "s3:PutObject":
            keys["s3:ObjectCreationOperation"] = "false" if "partNumber" in query else "true"
            if "if-none-match" in headers:
                keys["s3:if-none-match"] = headers["if-none-match"]
        return keys


def patch(functions, kinesis, provisioners):
    """Patches, and asks before and after: a version that answers otherwise is one that the patches were not written for."""
    delivered = trial(functions, kinesis)
    if delivered != [["0", "1", "2", "3"]]:
        refuse(f"without patch 1 a mapping delivered {delivered}: does it know partial failures now? Then drop the patch")
    if not kinesis._next_sequence_number().startswith("0"):
        refuse("sequence numbers have no leading zeros any more: drop patch 2")
    alarm = {"Metrics": [{"Id": "m"}], "ComparisonOperator": "GreaterThanThreshold", "Threshold": 0}
    try:
        provisioners._cw_metric_alarm_record("self-test", alarm)
        refuse("stacks may have alarms of metric math now: drop patch 3")
    except ValueError:
        pass
    PartialFailures(functions).install()
    make_alarms_of_expressions(provisioners)
    number_records_like_kinesis(kinesis)
    delivered = trial(functions, kinesis)
    if delivered != [["0", "1", "2", "3"], ["2", "3"], ["3"]]:
        refuse(f"with patch 1 a mapping delivered {delivered}, not from the failed record on")
    first, second = kinesis._next_sequence_number(), kinesis._next_sequence_number()
    provisioners._cw_metric_alarm_record("self-test", alarm)
    if not (len(first) == len(second) and "0" < first < second):
        refuse(f"with patch 2 sequence numbers do not grow: {first}, {second}")


def trial(functions, kinesis):
    """The batches that a function sees that fails the third of four records once, and then the fourth once."""
    kinesis._create_stream({"StreamName": "self-test", "ShardCount": 1})
    arn = kinesis._streams["self-test"]["StreamARN"]
    for i in range(4):
        kinesis.put_record_internal(arn, "one", str(i).encode())
    config = {"FunctionName": "self-test", "Handler": "bootstrap", "Runtime": "provided.al2023"}
    functions._functions["self-test"] = {"config": config}
    functions._esms["self-test"] = {
        "UUID": "self-test",
        "EventSourceArn": arn,
        "FunctionName": "self-test",
        "StartingPosition": "TRIM_HORIZON",
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "Enabled": True,
    }
    seen = []

    def script(_function, event):
        texts = [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]
        seen.append(texts)
        fails = {1: "2", 2: "3"}.get(len(seen))
        numbers = [sequence_number(r) for r, text in zip(event["Records"], texts) if text == fails]
        return {"body": {"batchItemFailures": [{"itemIdentifier": number} for number in numbers]}}

    patched = functions._execute_function
    owner = getattr(patched, "__self__", None)
    if owner is None:
        functions._execute_function = script
    else:
        stock, owner.execute = owner.execute, script
    try:
        for _ in range(5):
            functions._esm_backoff_until.pop("self-test", None)
            functions._poll_kinesis()
    finally:
        if owner is None:
            functions._execute_function = patched
        else:
            owner.execute = stock
        functions._release_esm_poll_state("self-test")
        del functions._esms["self-test"]
        del functions._functions["self-test"]
        kinesis._delete_stream({"StreamName": "self-test"})
    return seen


def main():
    check_surroundings()
    from ministack import app
    from ministack.core import iam_actions
    from ministack.services import kinesis, lambda_svc
    from ministack.services.cloudformation import provisioners

    patch(lambda_svc, kinesis, provisioners)
    Judging(app, iam_actions, kinesis).install(app, iam_actions)
    app.main()


if __name__ == "__main__":
    main()
