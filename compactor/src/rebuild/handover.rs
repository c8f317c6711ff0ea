//! What is left to the operator behind a rebuild: a second consumer and a second schedule, as commands, then the switch.
//!
//! The new consumer begins before the moment of the seed, never behind it: what it is given twice its ledger knows, what it is
//! never given is lost to it. Where the seed knows how far the shards had been read at which time, that is `AT_TIMESTAMP` with a margin;
//! else it is `TRIM_HORIZON`, all that the stream still has.

use recount_schemas::Home;

use super::{RebuildError, Report, seed_of};
use crate::context::Context;
use crate::log::{Entry, Seed};

/// How long before the seed's moment the consumer begins, in ms: Kinesis stamps records to about a second, clocks differ by some.
const MARGIN_MS: i64 = 15 * 60_000;

/// Where the new consumer must begin, ms since 1970; `None`: at the oldest record.
fn starting_ms(entry: &Entry, seed: &Seed) -> Option<i64> {
    let open = seed.streams.values().flat_map(|end| end.shards.values()).filter(|end| !end.closed);
    let times: Option<Vec<i64>> = open.map(|end| end.caught_up_ms).collect();
    // Where no shard was open, nothing is known of those that came after them.
    Some(times?.into_iter().min()?.min(entry.at_ms).saturating_sub(MARGIN_MS))
}

/// What to do next.
pub async fn next(target: &Context, report: &Report) -> Result<Vec<String>, RebuildError> {
    let Home::Set(name) = target.home() else { return Ok(Vec::new()) };
    let Some((entry, _)) = seed_of(target).await? else {
        return Ok(vec![format!("recount rebuild --into {name} --confirm")]);
    };
    let loaded = report.plan.loaded || report.loaded.is_some();
    if !loaded {
        return Ok(vec![format!("recount rebuild --into {name} --confirm    goes on where it was broken off")]);
    }
    let Some(seed) = &entry.seed else { return Ok(Vec::new()) };
    let newest = seed.streams.keys().max_by_key(|stream| stream.created_ms);
    let arn = newest.map_or("STREAM-ARN", |stream| stream.arn.as_str());
    let begin = match starting_ms(&entry, seed) {
        Some(ms) => format!("--starting-position AT_TIMESTAMP --starting-position-timestamp {}", ms.div_euclid(1_000)),
        None => "--starting-position TRIM_HORIZON".to_owned(),
    };
    let toml = target.bucket.uri(super::home::DEFINITION);
    Ok(vec![
        format!(
            "deploy a second consumer and a second compactor as the first ones are, with RECOUNT_SET={name} and \
             RECOUNT_DEFINITION_TOML the text of {toml} (local mode does this and the next by itself)"
        ),
        format!(
            "aws lambda create-event-source-mapping --function-name CONSUMER-OF-{name} --event-source-arn {arn} {begin} \
             --function-response-types ReportBatchItemFailures --parallelization-factor 1 --bisect-batch-on-function-error, and the \
             first one's batch size, window, retries (--maximum-retry-attempts), age (--maximum-record-age-in-seconds), on-failure \
             destination and metrics: `aws lambda get-event-source-mapping` shows them"
        ),
        format!("recount --set {name} reconcile    until it is clean and `recount sets` says that nothing is behind"),
        format!(
            "recount rebuild --into {name} --compare    holds it against {}, also what was backfilled, redriven or erased there since",
            report.plan.from
        ),
        format!(
            "recount switch --to {name} --confirm    and back with `recount switch --to {} --confirm`",
            report.plan.from
        ),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::log::state::StreamEnd;
    use crate::log::{ShardEnd, Stream};

    #[test]
    fn the_consumer_begins_before_all_that_the_seed_has_not_read() {
        let seed = |ends: &[(bool, Option<i64>)]| Seed {
            from: Home::Base,
            entries: 1,
            head: None,
            streams: BTreeMap::from([(
                Stream { arn: "a".into(), created_ms: 1 },
                StreamEnd {
                    retention_hours: None,
                    shards: (0..)
                        .zip(ends)
                        .map(|(i, (closed, caught_up_ms)): (u32, _)| {
                            let end = ShardEnd { to: None, closed: *closed, caught_up_ms: *caught_up_ms };
                            (format!("s{i}").parse().unwrap(), end)
                        })
                        .collect(),
                },
            )]),
            lost: Vec::new(),
        };
        let at = |at_ms: i64, ends: &[(bool, Option<i64>)]| {
            let text = format!(
                r#"{{"format":2,"n":0,"kind":"seed","previous":null,"at_ms":{at_ms},"definition":"d","token":"a","base":0}}"#
            );
            starting_ms(&serde_json::from_str(&text).unwrap(), &seed(ends))
        };
        let hour = 3_600_000;
        assert_eq!(
            at(9 * hour, &[(false, Some(5 * hour)), (false, Some(4 * hour)), (true, Some(hour))]),
            Some(4 * hour - MARGIN_MS)
        );
        assert_eq!(at(9 * hour, &[(false, Some(10 * hour))]), Some(9 * hour - MARGIN_MS));
        assert_eq!(at(9 * hour, &[(false, Some(5 * hour)), (false, None)]), None, "one of which nothing is known");
        assert_eq!(at(9 * hour, &[(true, Some(hour))]), None, "whose children it has not seen");
    }
}
