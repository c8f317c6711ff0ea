//! The names of the archive's objects.
//!
//! | what | name |
//! | --- | --- |
//! | entry n of the log | `_log/<n>.json` |
//! | the log folded up to n | `_state/<n>.json` |
//! | an upload that no reader sees | `_staging/<base>-<token>/<i>` |
//! | that months have locations | `_catalog/noted.json` ([`crate::catalog::noted`]) |
//! | a file of events | `events/month=<YYYY-MM>/<version>/<n>-<i>.parquet` |
//!
//! Numbers have 12 digits, so that names sort. A name read from the log is used only if it is of this shape: the log
//! cannot lead anybody to an object elsewhere.

use recount_schemas::Month;

/// Where the entries are.
pub const LOG: &str = "_log/";
/// Where the folded log is kept now and then.
pub const STATE: &str = "_state/";
/// Where uploads are staged.
pub const STAGING: &str = "_staging/";
/// Where the files of events are.
pub const EVENTS: &str = "events/";
/// The greatest number that has 12 digits.
pub const MAX_NUMBER: u64 = 999_999_999_999;
/// The most hexadecimal digits of a token.
const MAX_TOKEN: usize = 32;

/// The name of entry `n`.
pub fn entry(n: u64) -> String {
    format!("{LOG}{n:012}.json")
}

/// The number in the name of an entry.
pub fn entry_number(name: &str) -> Option<u64> {
    number(name.strip_prefix(LOG)?.strip_suffix(".json")?)
}

/// The name of the log folded up to entry `n`.
pub fn state(n: u64) -> String {
    format!("{STATE}{n:012}.json")
}

/// The number in the name of a folded log.
pub fn state_number(name: &str) -> Option<u64> {
    number(name.strip_prefix(STATE)?.strip_suffix(".json")?)
}

/// The name of upload `i` of the plan `token`, begun when the log had `base` entries.
pub fn staged(base: u64, token: &str, i: usize) -> String {
    format!("{STAGING}{base:012}-{token}/{i}")
}

/// The number of entries that the log had when this upload was begun.
pub fn staged_base(name: &str) -> Option<u64> {
    let (plan, i) = name.strip_prefix(STAGING)?.split_once('/')?;
    let (base, token) = plan.split_once('-')?;
    let token_fits = is_token(token);
    let index_fits = (1..=6).contains(&i.len()) && i.bytes().all(|b| b.is_ascii_digit());
    number(base).filter(|_| token_fits && index_fits)
}

/// Whether a text is a plan's token: 1 to 32 lower-case hexadecimal digits.
pub fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of file `i` that entry `n` adds to a month of version `version`.
pub fn target(month: Month, version: u64, n: u64, i: usize) -> String {
    format!("{EVENTS}month={month}/{version:012}/{n:012}-{i}.parquet")
}

/// What the names of all files of a month begin with.
pub fn month(month: Month) -> String {
    format!("{EVENTS}month={month}/")
}

/// What the names of all files of one version of a month begin with.
pub fn version(month: Month, version: u64) -> String {
    format!("{EVENTS}month={month}/{version:012}/")
}

/// What the name of a file of events says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The month that it belongs to.
    pub month: Month,
    /// The version of that month.
    pub version: u64,
    /// The entry that added it.
    pub n: u64,
}

/// Reads the name of a file of events; `None` for any other name.
pub fn parse_target(name: &str) -> Option<Target> {
    let mut parts = name.strip_prefix(EVENTS)?.split('/');
    let month = parts.next()?.strip_prefix("month=")?.parse().ok()?;
    let version = number(parts.next()?)?;
    let (n, i) = parts.next()?.strip_suffix(".parquet")?.split_once('-')?;
    let index_fits = (1..=6).contains(&i.len()) && i.bytes().all(|b| b.is_ascii_digit());
    (index_fits && parts.next().is_none()).then_some(Target { month, version, n: number(n)? })
}

fn number(text: &str) -> Option<u64> {
    (text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let month: Month = "2026-11".parse().unwrap();
        let name = target(month, 0, 17, 2);
        assert_eq!(name, "events/month=2026-11/000000000000/000000000017-2.parquet");
        assert_eq!(parse_target(&name), Some(Target { month, version: 0, n: 17 }));
        assert_eq!(staged_base(&staged(4, "0af", 1)), Some(4));
        assert_eq!(state_number(&state(100)), Some(100));
        assert_eq!((entry_number(&entry(7)), entry_number("_log/7.json")), (Some(7), None));
    }

    #[test]
    fn no_name_leads_elsewhere() {
        for name in [
            "",
            "events/month=2026-11/000000000000/../../../_log/000000000001.json",
            "events/month=2026-13/000000000000/000000000017-0.parquet",
            "events/month=2026-11/0/000000000017-0.parquet",
            "events/month=2026-11/000000000000/000000000017-0.parquet/x",
            "events/month=2026-11/000000000000/000000000017.parquet",
            "events/month=2026-11/000000000000/000000000017-x.parquet",
            "events/month=2026-11/000000000000/000000000017-.parquet",
            "events/month=2026-11/000000000000/000000000017-1234567.parquet",
            "events/month=2026-11/+00000000000/000000000017-0.parquet",
            "/events/month=2026-11/000000000000/000000000017-0.parquet",
            "_staging/000000000000-ab/0",
        ] {
            assert_eq!(parse_target(name), None, "{name}");
        }
        for name in [
            "_staging/0-ab/0",
            "_staging/000000000000-../0",
            "_staging/000000000000-ab/../x",
            "_staging/000000000000-ab/x",
            "_staging/000000000000-ab/1234567",
            "_staging/000000000000-AB/0",
            "_staging/+00000000000-ab/0",
            "_log/000000000000.json",
        ] {
            assert_eq!(staged_base(name), None, "{name}");
        }
        for name in ["_log/+00000000000.json", "_log/0000000000000.json", "_state/000000000000.json"] {
            assert_eq!(entry_number(name), None, "{name}");
        }
        assert_eq!(state_number("_log/000000000000.json"), None);
        assert!(is_token(&"0".repeat(32)) && !is_token(&"0".repeat(33)) && !is_token(""));
    }
}
