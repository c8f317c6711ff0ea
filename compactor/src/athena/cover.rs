//! What proves that an answer is about the archive.
//!
//! Athena fails open: a month whose partition is missing has no rows, and no error; a partition that lacks a column has NULL for it,
//! which sums to nothing and is of no group. So each question also asks, in the same reading, of each file
//!
//! - how many rows it has, and how many of them with a class and a source table, which decide what counts: every row has both;
//! - its least and its greatest group, and event key where the question goes by keys;
//! - what its measures come to.
//!
//! Month by month that must be what the log says of its live files, in one of the states that the log went through
//! from before the question to after the answer. A month's files must be *one* state's: a compaction exchanges them all at once.
//! Which state may differ from month to month: what an entry brings into one month is in no other.
//!
//! And the lines of each other kind must come to as many rows of a month as its files: so no line of the answer was lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::{Amount, Definition, EventKey, Month};
use smallvec::SmallVec;

use super::AthenaError;
use super::answer::Line;
use crate::contributions::ReadError;
use crate::log::{AddedFile, State, names};

/// What a file has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfFile {
    /// Its rows.
    pub rows: u64,
    /// Those of them with a class and a source table.
    pub judged: u64,
    /// Its least and its greatest event key; `None` where it was not asked for them ([`Taking::KEYS`]).
    pub keys: Option<(EventKey, EventKey)>,
    /// Its least and its greatest group; `None` where no row has one.
    pub groups: Option<(String, String)>,
    /// What each measure comes to over all of them.
    pub sums: SmallVec<[Amount; 2]>,
}

/// What lines of an answer come to.
pub trait Taking: Send {
    /// Of which kinds its lines are beside those of files. Each kind tells of every row.
    const KINDS: &'static [&'static str];
    /// Whether files are asked for their event keys.
    const KEYS: bool;

    /// Takes one; tells `read` what it says of files, and of how many rows it is.
    fn take(&mut self, line: &Line, read: &mut Read) -> Result<(), AthenaError>;
}

type Files = BTreeMap<String, OfFile>;

/// What was read, by month and by the file's URI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    files: BTreeMap<Month, Files>,
    /// The rows of the lines of each other kind, by month.
    others: BTreeMap<(Month, &'static str), u64>,
}

impl Read {
    /// Takes what the answer says of a file. `false`: it said so before.
    pub fn file(&mut self, month: Month, uri: &str, has: OfFile) -> bool {
        self.files.entry(month).or_default().insert(uri.to_owned(), has).is_none()
    }

    /// Takes the rows of a line of another kind.
    pub fn others(&mut self, kind: &'static str, month: Month, rows: u64) {
        let all = self.others.entry((month, kind)).or_default();
        *all = all.saturating_add(rows);
    }

    /// How many files, and how many rows.
    pub fn size(&self) -> (u64, u64) {
        let files = self.files.values().flatten();
        files.fold((0, 0), |(files, rows), (_, file)| (files + 1, file.rows.saturating_add(rows)))
    }

    /// Each row was told of once by its file and once by each of these kinds.
    pub fn is_whole(&self, kinds: &[&'static str]) -> Result<(), AthenaError> {
        let months: BTreeSet<Month> =
            self.files.keys().chain(self.others.keys().map(|(month, _)| month)).copied().collect();
        for (month, kind) in months.into_iter().flat_map(|month| kinds.iter().map(move |kind| (month, *kind))) {
            let by_file = self.files.get(&month).map_or(0, rows_of);
            let by_kind = self.others.get(&(month, kind)).copied().unwrap_or(0);
            if by_file != by_kind {
                return Err(AthenaError::Answer(format!("{by_file} rows of {month} by file and {by_kind} by {kind}")));
            }
        }
        Ok(())
    }
}

fn rows_of(files: &Files) -> u64 {
    files.values().fold(0, |rows, file| rows.saturating_add(file.rows))
}

/// Whether a month's files are as they were read, and in which state of the log they last were; `None`: in no one.
#[derive(Debug, Clone, Copy, Default)]
struct Agreed {
    now: bool,
    last: Option<u64>,
}

/// What was read, held against the log as it goes on.
pub struct Cover<'r> {
    read: &'r Read,
    definition: &'r Definition,
    /// Whether files were asked for their event keys.
    keys: bool,
    uri: &'r (dyn Fn(&str) -> String + Sync),
    /// Only this month was asked for.
    only: Option<Month>,
    months: BTreeMap<Month, Agreed>,
    next: u64,
}

