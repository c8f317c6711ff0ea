"""Faults between the functions and AWS, as microburst's rules.

| fault | what AWS or the network does |
| --- | --- |
| throttled | refuses for capacity; the code is the service's own |
| broken | answers 500 |
| conflict | refuses a write of an item that a transaction holds |
| reset | the connection ends before the request is forwarded: nothing was done |
| cut | the request is done, and the connection ends before its answer: done, and the client does not know |

Each rule strikes in a cycle: some requests in a row, then it lets some pass. The lengths come from a seed, so the same seed is the
same mix; which request meets which fault depends on the moment, as requests of functions interleave.
"""

import random

THROTTLED = {"dynamodb": "ProvisionedThroughputExceededException", "kinesis": "ProvisionedThroughputExceededException", "s3": "SlowDown"}
BROKEN = {"dynamodb": "InternalServerError", "kinesis": "InternalFailure", "s3": "InternalError"}

# What the functions ask for on their way, and the faults that are not `throttled`, `broken`, `reset` and `cut`.
REQUESTS = {
    ("dynamodb", "UpdateItem"): ["conflict"],
    ("kinesis", "PutRecords"): [],
    ("kinesis", "GetRecords"): [],
    ("s3", "PutObject"): [],
    ("s3", "GetObject"): [],
}


def faults():
    """(service, operation, fault), of all that is to strike."""
    return [
        (service, operation, fault)
        for (service, operation), more in REQUESTS.items()
        for fault in ["throttled", "broken", "reset", "cut", *more]
    ]


def rules(seed):
    draw = random.Random(seed)
    return [rule(*fault, draw) for fault in faults()]


def rule(service, operation, fault, draw):
    strikes = {"fail": draw.randint(1, 2), "pass": draw.randint(5, 12)}
    common = {"service": service, "operation": operation, "sequence": strikes}
    if fault == "throttled":
        return {**common, "error": {"code": THROTTLED[service], **({"status": 503} if service == "s3" else {})}}
    if fault == "broken":
        return {**common, "error": {"code": BROKEN[service], "status": 500}}
    if fault == "conflict":
        return {**common, "error": {"code": "TransactionConflictException"}}
    if fault == "reset":
        return {**common, "reset": True}
    return {**common, "response": {"abort_bytes": 0}}


def strikes(service, operation, fault):
    """Whether a line of microburst's metrics, (service, operation, action), is of this fault."""
    action = {
        "throttled": f"error:{THROTTLED[service]}",
        "broken": f"error:{BROKEN[service]}",
        "conflict": "error:TransactionConflictException",
        "reset": "reset",
        "cut": "response:abort",
    }[fault]
    return lambda *at: at == (service, operation, action)
