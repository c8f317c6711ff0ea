//! Change records as Kinesis Data Streams for DynamoDB writes them, made from the lives of items.

use super::naive::{Scan, rfc3339};

/// A change of an item, with its record.
#[derive(Clone, Debug)]
pub struct Change {
    pub event_id: String,
    pub partition_key: String,
    pub new: Option<Scan>,
    pub old: Option<Scan>,
    pub json: String,
}

/// An item's image. The name has what breaks careless encoders.
pub fn image(id: &str, scan: &Scan) -> String {
    format!(
        r#"{{"scan_id":{{"S":"{id}"}},"project_id":{{"S":{}}},"file_name":{{"S":"r\u00e9sum\u00e9 \"{id}\" \ud83e\udd80.pdf"}},"bytes":{{"N":"{}"}},"scanned_at":{{"S":"{}"}}}}"#,
        serde_json::to_string(&scan.project).unwrap(),
        scan.bytes,
        rfc3339(scan.at),
    )
}

/// The record of one change of item `id`, created at `created_us`.
pub fn change(event_id: &str, id: &str, new: Option<&Scan>, old: Option<&Scan>, created_us: i64) -> Change {
    let name = match (new, old) {
        (Some(_), None) => "INSERT",
        (Some(_), Some(_)) => "MODIFY",
        (None, _) => "REMOVE",
    };
    let mut images = String::new();
    for (member, scan) in [("NewImage", new), ("OldImage", old)] {
        if let Some(scan) = scan {
            images.push_str(&format!(r#","{member}":{}"#, image(id, scan)));
        }
    }
    let json = format!(
        r#"{{"awsRegion":"us-east-1","eventID":"{event_id}","eventName":"{name}","userIdentity":null,"recordFormat":"application/json","tableName":"scans","dynamodb":{{"ApproximateCreationDateTime":{created_us},"Keys":{{"scan_id":{{"S":"{id}"}}}}{images},"SizeBytes":100,"ApproximateCreationDateTimePrecision":"MICROSECOND"}},"eventSource":"aws:dynamodb"}}"#
    );
    Change { event_id: event_id.to_owned(), partition_key: id.to_owned(), new: new.cloned(), old: old.cloned(), json }
}

/// The lives of `items` items, interleaved: insertions, updates that move them between projects and months, deletions.
/// Event times crowd around the ends of months and years in `naive::ZONE`. Creation times are the last `spread_s` seconds before `now_us`.
pub fn lives(rng: &mut fastrand::Rng, items: usize, now_us: i64, spread_s: i64) -> Vec<Change> {
    // Ends of months around which the clocks change, and of a year; in seconds, UTC.
    const ENDS: [i64; 5] = [1_767_222_000, 1_774_994_400, 1_793_487_600, 1_796_079_600, 1_798_758_000];
    let scan = |rng: &mut fastrand::Rng| Scan {
        project: ["acme", "globex \"quoted\"", "initech 🦀", "umbrella,#1"][rng.usize(0..4)].to_owned(),
        at: ENDS[rng.usize(0..ENDS.len())] + rng.i64(-7_300..7_300),
        bytes: rng.i64(0..10_000),
    };
    let mut changes = Vec::new();
    for item in 0..items {
        let id = format!("item-{item}");
        let mut now: Option<Scan> = None;
        for step in 0..rng.usize(1..5) {
            let next = match (&now, rng.usize(0..4)) {
                (Some(_), 0) => None,
                _ => Some(scan(rng)),
            };
            if now.is_none() && next.is_none() {
                break;
            }
            let created = now_us - rng.i64(0..spread_s * 1_000_000);
            changes.push((
                rng.u64(..),
                change(&format!("{item}-{step}-{:08x}", rng.u32(..)), &id, next.as_ref(), now.as_ref(), created),
            ));
            now = next;
        }
    }
    // Any order will do: deltas commute.
    changes.sort_by_key(|(order, _)| *order);
    changes.into_iter().map(|(_, change)| change).collect()
}

/// What is left of the items when all changes have happened, from the changes alone: plus the new, less the old.
pub fn net<'a>(changes: impl IntoIterator<Item = &'a Change>) -> super::naive::Totals {
    let mut totals = super::naive::Totals::new();
    for change in changes {
        for (scan, sign) in [(&change.new, 1), (&change.old, -1)] {
            if let Some(scan) = scan {
                let total = totals.entry((scan.project.clone(), super::naive::month(scan.at))).or_default();
                total.0 += sign;
                total.1 += sign * scan.bytes;
            }
        }
    }
    totals.retain(|_, total| *total != (0, 0));
    totals
}
