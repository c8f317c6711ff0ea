//! What must hold of a deployment, and what puts it right.
//!
//! | check | must be | else |
//! | --- | --- | --- |
//! | capture | the source table's destination is our stream and ACTIVE, or a relay's mapping is enabled; never both | changes are lost; or each counts twice, for the two give different event IDs |
//! | relay mapping: source, view | the table's present stream, with both images | changes are lost, or their fold is |
//! | precision | MICROSECOND | changes within a millisecond cannot be told apart by time |
//! | retention | `ledger_days` more than it and two days | a record could come again when its key is forgotten |
//! | mapping: window | 1 s or more | many small batches, each paid for |
//! | mapping: failures reported, batches halved | yes | one bad record takes its batch along |
//! | mapping: retries, age | bounded, the age below the stream's retention | one bad record blocks its shard until it expires, with its neighbours |
//! | mapping: parallelization | 1 | progress would not be one position in a shard |
//! | mapping: start | not LATEST | what came while it was made is never read |
//! | mapping: on-failure destination | there | what is given up is gone |
//! | mapping: filters, tumbling window | none | what is filtered is archived and never counted |
//! | tables | ACTIVE, our keys; point-in-time recovery; the ledger's items expire by `expires`, no others do | |
//! | bucket | versioned, private; nothing in the archive expires by age | |
//! | bucket: policy | under `_log/` nobody may delete, nor put without `If-None-Match` | whoever has the right to write can change the history; the chain of digests shows it, and keeps nobody from it |
//! | partitions | each at its month's version | readers by location see old files, and compaction waits |
//! | definition | one hash everywhere | |
//! | clock | within a minute | requests are refused at five minutes; a creation time far ahead is quarantined |

use std::fmt::Display;

use recount_schemas::definition::least_ledger_days;
use recount_schemas::terminal::plural;

use super::facts::{Destination, Fact, Facts, Mapping, Placed, Stream, Table};
use super::{Check, Outcome};

/// How far our clock may be from AWS's, ms.
const CLOCK_MS: i64 = 60_000;
/// How long DynamoDB Streams keep changes, hours.
const RELAY_HOURS: u32 = 24;
/// Parts of the bucket whose objects must not expire by age. In a set they are below `sets/`.
const KEPT: [&str; 12] = [
    "_catalog/",
    "_log/",
    "_staging/",
    "_switch/",
    "events/",
    "quarantine/",
    "conflicts/",
    "redriven/",
    "plans/",
    "backfills/",
    "replays/",
    "sets/",
];

/// All checks, in the way of the data.
pub fn check(facts: &Facts) -> Vec<Check> {
    let mut checks = Checks(Vec::new());
    checks.table("source table", &facts.source, |checks, table| {
        let names: Vec<&str> = table.key.iter().map(|(name, _)| name.as_str()).collect();
        let cure = "correct [source] key in the definition; it is part of what identifies a change";
        checks.must("source table: key", facts.source_key.iter().eq(&names), names.join(", "), cure);
    });
    capture(&mut checks, facts);
    checks.seen("stream", &facts.stream, |checks, stream| retention(checks, stream, facts.ledger_days));
    checks.seen("consumer mapping", &facts.consumer, |checks, mapping| {
        reads_stream(checks, mapping, &facts.stream);
        let kept = facts.stream.seen().map(|stream| stream.retention_hours);
        self::mapping(checks, "consumer mapping", mapping, kept.unwrap_or(u32::MAX));
    });
    checks.table("totals table", &facts.totals, |checks, table| ours(checks, "totals table", table, "S", None));
    checks.table("ledger table", &facts.ledger, |checks, table| {
        ours(checks, "ledger table", table, "B", Some("expires"))
    });
    checks.table("progress table", &facts.progress, |checks, table| ours(checks, "progress table", table, "S", None));
    bucket(&mut checks, facts);
    checks.seen("partitions", &facts.partitions, partitions);
    definitions(&mut checks, facts);
    checks.seen("clock", &facts.clock_ms, |checks, ms| {
        let cure = "set this machine's clock by NTP";
        checks.must("clock", ms.abs() <= CLOCK_MS, format!("{} s from AWS's", ms / 1_000), cure);
    });
    checks.0
}

struct Checks(Vec<Check>);

impl Checks {
    fn push(&mut self, what: &str, outcome: Outcome, found: impl Display, cure: &str) {
        let cure = if outcome == Outcome::Fine { String::new() } else { cure.to_owned() };
        self.0.push(Check { what: what.to_owned(), outcome, found: found.to_string(), cure });
    }

