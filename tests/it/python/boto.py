"""Drives a running pipeline with boto3 alone: items in, totals out.

usage: boto.py ENDPOINT
Prints one JSON object with what it read back.
"""

import json
import sys
import time
from decimal import Decimal

import boto3

endpoint = sys.argv[1]
common = {"endpoint_url": endpoint, "region_name": "us-east-1", "aws_access_key_id": "any", "aws_secret_access_key": "thing"}
dynamodb = boto3.resource("dynamodb", **common)
scans = dynamodb.Table("scans")


def scan(i, at):
    return {"scan_id": f"boto-{i}", "project_id": 'acme "é" 🦀', "file_name": f"f{i}.txt", "bytes": Decimal(i),
            "sha256": "0" * 64, "verdict": "clean", "scanned_at": at}


with scans.batch_writer() as batch:
    for i in range(60):
        batch.put_item(Item=scan(i, "2026-11-30T15:59:59Z" if i % 3 else "2026-11-30T16:00:00Z"))
scans.put_item(Item=scan(60, "2027-01-01T00:00:00+08:00"))
scans.update_item(Key={"scan_id": "boto-1"}, UpdateExpression="SET verdict = :v", ExpressionAttributeValues={":v": "bad"})
scans.delete_item(Key={"scan_id": "boto-2"})

totals = dynamodb.Table("recount-totals")
months = {}
for _ in range(600):
    items = totals.query(KeyConditionExpression="pk = :g", ExpressionAttributeValues={":g": 'acme "é" 🦀'}, ConsistentRead=True)["Items"]
    months = {item["sk"]: [int(item["events"]), int(item["sum_bytes"])] for item in items}
    if sum(events for events, _ in months.values()) >= 61:
        break
    time.sleep(0.1)
streams = boto3.client("kinesis", **common).list_streams()["StreamNames"]
buckets = [b["Name"] for b in boto3.client("s3", **common).list_buckets()["Buckets"]]
print(json.dumps({"months": months, "streams": streams, "buckets": buckets}, sort_keys=True))