impl<'r> Cover<'r> {
    /// Against the log as it was before the question. `uri` makes the URI of a file out of its name.
    pub fn new(
        read: &'r Read,
        definition: &'r Definition,
        keys: bool,
        only: Option<Month>,
        uri: &'r (dyn Fn(&str) -> String + Sync),
        before: &State,
    ) -> Result<Self, ReadError> {
        let months: BTreeSet<Month> = read.files.keys().chain(before.files.keys()).copied().collect();
        let mut cover = Self { read, definition, keys, uri, only, months: BTreeMap::new(), next: before.next };
        cover.look(before, &months, Agreed::default())?;
        Ok(cover)
    }

    /// The log went on by one entry.
    pub fn entry(&mut self, state: &State) -> Result<(), ReadError> {
        let mut touched = BTreeSet::new();
        if let Some(entry) = &state.last {
            touched.extend(entry.added.iter().map(|file| file.month));
            touched.extend(entry.versions.keys());
            touched.extend(entry.removed.iter().filter_map(|target| Some(names::parse_target(target)?.month)));
        }
        // A month that nobody knew had no file before, and none of it was read.
        self.look(state, &touched, Agreed { now: true, last: None })
    }

    fn look(&mut self, state: &State, months: &BTreeSet<Month>, unknown: Agreed) -> Result<(), ReadError> {
        for month in months.iter().filter(|month| self.only.is_none_or(|only| only == **month)) {
            for live in state.files.get(month).into_iter().flatten().map(|(_, live)| live) {
                if live.definition != self.definition.hash() {
                    return Err(ReadError::Definition {
                        file: live.file.target.clone(),
                        found: live.definition.clone(),
                        wanted: self.definition.hash().to_owned(),
                    });
                }
            }
            let now = self.live(state, *month) == *self.of(*month);
            let month = self.months.entry(*month).or_insert(unknown);
            if month.now {
                month.last = Some(self.next);
            }
            month.now = now;
            if now {
                month.last = Some(state.next);
            }
        }
        self.next = state.next;
        Ok(())
    }

    fn of(&self, month: Month) -> &Files {
        static NONE: Files = Files::new();
        self.read.files.get(&month).unwrap_or(&NONE)
    }

    fn live(&self, state: &State, month: Month) -> Files {
        let live = state.files.get(&month).into_iter().flatten();
        live.map(|(target, live)| ((self.uri)(target), self.said(&live.file))).collect()
    }

    fn said(&self, file: &AddedFile) -> OfFile {
        let sum = |column: &String| file.fingerprint.sums.get(column).copied().unwrap_or_default();
        OfFile {
            rows: file.rows,
            judged: file.rows,
            keys: self.keys.then_some((file.first_key, file.last_key)),
            groups: file.first_group.clone().zip(file.last_group.clone()),
            sums: self.definition.measures.iter().map(|measure| sum(&measure.column)).collect(),
        }
    }

    /// The number of entries that all months' files have in them; or, held against the log as it is now, what is wrong.
    pub fn entries(&self, now: &State) -> Result<u64, Vec<String>> {
        let last = |agreed: &Agreed| if agreed.now { Some(self.next) } else { agreed.last };
        let wrong: Vec<String> = self
            .months
            .iter()
            .filter(|(_, agreed)| last(agreed).is_none())
            .map(|(month, _)| self.told(*month, &self.live(now, *month)))
            .collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(self.months.values().filter_map(last).min().unwrap_or(self.next))
    }

    /// How what was read of a month differs from what is live.
    fn told(&self, month: Month, live: &Files) -> String {
        let read = self.of(month);
        let names_and_rows =
            |files: &Files| files.iter().map(|(uri, file)| (uri.clone(), file.rows)).collect::<Vec<_>>();
        if names_and_rows(read) != names_and_rows(live) {
            return format!(
                "{month} has {} files with {} rows in the log, and {} files with {} rows were read",
                live.len(),
                rows_of(live),
                read.len(),
                rows_of(read)
            );
        }
        let differs = |same: &dyn Fn(&OfFile, &OfFile) -> bool| {
            live.iter().any(|(uri, file)| !read.get(uri).is_some_and(|read| same(read, file)))
        };
        let mut columns = Vec::new();
        for (what, differs) in [
            ("rows with class and source_table", differs(&|a, b| a.judged == b.judged)),
            ("ends of event_key", differs(&|a, b| a.keys == b.keys)),
            ("ends of group_key", differs(&|a, b| a.groups == b.groups)),
        ] {
            columns.extend(differs.then(|| what.to_owned()));
        }
        for (at, measure) in self.definition.measures.iter().enumerate() {
            let same = |a: &OfFile, b: &OfFile| a.sums.get(at) == b.sums.get(at);
            columns.extend(differs(&same).then(|| format!("sums of {}", measure.column)));
        }
        format!(
            "{month} comes to other {} than the log has; its partition may have been made before the table had the column as it is now: \
             `recount compact --confirm` gives partitions the columns of their table",
            columns.join(", ")
        )
    }
}

#[cfg(test)]
#[path = "cover_tests.rs"]
pub(crate) mod tests;
