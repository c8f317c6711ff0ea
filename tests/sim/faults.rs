//! What can go wrong, by name, and what AWS says when it does.

use std::collections::BTreeSet;
use std::fmt;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;

/// One kind of thing that can go wrong. A history has a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Answers take long, and overtake each other.
    Latency,
    /// A request is refused for its rate.
    Throttle,
    /// A service fails: status 500, before or after it did what it was asked.
    ServerError,
    /// The connection breaks before the request has its effect.
    ResetBefore,
    /// The request has its effect, and its answer is lost.
    LostAnswer,
    /// The request arrives much later than its sender waits for.
    LateRequest,
    /// DynamoDB refuses an item's write because of a transaction on it.
    TransactionConflict,
    /// PutRecords and BatchWriteItem do part of what they are asked.
    Partial,
    /// DynamoDB answers a read that may be stale with what was true before.
    StaleRead,
    /// An object's bytes end too soon.
    Truncated,
    /// S3 refuses a conditional put because of another one (409).
    Conflict,
    /// A service is not to be had for minutes.
    Brownout,
    /// Quarantine cannot be written for hours.
    QuarantineDown,
    /// The consumer dies at any time.
    ConsumerDies,
    /// The relay dies at any time.
    RelayDies,
    /// The compactor dies at any time.
    CompactorDies,
    /// The operator's command dies at any time.
    OperatorDies,
    /// The operator's requests are slow: much happens between two of them.
    SlowOperator,
    /// Months are compacted while all goes on, sometimes two at a time.
    Compaction,
    /// A process stands still and wakes up late.
    Freeze,
    /// A batch is worked on twice at once.
    TwoConsumers,
    /// Two compactors run at once.
    TwoCompactors,
    /// Batches come again, cut differently; answers of the function are lost.
    Redelivery,
    /// The source writes a change twice.
    Duplicate,
    /// The source writes a change twice with different content.
    Variant,
    /// Changes come hours late.
    Late,
    /// Changes come months late.
    Ancient,
    /// Records that nobody can read.
    Poison,
    /// Shards are split and merged.
    Reshard,
    /// The stream drops records before the compactor has read them.
    Trim,
    /// The stream is deleted and made anew.
    NewStream,
    /// Clocks are off, and jump.
    Skew,
    /// Somebody starts a part with another definition.
    OtherDefinition,
    /// Somebody edits totals and ledger; repair puts it right.
    Damage,
    /// A reader of the stream stands still until its iterator has expired.
    ExpiredIterator,
    /// Kinesis answers with no record, though there are some (200, and how far behind the tip it is).
    EmptyPage,
    /// A copy fails after S3 has begun its answer: status 200, and an error for a body.
    ErrorInOk,
    /// The relay is off for longer than DynamoDB keeps the table's stream.
    RelayOff,
}

use Fault::*;

impl Fault {
    pub const ALL: [Self; 38] = [
        Latency,
        Throttle,
        ServerError,
        ResetBefore,
        LostAnswer,
        LateRequest,
        TransactionConflict,
        Partial,
        StaleRead,
        Truncated,
        Conflict,
        Brownout,
        QuarantineDown,
        ConsumerDies,
        RelayDies,
        CompactorDies,
        OperatorDies,
        SlowOperator,
        Compaction,
        Freeze,
        TwoConsumers,
        TwoCompactors,
        Redelivery,
        Duplicate,
        Variant,
        Late,
        Ancient,
        Poison,
        Reshard,
        Trim,
        NewStream,
        Skew,
        OtherDefinition,
        Damage,
        // Later ones go behind: so a seed keeps the others that it drew.
        ExpiredIterator,
        EmptyPage,
        ErrorInOk,
        RelayOff,
    ];

    /// The faults of a single request.
    pub const OF_REQUESTS: [Self; 13] = [
        Throttle,
        ServerError,
        ResetBefore,
        LostAnswer,
        LateRequest,
        TransactionConflict,
        Partial,
        StaleRead,
        Truncated,
        Conflict,
        ExpiredIterator,
        EmptyPage,
        ErrorInOk,
    ];