    /// What must hold.
    fn must(&mut self, what: &str, holds: bool, found: impl Display, cure: &str) {
        self.push(what, if holds { Outcome::Fine } else { Outcome::Wrong }, found, cure);
    }

    /// What holds of a fact, where it could be seen.
    fn seen<T>(&mut self, what: &str, fact: &Fact<T>, then: impl FnOnce(&mut Self, &T)) {
        match fact {
            Fact::Is(value) => then(self, value),
            Fact::Absent(why) => self.push(what, Outcome::NotChecked, why, ""),
            Fact::Unseen(why) => self.push(what, Outcome::Undecided, why, "allow it to be read, or try again"),
        }
    }

    fn table(&mut self, what: &str, fact: &Fact<Table>, then: impl FnOnce(&mut Self, &Table)) {
        self.seen(what, fact, |checks, table| {
            let there = matches!(table.status.as_str(), "ACTIVE" | "UPDATING");
            checks.must(what, there, &table.status, "wait, or restore it: infra/runbooks says how");
            if there {
                then(checks, table);
            }
        });
    }
}

/// Either way of capture, and not both.
fn capture(checks: &mut Checks, facts: &Facts) {
    let stream = facts.stream.seen().map(|stream| stream.arn.as_str());
    // Where the stream cannot be seen, any destination may be it.
    let to_ours = |destination: &&Destination| stream.is_none_or(|arn| arn == destination.stream);
    let on = |status: &str| matches!(status, "ACTIVE" | "ENABLING" | "UPDATING");
    let destination = facts.destinations.seen().and_then(|all| all.iter().find(|d| to_ours(d) && on(&d.status)));
    let relay = facts.relay.seen().and_then(Option::as_ref).filter(|mapping| mapping.state.starts_with("Enabl"));
    let table = &facts.source_name;
    match (destination, relay) {
        (Some(_), Some(_)) => checks.push(
            "capture",
            Outcome::Wrong,
            format_args!("{table} sends its changes to the stream, and so does the relay: each counts twice"),
            "turn one of them off; the two ways give a change different event IDs. Then `recount audit` names what counted twice",
        ),
        (Some(destination), None) => {
            checks.must("capture", destination.status == "ACTIVE", &destination.status, "wait until it is ACTIVE");
            let precision = destination.precision.as_deref();
            checks.must(
                "capture: precision",
                precision == Some("MICROSECOND"),
                precision.unwrap_or("not said: MILLISECOND where the API or the command line enabled it"),
                "aws dynamodb update-kinesis-streaming-destination … ApproximateCreationDateTimePrecision=MICROSECOND",
            );
            // That one way is on says nothing of the other.
            checks.seen("capture: no relay beside it", &facts.relay, |_, _| {});
        }
        (None, Some(mapping)) => {
            checks.push("capture", Outcome::Fine, "by the relay", "");
            checks.seen("capture: no destination beside it", &facts.destinations, |_, _| {});
            checks.seen("relay mapping: source", &facts.source, |checks, table| relays(checks, mapping, table));
            self::mapping(checks, "relay mapping", mapping, RELAY_HOURS);
        }
        (None, None) => match (&facts.destinations, &facts.relay) {
            (Fact::Unseen(why), _) | (_, Fact::Unseen(why)) => {
                checks.push("capture", Outcome::Undecided, why, "allow it to be read, or try again");
            }
            // A relay may run where it cannot be looked at, as in local mode, or where no stack is named.
            (Fact::Absent(why), _) | (_, Fact::Absent(why)) => checks.push("capture", Outcome::NotChecked, why, ""),
            (Fact::Is(all), Fact::Is(_)) => {
                let found = match all.as_slice() {
                    [] => format!("{table} sends its changes to no stream, and no relay is enabled"),
                    some => {
                        let told = some.iter().map(|d| format!("{} ({})", d.stream, d.status));
                        format!("{table} does not send its changes to our stream: {}", told.collect::<Vec<_>>().join(", "))
                    }
                };
                let cure = "aws dynamodb enable-kinesis-streaming-destination with precision MICROSECOND; then `recount audit`, and \
                            `recount backfill` for what was never captured";
                checks.push("capture", Outcome::Wrong, found, cure);
            }
        },
    }
}

