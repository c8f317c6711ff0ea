//! What fsck says is wrong: kinds by their tokens, and what is to be done about each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most findings of one kind that are listed; the rest are counted.
pub const MAX_LISTED: u64 = 1_000;

/// The kinds of findings. The tokens are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An entry of the log is not there, and later ones are.
    LogMissing,
    /// An entry of the log is not the one that the next was put after.
    LogChanged,
    /// An entry of the log cannot be read, or does not follow the ones before it.
    LogInvalid,
    /// A folded log is not what the log vouches for.
    State,
    /// The stream may have dropped records before they were archived.
    Lost,
    /// A live file is neither at its target nor at its source.
    Missing,
    /// A live file is at its source only.
    Unpublished,
    /// A live file does not have the number of bytes that the log says.
    Size,
    /// A live file does not have the SHA-256 that the log says.
    Digest,
    /// A live file has the bytes that the log says, and they are no file of events.
    Unreadable,
    /// A live file does not have the number of rows that the log says.
    Rows,
    /// A live file's rows are not in the order (group, event key).
    Order,
    /// The least or greatest event key is not the one that the log says.
    KeyRange,
    /// The least or greatest group is not the one that the log says.
    GroupRange,
    /// The rows are not the multiset that the log says.
    Fingerprint,
    /// A row stands at a position that none of the entries read by which the file's rows came.
    Position,
    /// An event key stands twice.
    Repeated,
    /// A row's columns are not those that its own record gives.
    Row,
    /// The summary in a file is not what its rows come to.
    Summary,
    /// A removed file that is still there is not what its own entry said: the compaction cannot be proven again from it.
    Compaction,
    /// A removed file is there long after its grace.
    Leftover,
    /// An object that no entry ever named.
    Foreign,
    /// An upload that can never be committed.
    Orphan,
    /// The log counted more records into quarantine than are there.
    Quarantine,
    /// The log counted more conflicting variants than are there.
    Conflict,
    /// An object in quarantine or of a conflict is not the record that its name says.
    Aside,
    /// The catalog does not show a month's version.
    Location,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::LogMissing,
        Self::LogChanged,
        Self::LogInvalid,
        Self::State,
        Self::Lost,
        Self::Missing,
        Self::Unpublished,
        Self::Size,
        Self::Digest,
        Self::Unreadable,
        Self::Rows,
        Self::Order,
        Self::KeyRange,
        Self::GroupRange,
        Self::Fingerprint,
        Self::Position,
        Self::Repeated,
        Self::Row,
        Self::Summary,
        Self::Compaction,
        Self::Leftover,
        Self::Foreign,
        Self::Orphan,
        Self::Quarantine,
        Self::Conflict,
        Self::Aside,
        Self::Location,
    ];

    /// Its token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LogMissing => "log_missing",
            Self::LogChanged => "log_changed",
            Self::LogInvalid => "log_invalid",
            Self::State => "state",
            Self::Lost => "lost",
            Self::Missing => "missing",
            Self::Unpublished => "unpublished",
            Self::Size => "size",
            Self::Digest => "digest",
            Self::Unreadable => "unreadable",
            Self::Rows => "rows",
            Self::Order => "order",
            Self::KeyRange => "key_range",
            Self::GroupRange => "group_range",
            Self::Fingerprint => "fingerprint",
            Self::Position => "position",
            Self::Repeated => "repeated",
            Self::Row => "row",
            Self::Summary => "summary",
            Self::Compaction => "compaction",
            Self::Leftover => "leftover",
            Self::Foreign => "foreign",
            Self::Orphan => "orphan",
            Self::Quarantine => "quarantine",
            Self::Conflict => "conflict",
            Self::Aside => "aside",
            Self::Location => "location",
        }
    }

    /// What is to be done about it, in one sentence.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::LogMissing | Self::LogChanged | Self::LogInvalid => {
                "restore the version of the entry that was put first; write nothing to the archive before"
            }
            Self::State => "delete it: readers do not use it, and the next hundredth entry brings another",
            Self::Lost => "nothing brings them back from the stream; hold the source table against the archive",
            Self::Missing | Self::Size | Self::Digest => "restore the version of the object that has the log's SHA-256",
            Self::Unpublished => "the next archive run, or --repair --confirm, finishes it",
            Self::Unreadable
            | Self::Rows
            | Self::Order
            | Self::KeyRange
            | Self::GroupRange
            | Self::Fingerprint
            | Self::Position
            | Self::Row
            | Self::Summary => {
                "the object is the one that its entry names, so writer or log were wrong: keep both, look for the entry's first \
                 version, then rebuild"
            }
            Self::Repeated => "recompute and reconcile count it once; find out who wrote the second row",
            Self::Compaction => "readers do not use it; restore it only to prove the compaction again",
            Self::Leftover => "the compactor deletes it in its next run; until then a plain glob sees its events twice",
            Self::Foreign => "move it away: nothing of ours reads it, but every glob over events/ does",
            Self::Orphan => "the next archive run, or --repair --confirm, deletes it",
            Self::Quarantine | Self::Conflict => {
                "restore the deleted objects: they are the only copies of those records"
            }
            Self::Aside => "restore its first version",
            Self::Location => "the compactor's next run moves the partition",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// The object that it is about.
    pub object: String,
    /// What was found.
    pub detail: String,
}

impl Finding {
    /// A finding.
    pub fn new(kind: Kind, object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind, object: object.into(), detail: detail.into() }
    }
}

/// Findings as they come, at most [`MAX_LISTED`] of a kind in full.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    listed: Vec<Finding>,
    counts: BTreeMap<Kind, u64>,
}

impl Findings {
    /// Takes one.
    pub fn add(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.kind).or_default();
        *count += 1;
        if *count <= MAX_LISTED {
            self.listed.push(finding);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Those listed, in their order; and of each kind how many there are beyond these.
    pub fn finish(mut self) -> (Vec<Finding>, BTreeMap<Kind, u64>) {
        self.listed.sort();
        let more = self.counts.into_iter().filter_map(|(kind, count)| {
            let more = count.saturating_sub(MAX_LISTED);
            (more > 0).then_some((kind, more))
        });
        (self.listed, more.collect())
    }
}

impl Extend<Finding> for Findings {
    fn extend<T: IntoIterator<Item = Finding>>(&mut self, findings: T) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_json() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("{:?}", kind.as_str()));
        }
        let tokens: std::collections::BTreeSet<_> = Kind::ALL.map(Kind::as_str).into();
        assert_eq!(tokens.len(), Kind::ALL.len());
    }

    #[test]
    fn beyond_the_bound_findings_are_counted() {
        let mut findings = Findings::default();
        findings.extend((0..MAX_LISTED + 7).map(|i| Finding::new(Kind::Foreign, i.to_string(), "")));
        findings.add(Finding::new(Kind::Lost, "x", ""));
        let (listed, more) = findings.finish();
        assert_eq!((listed.len() as u64, more), (MAX_LISTED + 1, [(Kind::Foreign, 7)].into()));
    }
}
