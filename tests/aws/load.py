"""Writes scans into the source table, in every way that a client has, and keeps its own count of what they come to."""

import collections
import dataclasses
import datetime
import decimal
import random
import zoneinfo

ZONE = zoneinfo.ZoneInfo("Asia/Singapore")  # of the definition
ENDS_OF_MONTHS = datetime.datetime(2026, 10, 31, 15, 0, tzinfo=datetime.timezone.utc)


@dataclasses.dataclass
class Line:
    """A group's month."""

    events: int = 0
    bytes: decimal.Decimal = decimal.Decimal(0)


class Load:
    def __init__(self, dynamodb, table, seed):
        self.dynamodb, self.table, self.random = dynamodb, table, random.Random(seed)
        self.written = 0
        self.months = collections.defaultdict(Line)

    def write(self, count):
        """So many new scans; of some, changes too, which count nothing. Scans are counted when they are acknowledged."""
        ends = self.written + count
        while self.written < ends:
            some = [self.scan(number) for number in range(self.written, min(ends, self.written + self.random.randint(1, 20)))]
            way = self.random.choice([self.put, self.batch, self.transact])
            way(some)
            for item in some:
                self.count(item)
            self.written += len(some)
            self.change(self.random.choice(some))

    def scan(self, number):
        # Half of them around the end of a month in the definition's zone, which is not one in UTC.
        spread = self.random.choice([2 * 3600, 40 * 86400])
        when = ENDS_OF_MONTHS + datetime.timedelta(seconds=self.random.uniform(-spread, spread / 4), minutes=60)
        size = decimal.Decimal(self.random.randrange(10**12)) / 1000
        group = f"project-{min(self.random.randrange(9) for _ in range(4))}"  # one hot one
        return {
            "scan_id": {"S": f"scan-{number:06}"},
            "project_id": {"S": group},
            "scanned_at": {"S": when.isoformat(timespec="milliseconds").replace("+00:00", "Z")},
            "bytes": {"N": str(size)},
            "file": {"S": f"s3://incoming/{number}" + "x" * self.random.randrange(300)},
        }

    def put(self, items):
        for item in items:
            self.dynamodb.put_item(TableName=self.table, Item=item)

    def batch(self, items):
        answer = self.dynamodb.batch_write_item(RequestItems={self.table: [{"PutRequest": {"Item": item}} for item in items]})
        if answer["UnprocessedItems"]:
            raise RuntimeError("the stand-in left items of a batch unprocessed")

    def transact(self, items):
        self.dynamodb.transact_write_items(TransactItems=[{"Put": {"TableName": self.table, "Item": item}} for item in items])

    def change(self, item):
        key = {"scan_id": item["scan_id"]}
        draw = self.random.random()
        if draw < 0.3:
            self.dynamodb.delete_item(TableName=self.table, Key=key)
        elif draw < 0.8:
            self.dynamodb.update_item(
                TableName=self.table, Key=key, UpdateExpression="SET #n = :n", ExpressionAttributeNames={"#n": "bytes"},
                ExpressionAttributeValues={":n": {"N": "1"}},
            )

    def count(self, item):
        when = datetime.datetime.fromisoformat(item["scanned_at"]["S"].replace("Z", "+00:00"))
        line = self.months[item["project_id"]["S"], when.astimezone(ZONE).strftime("%Y-%m")]
        line.events += 1
        line.bytes += decimal.Decimal(item["bytes"]["N"])

    def totals(self):
        """(group, month) to (events, bytes)."""
        return {key: (line.events, line.bytes) for key, line in self.months.items()}