/// What the relay reads is what the table writes now.
fn relays(checks: &mut Checks, mapping: &Mapping, table: &Table) {
    let stream = table.stream.as_ref();
    let found = stream.map_or_else(
        || "the table's stream is off".to_owned(),
        |stream| format!("{}; the table's stream is {}", mapping.source, stream.arn),
    );
    let reads = stream.is_some_and(|stream| stream.arn == mapping.source);
    let cure = "map the relay to the table's present stream (SourceTableStreamArn); then `recount audit` and `recount backfill`";
    checks.must("relay mapping: source", reads, found, cure);
    if let Some(stream) = stream {
        let cure = "turn the table's stream off and on with NEW_AND_OLD_IMAGES, and map the relay to the new one";
        checks.must("relay mapping: view", stream.view == "NEW_AND_OLD_IMAGES", &stream.view, cure);
    }
}

fn retention(checks: &mut Checks, stream: &Stream, ledger_days: u16) {
    let there = matches!(stream.status.as_str(), "ACTIVE" | "UPDATING");
    checks.must("stream", there, &stream.status, "wait, or see why it is gone");
    if !there {
        return;
    }
    let fits = u32::from(ledger_days) >= least_ledger_days(stream.retention_hours);
    let found = format!("{} hours, and ledger_days = {ledger_days}", stream.retention_hours);
    let cure =
        "shorten the retention, or rebuild with more ledger_days: they must be more than the retention and 2 days";
    checks.must("stream: retention", fits, found, cure);
}

fn reads_stream(checks: &mut Checks, mapping: &Mapping, stream: &Fact<Stream>) {
    // An enhanced fan-out consumer's ARN begins with the stream's.
    let Some(stream) = stream.seen() else { return };
    let ours = mapping.source.strip_prefix(&stream.arn).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    checks.must("consumer mapping: source", ours, &mapping.source, "map the consumer to the stream that is archived");
}

/// `kept`: how many hours its stream keeps records.
fn mapping(checks: &mut Checks, what: &str, mapping: &Mapping, kept: u32) {
    let mut must = |of: &str, holds: bool, found: &dyn Display, cure: &str| {
        checks.must(&format!("{what}: {of}"), holds, found, cure);
    };
    let number = |n: Option<i32>| n.map_or_else(|| "not said".to_owned(), |n| n.to_string());
    must("state", mapping.state == "Enabled", &mapping.state, "enable it; records wait in the stream meanwhile");
    let window = mapping.window_seconds;
    must("batch window", window.is_some_and(|s| s >= 1), &number(window), "MaximumBatchingWindowInSeconds: 1 or more");
    let reports = mapping.reports_failures;
    must("reports failures", reports, &reports, "FunctionResponseTypes: [ReportBatchItemFailures]");
    must("bisects", mapping.bisects, &mapping.bisects, "BisectBatchOnFunctionError: true");
    let retries = mapping.retries;
    must("retries", retries.is_some_and(|n| n >= 1), &number(retries), "MaximumRetryAttempts: 1 or more, not -1");
    let age = mapping.record_age_seconds;
    let bounded = age.is_some_and(|seconds| seconds > 0 && i64::from(seconds) < i64::from(kept) * 3_600);
    must(
        "record age",
        bounded,
        &number(age),
        "MaximumRecordAgeInSeconds: bounded, and less than the stream's retention",
    );
    let parallel = mapping.parallelization;
    must("parallelization", parallel.is_none_or(|n| n == 1), &number(parallel), "ParallelizationFactor: 1");
    let starts = mapping.starts_at.as_str();
    must(
        "start",
        matches!(starts, "TRIM_HORIZON" | "AT_TIMESTAMP"),
        &starts,
        "make it anew with StartingPosition: TRIM_HORIZON",
    );
    let on_failure = mapping.on_failure.as_deref();
    must(
        "on-failure destination",
        on_failure.is_some(),
        &on_failure.unwrap_or("none"),
        "DestinationConfig: OnFailure: the bucket",
    );
    must("filters", mapping.filters == 0, &mapping.filters, "remove FilterCriteria: the archive has none");
    let tumbling = mapping.tumbling_seconds.unwrap_or(0);
    must("tumbling window", tumbling == 0, &tumbling, "TumblingWindowInSeconds: 0");
}

