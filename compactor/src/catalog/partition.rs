//! What a month's partition says, and what is to be done about it.
//!
//! A partition has a location, the directory of one version of its month, and parameters: that version, the time of the move, and
//! the earlier moves. One call sets them all, so they agree; where they do not, somebody else wrote the partition, and what it says
//! of the moves is worth nothing.
//!
//! | the partition | step |
//! | --- | --- |
//! | is not there | create it |
//! | shows an older version, or does not say which | move it; what it says of earlier moves goes along |
//! | shows this version, and has other columns than its table | give it the table's columns: location and parameters stand |
//! | shows this version | leave it: the time of its move stands |
//! | shows a newer one | leave it: whoever wants an older one is late, and others may be moving it on |
//!
//! Athena reads a partition by the partition's own columns. One that was made before its table got the column of a measure lacks the column:
//! it has NULL there, and a sum over it is of nothing.

use std::collections::HashMap;

use recount_schemas::Month;

use crate::archive::shown::{MOST, Move, Shown};
use crate::log::names;

/// The parameter with the version.
pub const VERSION: &str = "recount_version";
/// The parameter with the time of the move, ms since 1970.
pub const MOVED_AT: &str = "recount_moved_at";
/// The parameter with the earlier moves: `version@ms`, oldest first, spaces between. It is at most 410 bytes long (Glue: 512,000).
pub const BEFORE: &str = "recount_before";

/// A partition as it is in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// Its location.
    pub location: String,
    /// Its parameters.
    pub parameters: HashMap<String, String>,
    /// Its columns, by name and type.
    pub columns: Vec<Column>,
}

/// A column: its name and its type.
pub type Column = (String, String);

/// What is to be done about a month's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is made.
    Create,
    /// Its location is moved.
    Move,
    /// It gets the columns of its table, where it is.
    Renew,
    /// Nothing.
    Leave,
}

/// The location of a month at this version.
pub fn location(bucket: &str, month: Month, version: u64) -> String {
    format!("s3://{bucket}/{}", names::version(month, version))
}

/// What a partition of a table with these columns has that shows this.
pub fn made(bucket: &str, month: Month, shown: &Shown, columns: &[Column]) -> Partition {
    let before: Vec<String> =
        shown.before.iter().map(|earlier| format!("{}@{}", earlier.version, earlier.at_ms)).collect();
    let parameters = [
        (VERSION.to_owned(), shown.version.to_string()),
        (MOVED_AT.to_owned(), shown.moved_ms.to_string()),
        (BEFORE.to_owned(), before.join(" ")),
    ];
    let parameters = parameters.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    Partition { location: location(bucket, month, shown.version), parameters, columns: columns.to_vec() }
}

/// What a partition shows when it is moved to this version now. Of what it showed before, where it does not say it, nothing is
/// known.
pub fn moved(partition: Option<&Partition>, bucket: &str, month: Month, version: u64, now_ms: i64) -> Shown {
    match partition.and_then(|partition| shown(partition, bucket, month)) {
        Some(shown) => shown.moved(version, now_ms),
        None => Shown::first(version, now_ms),
    }
}

/// What a partition shows; `None` where its parameters are not there or do not fit its location.
pub fn shown(partition: &Partition, bucket: &str, month: Month) -> Option<Shown> {
    let version: u64 = partition.parameters.get(VERSION)?.parse().ok()?;
    let moved_ms: i64 = partition.parameters.get(MOVED_AT)?.parse().ok()?;
    let fits = partition.location.trim_end_matches('/') == location(bucket, month, version).trim_end_matches('/');
    let before = partition.parameters.get(BEFORE).and_then(|text| before(text, version)).unwrap_or_default();
    fits.then_some(Shown { version, moved_ms, before })
}

/// The earlier moves, if they are as they must be.
fn before(text: &str, version: u64) -> Option<Vec<Move>> {
    let one = |word: &str| {
        let (version, at_ms) = word.split_once('@')?;
        Some(Move { version: version.parse().ok()?, at_ms: at_ms.parse().ok()? })
    };
    let moves: Vec<Move> = text.split(' ').take(MOST + 1).map(one).collect::<Option<_>>()?;
    let newer = moves.iter().skip(1).map(|later| later.version).chain([version]);
    let ascending = moves.iter().zip(newer).all(|(earlier, newer)| earlier.version < newer);
    (ascending && moves.len() <= MOST).then_some(moves)
}

