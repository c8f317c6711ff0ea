//! What a month's partition says, and what is to be done about it.
//!
//! A partition has a location, the directory of one version of its month, and two parameters: that version and the time of the
//! move. One call sets all three, so they agree; where they do not, somebody else wrote the partition, and what it says of the
//! move is worth nothing.
//!
//! | the partition | step |
//! | --- | --- |
//! | is not there | create it |
//! | shows an older version, or does not say which | move it |
//! | shows this version, or a newer one | leave it: the time of its move stands |

use std::collections::HashMap;

use recount_schemas::Month;

use crate::archive::finish::Shown;
use crate::log::names;

/// The parameter with the version.
pub const VERSION: &str = "recount_version";
/// The parameter with the time of the move, ms since 1970.
pub const MOVED_AT: &str = "recount_moved_at";

/// A partition as it is in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// Its location.
    pub location: String,
    /// Its parameters.
    pub parameters: HashMap<String, String>,
}

/// What is to be done about a month's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is made.
    Create,
    /// Its location is moved.
    Move,
    /// Nothing.
    Leave,
}

/// The location of a month at this version.
pub fn location(bucket: &str, month: Month, version: u64) -> String {
    format!("s3://{bucket}/{}", names::version(month, version))
}

/// What a partition has that shows this version since then.
pub fn made(bucket: &str, month: Month, shown: Shown) -> Partition {
    let parameters =
        [(VERSION.to_owned(), shown.version.to_string()), (MOVED_AT.to_owned(), shown.moved_ms.to_string())];
    Partition { location: location(bucket, month, shown.version), parameters: parameters.into() }
}

/// What a partition shows; `None` where its parameters are not there or do not fit its location.
pub fn shown(partition: &Partition, bucket: &str, month: Month) -> Option<Shown> {
    let version: u64 = partition.parameters.get(VERSION)?.parse().ok()?;
    let moved_ms: i64 = partition.parameters.get(MOVED_AT)?.parse().ok()?;
    let fits = partition.location.trim_end_matches('/') == location(bucket, month, version).trim_end_matches('/');
    fits.then_some(Shown { version, moved_ms })
}

/// What is to be done so that a month shows `version`.
pub fn step(partition: Option<&Partition>, bucket: &str, month: Month, version: u64) -> Step {
    match partition.map(|partition| shown(partition, bucket, month)) {
        None => Step::Create,
        Some(Some(shown)) if shown.version >= version => Step::Leave,
        Some(_) => Step::Move,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month() -> Month {
        "2026-11".parse().unwrap()
    }

    fn at(version: u64) -> Partition {
        made("b", month(), Shown { version, moved_ms: 7 })
    }

    #[test]
    fn a_partition_says_what_it_was_made_to_say() {
        assert_eq!(at(12).location, "s3://b/events/month=2026-11/000000000012/");
        assert_eq!(shown(&at(12), "b", month()), Some(Shown { version: 12, moved_ms: 7 }));
        let without_slash = Partition { location: at(12).location.trim_end_matches('/').to_owned(), ..at(12) };
        assert_eq!(shown(&without_slash, "b", month()).map(|shown| shown.version), Some(12));
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
            ("no number", Some(other(&|p| drop(p.parameters.insert(VERSION.into(), "-1".into())))), 12, Step::Move),
        ] {
            assert_eq!(step(partition.as_ref(), "b", month(), wanted), expected, "{what}");
        }
    }
}
