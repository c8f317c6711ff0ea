//! Which home readers go by: a log of switches, `_switch/<n>.json`, in the base's bucket.
//!
//! The last switch says it; where there is none, it is the base. Each is put under the next number with `If-None-Match: *`, so
//! of two at once one is refused, and none is ever changed or deleted: the way back is one more switch.
//!
//! It stands in the bucket, and not in the base's totals table, since that table may be what was lost.

use bytes::Bytes;
use recount_schemas::Home;
use recount_schemas::host::SharedHost;
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketError, Listing, Objects, Put};

/// Where switches are.
pub const PREFIX: &str = "_switch/";
/// The format that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// The largest such object, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The switches could not be read, or none could be made.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A switch is damaged, or newer than this program.
    #[error("{key} is no switch: {why}; name the home with --set, `base` or a set, until it is mended")]
    Malformed {
        /// The object.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// Somebody else switched at the same time.
    #[error(
        "somebody else switched to {0} at the same time; look with `recount sets`, and switch again if that is wanted"
    )]
    Raced(Home),
}

/// One switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    format: u32,
    n: u64,
    /// When, ms since 1970, by the clock of who made it.
    at_ms: i64,
    from: Home,
    to: Home,
}

/// The home that readers go by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Current {
    /// It.
    pub home: Home,
    /// The number of the next switch.
    next: u64,
}

fn key(n: u64) -> String {
    format!("{PREFIX}{n:012}.json")
}

fn number(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(PREFIX)?.strip_suffix(".json")?;
    (digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The home that readers go by. `root` is the base's bucket.
pub async fn current<O: Objects>(root: &O) -> Result<Current, SwitchError> {
    let mut last = None;
    let mut listing = Listing::new(root, PREFIX);
    while let Some(page) = listing.next_page().await? {
        last = page.iter().filter_map(|listed| number(&listed.key)).max().max(last);
    }
    let Some(n) = last else { return Ok(Current::default()) };
    let switch = read(root, n).await?;
    Ok(Current { home: switch.to, next: n.saturating_add(1) })
}

async fn read<O: Objects>(root: &O, n: u64) -> Result<Switch, SwitchError> {
    let key = key(n);
    let malformed = |why: String| SwitchError::Malformed { key: key.clone(), why };
    let bytes = root.get(&key, MAX_BYTES).await?.ok_or_else(|| malformed("it is not there any more".to_owned()))?;
    let switch: Switch = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    match switch.format {
        FORMAT if switch.n == n => Ok(switch),
        FORMAT => Err(malformed(format!("it has number {}", switch.n))),
        format => Err(malformed(format!("it is of format {format}, this program reads up to {FORMAT}"))),
    }
}

/// Makes readers go by another home, if they go by `current` still.
pub async fn switch<O: Objects>(root: &O, host: &SharedHost, current: &Current, to: &Home) -> Result<(), SwitchError> {
    if current.home == *to {
        return Ok(());
    }
    let (n, from, to) = (current.next, current.home.clone(), to.clone());
    let switch = Switch { format: FORMAT, n, at_ms: host.now_ms(), from, to };
    let key = key(n);
    let bytes = serde_json::to_vec(&switch)
        .map_err(|error| SwitchError::Malformed { key: key.clone(), why: error.to_string() })?;
    let unsure = match root.put_if_absent(&key, Bytes::from(bytes)).await {
        Ok(Put::Created) => return Ok(()),
        Ok(Put::Exists) => None,
        // Whether it was written shows only by reading.
        Err(error) if error.is_unsure() => Some(error),
        Err(error) => return Err(error.into()),
    };
    match (read(root, n).await, unsure) {
        (Ok(found), _) if found == switch => Ok(()),
        (Ok(found), _) => Err(SwitchError::Raced(found.to)),
        (Err(_), Some(unsure)) => Err(unsure.into()),
        (Err(error), None) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bucket::memory::Memory;
    use crate::testing::TestHost;

    #[tokio::test]
    async fn the_last_switch_says_it_and_of_two_at_once_one_is_refused() {
        let root = Memory::new();
        let host: SharedHost = Arc::new(TestHost::default());
        let (tokyo, net): (Home, Home) = ("tokyo".parse().unwrap(), "net".parse().unwrap());
        let first = current(&root).await.unwrap();
        assert_eq!(first.home, Home::Base);
        switch(&root, &host, &first, &tokyo).await.unwrap();
        let lost = switch(&root, &host, &first, &net).await.unwrap_err();
        assert!(matches!(lost, SwitchError::Raced(Home::Set(_))), "{lost}");
        // The same once more, as after an answer that was lost.
        switch(&root, &host, &first, &tokyo).await.unwrap();
        let second = current(&root).await.unwrap();
        assert_eq!(second.home, tokyo);
        switch(&root, &host, &second, &tokyo).await.unwrap();
        switch(&root, &host, &second, &Home::Base).await.unwrap();
        assert_eq!(current(&root).await.unwrap(), Current { home: Home::Base, next: 2 });
    }

    #[tokio::test]
    async fn a_damaged_switch_leads_nowhere() {
        let root = Memory::new();
        for text in [
            "",
            "{}",
            r#"{"format":2,"n":0,"at_ms":1,"from":"base","to":"x"}"#,
            r#"{"format":1,"n":7,"at_ms":1,"from":"base","to":"x"}"#,
            r#"{"format":1,"n":0,"at_ms":1,"from":"base","to":"../x"}"#,
        ] {
            root.put(&key(0), Bytes::from(text)).await.unwrap();
            assert!(matches!(current(&root).await, Err(SwitchError::Malformed { .. })), "{text}");
        }
        assert_eq!((number(&key(12)), number("_switch/12.json")), (Some(12), None));
    }
}