/// What is to be done so that a month shows `version`, with the columns of its table.
pub fn step(partition: Option<&Partition>, columns: &[Column], bucket: &str, month: Month, version: u64) -> Step {
    let Some(partition) = partition else { return Step::Create };
    match shown(partition, bucket, month) {
        Some(shown) if shown.version > version => Step::Leave,
        Some(shown) if shown.version == version && partition.columns == columns => Step::Leave,
        Some(shown) if shown.version == version => Step::Renew,
        _ => Step::Move,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month() -> Month {
        "2026-11".parse().unwrap()
    }

    fn at(version: u64) -> Partition {
        made("b", month(), &Shown::first(version, 7), &columns())
    }

    fn columns() -> Vec<Column> {
        [("event_id", "string"), ("measure_bytes", "decimal(38,9)")].map(|(name, of)| (name.into(), of.into())).to_vec()
    }

    #[test]
    fn a_partition_says_what_it_was_made_to_say() {
        assert_eq!(at(12).location, "s3://b/events/month=2026-11/000000000012/");
        assert_eq!(shown(&at(12), "b", month()), Some(Shown::first(12, 7)));
        let without_slash = Partition { location: at(12).location.trim_end_matches('/').to_owned(), ..at(12) };
        assert_eq!(shown(&without_slash, "b", month()).map(|shown| shown.version), Some(12));
    }

    /// An erasure a day: the partition as each move leaves it says when what came before was left.
    #[test]
    fn a_partition_remembers_its_moves_through_its_parameters() {
        const DAY: i64 = 86_400_000;
        let mut partition = made("b", month(), &moved(None, "b", month(), 0, 0), &[]);
        for day in 1..=100 {
            let shown = moved(Some(&partition), "b", month(), day as u64, day * DAY);
            partition = made("b", month(), &shown, &[]);
            assert_eq!(super::shown(&partition, "b", month()), Some(shown.clone()));
            let yesterdays = day as u64 - 1;
            assert_eq!(shown.left(yesterdays), Some(day * DAY));
            assert!(day < 3 || shown.left(yesterdays - 2).is_some_and(|left| left <= (day - 1) * DAY), "{shown:?}");
        }
        assert!(partition.parameters[BEFORE].split(' ').count() == MOST && partition.parameters[BEFORE].len() <= 410);
        // Moved by hand: of what it showed before nothing is known.
        partition.location.push_str("x/");
        assert_eq!(moved(Some(&partition), "b", month(), 200, 7), Shown::first(200, 7));
    }

    #[test]
    fn earlier_moves_that_cannot_be_are_not_believed() {
        let said = |text: &str| {
            let mut partition = at(12);
            partition.parameters.insert(BEFORE.into(), text.into());
            shown(&partition, "b", month()).unwrap().before.len()
        };
        assert_eq!((said("3@1"), said("3@1 5@-2 11@9")), (1, 3));
        let many = (0..=MOST).map(|n| format!("{n}@1")).collect::<Vec<_>>().join(" ");
        for text in
            ["", " ", "3", "3@", "@1", "3@1 ", "3@1 3@2", "5@1 3@2", "12@1", "13@1", "-1@1", "3@1,5@2", "3@x", &many]
        {
            assert_eq!(said(text), 0, "{text:?}");
        }
    }

    #[test]
    fn a_partition_moves_forward_only() {
        let other = |change: &dyn Fn(&mut Partition)| {
            let mut partition = at(12);
            change(&mut partition);
            partition
        };
        for (what, partition, wanted, expected) in [
            ("not there", None, 0, Step::Create),
            ("behind", Some(at(12)), 13, Step::Move),
            ("the same", Some(at(12)), 12, Step::Leave),
            ("ahead of a late writer", Some(at(12)), 3, Step::Leave),
            ("without parameters", Some(other(&|p| p.parameters.clear())), 12, Step::Move),
            (
                "a location by hand",
                Some(other(&|p| p.location = "s3://b/events/month=2026-11/".into())),
                12,
                Step::Move,
            ),
            ("another month's", Some(other(&|p| p.location = p.location.replace("-11", "-10"))), 12, Step::Move),
            ("another bucket's", Some(other(&|p| p.location = p.location.replace("//b", "//c"))), 12, Step::Move),
            ("without a column", Some(other(&|p| drop(p.columns.pop()))), 12, Step::Renew),
            ("another type", Some(other(&|p| p.columns[1].1 = "double".into())), 12, Step::Renew),
            ("ahead of a late writer, without a column", Some(other(&|p| drop(p.columns.pop()))), 3, Step::Leave),
            ("behind, and without columns", Some(other(&|p| p.columns.clear())), 13, Step::Move),
            ("no number", Some(other(&|p| drop(p.parameters.insert(VERSION.into(), "-1".into())))), 12, Step::Move),
        ] {
            assert_eq!(step(partition.as_ref(), &columns(), "b", month(), wanted), expected, "{what}");
        }
    }
}
