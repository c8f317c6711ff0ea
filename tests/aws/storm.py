"""Faults between the functions and AWS, as microburst's rules.

| fault | what AWS or the network does |
| --- | --- |
| throttled | refuses for capacity; the code is the service's own |
| broken | answers 500 |
| conflict | refuses a write of an item that a transaction holds |
| reset | the connection ends before the request is forwarded: nothing was done |
| cut | the request is done, and the connection ends before its answer: done, and the client does not know |

Each rule strikes a request with a probability, drawn from the seed that microburst was started with; which request meets which fault
depends on the moment all the same, as requests of functions interleave.
"""

THROTTLED = {"dynamodb": "ProvisionedThroughputExceededException", "kinesis": "ProvisionedThroughputExceededException", "s3": "SlowDown"}
BROKEN = {"dynamodb": "InternalServerError", "kinesis": "InternalFailure", "s3": "InternalError"}

ALL = ["throttled", "broken", "reset", "cut"]

# The requests by which the functions change something, or that they make for each batch: (service, operation) to faults.
REQUESTS = {
    ("dynamodb", "UpdateItem"): [*ALL, "conflict"],
    ("dynamodb", "PutItem"): ALL,
    ("kinesis", "PutRecords"): ALL,
    ("kinesis", "GetRecords"): ALL,
    ("s3", "PutObject"): ALL,
    ("s3", "GetObject"): ALL,
}
# And all others, by service.
SERVICES = ["dynamodb", "kinesis", "s3"]


def faults():
    """(service, operation, fault) of those that must have struck."""
    return [(*request, fault) for request, kinds in REQUESTS.items() for fault in kinds]


def rules(rough, surely):
    """Rough: a third of the requests fails, so that some do as often as the SDK tries them, and hardly a long run gets through. Else one
    in ten, and most runs do. Before that, each fault in `surely` strikes the next request that it can, once."""
    of_each, of_all = (0.08, 0.01) if rough else (0.02, 0.005)
    once = [rule({"service": service, "operation": operation}, fault, times=1) for service, operation, fault in surely]
    some = [rule({"service": service, "operation": operation}, fault, probability=of_each) for service, operation, fault in faults()]
    # Behind the others: what reaches these is a request of another operation, or one that the others let pass.
    rest = [rule({"service": service}, fault, probability=of_all) for service in SERVICES for fault in ALL]
    return once + some + rest


def rule(requests, fault, **when):
    service = requests["service"]
    kind = requests | when
    if fault == "reset":
        return kind | {"reset": True}
    if fault == "cut":
        return kind | {"response": {"abort_bytes": 0}}
    code, status = {
        "throttled": (THROTTLED[service], 503 if service == "s3" else 400),
        "broken": (BROKEN[service], 500),
        "conflict": ("TransactionConflictException", 400),
    }[fault]
    return kind | {"error": {"code": code, "status": status}}


def struck(fault, metrics):
    """How often a fault struck, by microburst's metrics: (service, operation, action) to a number."""
    service, operation, kind = fault
    action = {
        "throttled": f"error:{THROTTLED[service]}",
        "broken": f"error:{BROKEN[service]}",
        "conflict": "error:TransactionConflictException",
        "reset": "reset",
        "cut": "response:abort",
    }[kind]
    return metrics.get((service, operation, action), 0)