    /// Whether it can strike such a request.
    pub fn strikes(self, call: &Call) -> bool {
        match self {
            Throttle | ServerError | ResetBefore | LostAnswer | LateRequest => true,
            TransactionConflict => matches!(call.operation.as_str(), "UpdateItem" | "PutItem" | "DeleteItem"),
            Partial => matches!(call.operation.as_str(), "PutRecords" | "BatchWriteItem"),
            StaleRead => matches!(call.operation.as_str(), "GetItem" | "Query" | "Scan") && !call.consistent,
            Truncated => call.service == Service::S3 && call.operation == "GET",
            Conflict => call.service == Service::S3 && call.conditional,
            ExpiredIterator | EmptyPage => call.operation == "GetRecords",
            ErrorInOk => call.copies,
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}");
        for (i, letter) in name.chars().enumerate() {
            if letter.is_ascii_uppercase() && i > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

/// Named sets of faults: `--scenario NAME`. Every fault is a scenario of its own, too.
pub const SCENARIOS: [(&str, &[Fault]); 8] = [
    ("calm", &[]),
    (
        "network",
        &[
            Latency,
            Throttle,
            ServerError,
            ResetBefore,
            LostAnswer,
            LateRequest,
            TransactionConflict,
            Partial,
            StaleRead,
            Truncated,
            Conflict,
            Brownout,
            ExpiredIterator,
            EmptyPage,
            ErrorInOk,
        ],
    ),
    (
        "crashes",
        &[
            Latency,
            LostAnswer,
            LateRequest,
            ConsumerDies,
            RelayDies,
            CompactorDies,
            OperatorDies,
            Freeze,
            TwoConsumers,
            TwoCompactors,
            Redelivery,
        ],
    ),
    ("source", &[Latency, Duplicate, Variant, Late, Ancient, Poison, QuarantineDown, Redelivery]),
    ("resharding", &[Latency, LostAnswer, Reshard, CompactorDies, TwoCompactors, Redelivery, Duplicate]),
    (
        "compaction",
        &[
            Latency,
            LostAnswer,
            LateRequest,
            ServerError,
            Compaction,
            CompactorDies,
            TwoCompactors,
            Freeze,
            Duplicate,
            Late,
            ErrorInOk,
        ],
    ),
    ("losses", &[Latency, Trim, Reshard, CompactorDies, ExpiredIterator, EmptyPage, RelayOff]),
    ("edits", &[Latency, LostAnswer, Throttle, OperatorDies, SlowOperator, Redelivery, Damage]),
];

/// The faults of a scenario.
pub fn scenario(name: &str) -> Option<BTreeSet<Fault>> {
    let named = SCENARIOS.iter().find(|(known, _)| *known == name).map(|(_, faults)| faults.iter().copied().collect());
    named.or_else(|| Fault::ALL.into_iter().find(|fault| fault.to_string() == name).map(|fault| [fault].into()))
}

/// Which service a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    DynamoDb,
    Kinesis,
    S3,
}

/// A request, as far as faults and trace look at it.
#[derive(Debug, Clone)]
pub struct Call {
    pub service: Service,
    /// The operation; of S3 the method.
    pub operation: String,
    /// What it is about, for the trace.
    pub about: String,
    /// A read that must not be stale.
    pub consistent: bool,
    /// A write that must not replace anything.
    pub conditional: bool,
    /// A CopyObject.
    pub copies: bool,
}

impl Call {
    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        let of_tables = ["Put", "Update", "Delete", "BatchWrite"].iter().any(|name| self.operation.starts_with(name));
        of_tables || matches!(self.operation.as_str(), "PUT" | "DELETE" | "POST")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.about)
    }
}

fn json(status: u16, kind: &str, message: &str) -> HttpResponse {
    let body = format!(r#"{{"__type":"{kind}","message":"{message}"}}"#);
    let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
    response.headers_mut().insert("content-type", "application/x-amz-json-1.1");
    response
}

fn xml(status: u16, code: &str) -> HttpResponse {
    let declared = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
    let body = format!("{declared}<Error><Code>{code}</Code><Message>as the simulation wants it</Message></Error>");
    HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body))
}

/// The service's way of saying "too fast". `n` chooses between those that there are.
pub fn throttled(service: Service, n: u64) -> HttpResponse {
    match (service, n % 3) {
        (Service::DynamoDb, 0) => json(
            400,
            "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
            "The level of configured provisioned throughput for the table was exceeded.",
        ),
        (Service::DynamoDb, 1) => json(
            400,
            "com.amazonaws.dynamodb.v20120810#ThrottlingException",
            "Throughput exceeds the current capacity.",
        ),
        (Service::DynamoDb, _) => {
            json(400, "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded", "Throughput exceeds the account limit.")
        }
        (Service::Kinesis, 0) => json(400, "LimitExceededException", "Rate exceeded"),
        (Service::Kinesis, _) => json(400, "ProvisionedThroughputExceededException", "Rate exceeded for shard"),
        (Service::S3, _) => xml(503, "SlowDown"),
    }
}

/// The service's way of saying that it failed.
pub fn failed(service: Service, n: u64) -> HttpResponse {
    match (service, n % 2) {
        (Service::DynamoDb, _) => json(500, "com.amazonaws.dynamodb.v20120810#InternalServerError", "internal"),
        (Service::Kinesis, _) => json(500, "InternalFailure", "internal"),
        (Service::S3, 0) => xml(500, "InternalError"),
        (Service::S3, _) => xml(503, "ServiceUnavailable"),
    }
}

/// DynamoDB's refusal because of a transaction.
pub fn transaction_conflict() -> HttpResponse {
    json(400, "com.amazonaws.dynamodb.v20120810#TransactionConflictException", "Transaction is ongoing for the item")
}

/// A copy that failed when S3 had sent its status already: a 200 may hold an error (API reference, CopyObject).
pub fn error_in_ok(n: u64) -> HttpResponse {
    xml(200, if n % 2 == 0 { "InternalError" } else { "SlowDown" })
}

/// S3's refusal because of another conditional put.
pub fn conflict() -> HttpResponse {
    xml(409, "ConditionalRequestConflict")
}