fn ours(checks: &mut Checks, what: &str, table: &Table, sort: &str, expires_by: Option<&str>) {
    let key: Vec<(&str, &str)> = table.key.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let told: Vec<String> = key.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    let cure = "make the table by infra/aws/template.yaml";
    checks.must(&format!("{what}: key"), key == [("pk", "S"), ("sk", sort)], told.join(", "), cure);
    checks.seen(&format!("{what}: recovery"), &table.recovery, |checks, on| {
        let found = if *on { "point-in-time recovery is on" } else { "point-in-time recovery is off" };
        checks.must(&format!("{what}: recovery"), *on, found, "turn on point-in-time recovery");
    });
    let expiry = format!("{what}: expiry");
    checks.seen(&expiry, &table.expires_by, |checks, by| {
        let (cure, wanted) = match expires_by {
            Some(attribute) => {
                ("turn on time to live by `expires`: without it the ledger grows for ever", Some(attribute))
            }
            None => ("turn off time to live: nothing in this table may expire", None),
        };
        checks.must(&expiry, by.as_deref() == wanted, by.as_deref().unwrap_or("none"), cure);
    });
}

fn bucket(checks: &mut Checks, facts: &Facts) {
    let bucket = &facts.bucket;
    checks.seen("bucket", &bucket.lists, |checks, ()| checks.push("bucket", Outcome::Fine, "can be listed", ""));
    checks.seen("bucket: versions", &bucket.versioned, |checks, on| {
        let cure = "turn on versioning: without it an overwritten or deleted file is gone";
        checks.must("bucket: versions", *on, if *on { "kept" } else { "not kept" }, cure);
    });
    checks.seen("bucket: public access", &bucket.private, |checks, blocked| {
        let found = if *blocked { "blocked" } else { "not blocked in all four ways" };
        checks.must("bucket: public access", *blocked, found, "block all public access");
    });
    checks.seen("bucket: expiry", &bucket.expires, |checks, prefixes| {
        let touches =
            |prefix: &&String| KEPT.iter().any(|kept| kept.starts_with(prefix.as_str()) || prefix.starts_with(kept));
        let bad: Vec<&str> = prefixes.iter().filter(touches).map(String::as_str).collect();
        let found = match bad.as_slice() {
            [] => "nothing of the archive".to_owned(),
            bad => bad.iter().map(|prefix| format!("{prefix}*")).collect::<Vec<_>>().join(", "),
        };
        let cure = "remove the lifecycle rules by which present objects of the archive expire";
        checks.must("bucket: expiry", bad.is_empty(), found, cure);
    });
    checks.seen("bucket: policy", &bucket.policy, |checks, policy| {
        let found = |denied: bool| if denied { "denied to everybody" } else { "not denied to everybody" };
        let cure = "put the policy of infra/aws/template.yaml on the bucket (BucketPolicy): it denies this under _log/ and sets/*/_log/";
        checks.must("bucket: deleting from the log", policy.kept, found(policy.kept), cure);
        checks.must("bucket: overwriting in the log", policy.append_only, found(policy.append_only), cure);
    });
    checks.seen("log", &facts.log, |checks, entries| checks.push("log", Outcome::Fine, plural(*entries, "entry"), ""));
}

#[allow(clippy::ptr_arg)] // it is what a fact holds
fn partitions(checks: &mut Checks, months: &Vec<Placed>) {
    let behind = |placed: &&Placed| placed.shown.as_ref().is_none_or(|shown| shown.version != placed.version);
    let wrong: Vec<String> = months
        .iter()
        .filter(behind)
        .map(|placed| match &placed.shown {
            Some(shown) => format!("{} shows version {}, not {}", placed.month, shown.version, placed.version),
            None => format!("{} is not there", placed.month),
        })
        .collect();
    let found = match wrong.as_slice() {
        [] => format!("{}, each at its version", plural(months.len() as u64, "month")),
        wrong => wrong.join("; "),
    };
    checks.must(
        "partitions",
        wrong.is_empty(),
        found,
        "run `recount compact --confirm`, or wait for the daily compaction: it moves them",
    );
}

fn definitions(checks: &mut Checks, facts: &Facts) {
    let ours = &facts.definition;
    for (part, fact) in &facts.definitions {
        let what = format!("definition: {part}");
        checks.seen(&what, fact, |checks, hash| match hash {
            None => checks.push(&what, Outcome::NotChecked, "it has none yet", ""),
            Some(hash) => {
                let cure = "deploy all parts with one definition; another definition for totals that are there is `recount rebuild`";
                let found = if hash == ours { hash.clone() } else { format!("{hash}, not {ours}") };
                checks.must(&what, hash == ours, found, cure);
            }
        });
    }
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
