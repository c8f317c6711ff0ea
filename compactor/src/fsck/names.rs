//! What the names under a prefix say of objects, by the log. Pure.
//!
//! | under | the name | it is |
//! | --- | --- | --- |
//! | `events/` | a live file's target | as it must be |
//! | | a removed file's target, within the grace | as it must be: readers may still hold it |
//! | | a removed file's target, long after it | `leftover` |
//! | | any other | `foreign` |
//! | `_staging/` | of an upload begun at most 64 entries ago | possible: a plan may yet put it, or the last entry has |
//! | | of one begun before | `orphan`: no entry can name it any more |
//! | | any other | `foreign` |
//! | `_log/`, `_state/` | a number | looked at when the log is walked |
//! | | any other | `foreign` |

use std::time::Duration;

use recount_schemas::Month;

use super::finding::{Finding, Kind};
use crate::archive::tidy::is_garbage;
use crate::history::History;
use crate::log::names;

/// A removed file that is there for so long after its removal has been forgotten: readers may hold it for a day after the location
/// moved, and runs come more often than once a day.
pub const FORGOTTEN: Duration = Duration::from_secs(72 * 3_600);

/// What an object under `events/` is, if it is not as it must be.
pub fn event(name: &str, history: &History, now_ms: i64) -> Option<Finding> {
    if history.state.find(name).is_some() {
        return None;
    }
    if let Some(removed) = history.removed.get(name) {
        let age = Duration::from_millis(u64::try_from(now_ms.saturating_sub(removed.at_ms)).unwrap_or(0));
        let detail = || format!("log entry {} removed it {} hours ago", removed.by, age.as_secs() / 3_600);
        return (age > FORGOTTEN).then(|| Finding::new(Kind::Leftover, name, detail()));
    }
    let detail = match names::parse_target(name) {
        Some(target) if target.n >= history.state.next => format!(
            "it is named for log entry {}, and the log ends with {} entries: the end of the log was cut off, or this was never ours",
            target.n, history.state.next
        ),
        Some(target) => format!("log entry {} does not name it; a glob over events/ reads it all the same", target.n),
        None => "no name of ours; a glob over events/ reads it all the same".to_owned(),
    };
    Some(Finding::new(Kind::Foreign, name, detail))
}

/// What an object under `_staging/` is, if it is not as it must be.
pub fn staged(name: &str, entries: u64) -> Option<Finding> {
    match names::staged_base(name) {
        Some(base) if base > entries => {
            let detail = format!("an upload of a plan made when the log had {base} entries, and it has {entries}");
            Some(Finding::new(Kind::Foreign, name, detail))
        }
        Some(base) if is_garbage(base, entries) => {
            let detail = format!("an upload begun when the log had {base} entries; no entry can name it any more");
            Some(Finding::new(Kind::Orphan, name, detail))
        }
        Some(_) => None,
        None => Some(Finding::new(Kind::Foreign, name, "no name of ours; nobody tidies it away")),
    }
}

/// What is wrong with the version that a catalog shows of a month with live files.
pub fn location(month: Month, version: u64, shown: Option<u64>) -> Option<Finding> {
    let detail = match shown {
        Some(shown) if shown == version => return None,
        Some(shown) => format!(
            "the catalog shows version {shown}, the log says {version}: whoever reads by location reads old files"
        ),
        None => format!(
            "the catalog does not show the month, the log says version {version}: whoever reads by location misses it"
        ),
    };
    Some(Finding::new(Kind::Location, format!("{}month={month}/", names::EVENTS), detail))
}

/// What an object under `_log/` or `_state/` is, if it is none of ours.
pub fn numbered(name: &str) -> Option<Finding> {
    let ours = names::entry_number(name).or_else(|| names::state_number(name)).is_some();
    (!ours).then(|| Finding::new(Kind::Foreign, name, "no name of ours"))
}
