"""Writers, and the ledger of what was acknowledged: the oracle.

An item is *acknowledged* when its write was answered, and *doubtful* from the moment it is sent until then. A write that gets no
answer is sent again, or left in doubt for ever; whether it happened, the table itself says at the end.
"""

import datetime
import http.client
import json
import random
import threading
import time
from collections import Counter

PROJECTS = 50
DAYS = 75  # so far back scans reach: three months, or four
SIZES = (1, 1, 1, 5, 25)  # items of a request
# The definition's zone is always 8 hours ahead of UTC.
DEFINITION = """
[source]
table = "scans"
key = ["scan_id"]

[fold]
group_by = "project_id"
occurred_at = "scanned_at"
time_zone = "Asia/Singapore"
count = "inserts"
sum = ["bytes"]
"""
AHEAD = datetime.timedelta(hours=8)
PATIENCE = 30  # s for an answer


class Unanswered(Exception):
    """Nobody can say whether the request was carried out."""


class Table:
    """DynamoDB over one connection."""

    def __init__(self, port):
        self.port, self.connection = port, None

    def call(self, operation, body):
        headers = {"X-Amz-Target": f"DynamoDB_20120810.{operation}", "Content-Type": "application/x-amz-json-1.0"}
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            self.connection.request("POST", "/", json.dumps(body), headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unanswered(str(error)) from error
        if answer.status >= 500:
            raise Unanswered(text.decode("utf-8", "replace"))
        if answer.status != 200:
            raise RuntimeError(f"{operation} was refused: {text.decode('utf-8', 'replace')}")
        return json.loads(text)

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def items(self):
        """All items of the source table."""
        start = {}
        while True:
            page = self.call("Scan", {"TableName": "scans", "ConsistentRead": True, **start})
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


class Load:
    """Several writers that together send `rate` items a second, or fewer where the server does not take them."""

    def __init__(self, port, rate, writers, seed):
        self.port, self.lock, self.stopping = port, threading.Lock(), threading.Event()
        self.acknowledged, self.doubtful = {}, {}  # id → (project, month, bytes)
        self.attempted = Counter()  # (project, month) → items ever sent
        self.unanswered, self.failed = 0, None
        self.since = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        self.threads = [threading.Thread(target=self._guarded, args=(n, rate / writers, seed)) for n in range(writers)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def answers(self):
        with self.lock:
            return len(self.acknowledged)

    def _guarded(self, *args):
        try:
            self._write(*args)
        except Exception as error:  # a writer that dies would be a soak without load
            self.failed = f"a writer ended: {error!r}"

    def _write(self, number, rate, seed):
        rng, table, count = random.Random(f"{seed} {number}"), Table(self.port), 0
        weights = [1 / rank for rank in range(1, PROJECTS + 1)]
        due = time.monotonic()
        while not self.stopping.is_set():
            size = rng.choice(SIZES)
            items = [self._item(rng, f"soak-{number}-{count + i:08}", weights) for i in range(size)]
            count += size
            self._send(rng, table, items)
            # What was not sent while the server was down is not made up for: the load stays equal.
            due = max(due + size / rate, time.monotonic() - 1)
            self.stopping.wait(max(0, due - time.monotonic()))
        table.close()

    def _item(self, rng, name, weights):
        project = f"project-{rng.choices(range(PROJECTS), weights)[0]:03}"
        at = self.since - datetime.timedelta(seconds=rng.randrange(DAYS * 86_400))
        size = rng.randrange(1 << 20)
        item = {"scan_id": {"S": name}, "project_id": {"S": project}, "bytes": {"N": str(size)},
                "scanned_at": {"S": at.strftime("%Y-%m-%dT%H:%M:%SZ")}, "file_name": {"S": f"{name}.bin"},
                "sha256": {"S": f"{rng.getrandbits(256):064x}"}, "verdict": {"S": "clean"}}
        return name, item, (project, (at + AHEAD).strftime("%Y-%m"), size)

    def _send(self, rng, table, items):
        with self.lock:
            for name, _, scan in items:
                self.doubtful[name] = scan
                self.attempted[scan[:2]] += 1
        while True:
            try:
                if len(items) == 1:
                    table.call("PutItem", {"TableName": "scans", "Item": items[0][1]})
                    left = set()
                else:
                    puts = [{"PutRequest": {"Item": item}} for _, item, _ in items]
                    answer = table.call("BatchWriteItem", {"RequestItems": {"scans": puts}})
                    unprocessed = answer.get("UnprocessedItems", {}).get("scans", [])
                    left = {put["PutRequest"]["Item"]["scan_id"]["S"] for put in unprocessed}
                break
            except Unanswered:
                self.unanswered += 1
                if rng.random() < 0.5 or self.stopping.wait(0.2):
                    return
        with self.lock:
            for name, _, scan in items:
                if name not in left:
                    self.acknowledged[name] = self.doubtful.pop(name)

    def settle(self):
        """What must be counted, as (project, month) → [events, bytes]; and what is wrong with the table itself."""
        table = Table(self.port)
        there = {item["scan_id"]["S"]: (item["project_id"]["S"], int(item["bytes"]["N"])) for item in table.items()}
        table.close()
        wrong, totals = [], {}
        lost = [name for name in self.acknowledged if name not in there]
        if lost:
            wrong.append(f"{len(lost)} acknowledged items are not in the table, {lost[0]} among them")
        for name, found in there.items():
            scan = self.acknowledged.get(name) or self.doubtful.get(name)
            if scan is None or (scan[0], scan[2]) != found:
                wrong.append(f"the table has {name} as nobody wrote it")
                continue
            total = totals.setdefault(scan[:2], [0, 0])
            total[0] += 1
            total[1] += scan[2]
        return totals, wrong
