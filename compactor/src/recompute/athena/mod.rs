//! The same recount put to Athena: for archives beyond one machine.
//!
//! - Here: the question, its answer, and what proves that the answer is about the whole archive. Pure.
//! - `run`: asking; only in a build with the feature `aws`.
//!
//! Athena fails open: a month whose partition is missing has no rows, and no error. So the query also says how many rows it read of
//! each file, in the same reading; names and numbers must be those of the log's live files, as it was before the query or after it.
//! Else it is asked again, and in the end nothing is said: undecided, with the months named.
//!
//! What our own fold proves and this does not: that no event key stands twice. `recount fsck` does.

#[cfg(feature = "aws")]
pub mod run;

use std::collections::BTreeMap;

use recount_schemas::definition::Count;
use recount_schemas::{Amount, Definition, Delta, Month};
use serde::{Deserialize, Serialize};

use crate::log::State;
use crate::usage::{Totalled, Usage, UsageError};

/// The question, for people to read.
pub const SQL: &str = include_str!("../../../../infra/aws/athena/engine/recompute.sql");
/// The most groups and files, by month, that an answer may have.
pub const MAX_ROWS: usize = 10_000_000;

/// A recount by Athena failed.
#[derive(Debug, thiserror::Error)]
pub enum AthenaError {
    /// The columns of the archive do not say it.
    #[error("--engine athena counts inserts only, and this definition has count = \"net\"; leave --engine out")]
    Net,
    /// No workgroup or database is named.
    #[error("--engine athena needs {0}; set it, or name the stack with --stack")]
    Unset(&'static str),
    /// A set has no tables.
    #[error("--engine athena reads the base's archive, and this is set {0}; leave --engine out")]
    OfASet(recount_schemas::SetName),
    /// The log's live files are another definition's.
    #[error(transparent)]
    Read(#[from] crate::contributions::ReadError),
    /// A sum is out of range.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The answer is not what was asked for.
    #[error("Athena's answer has {0}")]
    Answer(String),
    /// It is about other files than the log's.
    #[error(
        "Athena did not read the archive as the log has it: {}; see `recount doctor` and `recount fsck`, then ask again",
        .0.join("; ")
    )]
    OtherFiles(Vec<String>),
    /// A request, or the query, failed.
    #[error("Athena, workgroup {workgroup}: {why}")]
    Failed {
        /// The workgroup.
        workgroup: String,
        /// What happened.
        why: String,
    },
    /// The log could not be read, or the totals could not be written.
    #[error(transparent)]
    Recompute(Box<super::RecomputeError>),
    /// This program cannot ask.
    #[error("--engine athena: this program was built without the feature `aws`")]
    Unable,
}

impl AthenaError {
    /// Whether the command line or the definition is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Net | Self::Unset(_) | Self::OfASet(_) | Self::Unable)
    }
}

/// What a recount by Athena did and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The totals.
    #[serde(flatten)]
    pub totals: Usage,
    /// The number of log entries that they are made from.
    pub entries: u64,
    /// The files read, each of them one of the log's.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// The bytes that Athena says it scanned.
    pub scanned_bytes: u64,
    /// The query's ID.
    pub query: String,
    /// The objects written.
    pub written: Vec<String>,
}

/// The question for a definition.
pub fn sql(definition: &Definition) -> Result<String, AthenaError> {
    if definition.count != Count::Inserts {
        return Err(AthenaError::Net);
    }
    let table = format!("'{}'", definition.table.replace('\'', "''"));
    let sum = |measure: &recount_schemas::definition::Measure| {
        // A column's name is of a-z, 0-9 and _ only.
        let (column, total) = (&measure.column, measure.column.replacen("measure_", "sum_", 1));
        format!(",\n    sum(CASE WHEN class = 'insert' AND source_table = {table} THEN {column} END) AS {total}")
    };
    let sums: String = definition.measures.iter().map(sum).collect();
    let statement = SQL.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    Ok(statement.replace("{table}", &table).replace("{sums}", &sums))
}

/// One line of the answer; `None` is NULL.
pub type Line = Vec<Option<String>>;

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The totals.
    pub totals: Totalled,
    /// The rows of each file of each month, by the file's URI.
    pub files: BTreeMap<Month, BTreeMap<String, u64>>,
}

impl Answer {
    /// Takes a line.
    pub fn take(&mut self, line: &Line, definition: &Definition) -> Result<(), AthenaError> {
        let bad = |what: &str| AthenaError::Answer(format!("{what} in {line:?}"));
        let (fixed, sums) = line.split_at_checked(5).ok_or_else(|| bad("too few columns"))?;
        let [Some(month), group, file, Some(archived), Some(events)] = fixed else { return Err(bad("a NULL")) };
        if sums.len() != definition.measures.len() {
            return Err(bad("other columns"));
        }
        let month: Month = month.parse().map_err(|_| bad("no month"))?;
        let archived: u64 = archived.parse().map_err(|_| bad("no number of rows"))?;
        if let Some(file) = file {
            let before = self.files.entry(month).or_default().insert(file.clone(), archived);
            return if before.is_none() { Ok(()) } else { Err(bad("a file twice")) };
        }
        // What has no group counts nowhere.
        let Some(group) = group else { return Ok(()) };
        let events: i64 = events.parse().map_err(|_| bad("no number of events"))?;
        if events == 0 {
            return Ok(());
        }
        let amount = |sum: &Option<String>| match sum {
            Some(text) => Amount::parse_sum(text).map_err(|_| bad("no sum")),
            None => Ok(Amount::ZERO),
        };
        let delta = Delta { events, sums: sums.iter().map(amount).collect::<Result<_, _>>()? };
        let group = group.parse().map_err(|_| bad("no group"))?;
        Ok(self.totals.add(&group, month, &delta)?)
    }
}

/// The rows of each live file of each month, by the file's URI.
pub fn live(state: &State, uri: impl Fn(&str) -> String) -> BTreeMap<Month, BTreeMap<String, u64>> {
    let mut months: BTreeMap<Month, BTreeMap<String, u64>> = BTreeMap::new();
    for live in state.live() {
        months.entry(live.file.month).or_default().insert(uri(&live.file.target), live.file.rows);
    }
    months
}

/// How what was read differs from what is live, by month. Empty: it does not.
pub fn differences(
    read: &BTreeMap<Month, BTreeMap<String, u64>>,
    live: &BTreeMap<Month, BTreeMap<String, u64>>,
) -> Vec<String> {
    let mut months: Vec<&Month> = read.keys().chain(live.keys()).collect();
    months.sort();
    months.dedup();
    let none = BTreeMap::new();
    let differs = |month: &&Month| read.get(month) != live.get(month);
    let told = |month: &Month| {
        let (read, live) = (read.get(month).unwrap_or(&none), live.get(month).unwrap_or(&none));
        let rows = |files: &BTreeMap<String, u64>| files.values().sum::<u64>();
        format!(
            "{month} has {} files with {} rows in the log, and {} files with {} rows were read",
            live.len(),
            rows(live),
            read.len(),
            rows(read)
        )
    };
    months.into_iter().filter(differs).map(told).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const TOML: &str =
        "[source]\ntable = \"o'scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\nsum = [\"bytes\"]\n";

    fn definition() -> Definition {
        Definition::parse(TOML, "recount.toml").unwrap()
    }

    fn line(texts: [&str; 6]) -> Line {
        texts.iter().map(|text| (*text != "NULL").then(|| (*text).to_owned())).collect()
    }

    #[test]
    fn the_question_is_one_reading() {
        insta::assert_snapshot!(sql(&definition()).unwrap(), @r#"
        SELECT
            month,
            group_key,
            "$path" AS file,
            count(*) AS archived,
            count(CASE WHEN class = 'insert' AND source_table = 'o''scans' THEN 1 END) AS events,
            sum(CASE WHEN class = 'insert' AND source_table = 'o''scans' THEN measure_bytes END) AS sum_bytes
        FROM events
        GROUP BY GROUPING SETS ((month, group_key), (month, "$path"))
        "#);
        let net = Definition::parse(&format!("{TOML}count = \"net\"\n"), "recount.toml").unwrap();
        assert!(matches!(sql(&net), Err(AthenaError::Net)));
    }

    #[test]
    fn an_answer_is_read_exactly() {
        let mut answer = Answer::default();
        for texts in [
            ["2026-11", "acme", "NULL", "5", "4", "12345678901234567890.000000001"],
            ["2026-11", "zeta", "NULL", "1", "0", "NULL"],
            ["2026-11", "NULL", "NULL", "2", "0", "NULL"],
            ["2026-11", "NULL", "s3://b/events/x", "8", "4", "7.000000000"],
        ] {
            answer.take(&line(texts), &definition()).unwrap();
        }
        let totals: Vec<_> = answer.totals.0.values().collect();
        assert_eq!((totals.len(), totals[0].events), (1, 4));
        assert_eq!(totals[0].sums[0], Amount::parse_sum("12345678901234567890.000000001").unwrap());
        assert_eq!(answer.files.values().next().unwrap().get("s3://b/events/x"), Some(&8));
        for wrong in [
            ["NULL", "acme", "NULL", "5", "4", "1"],
            ["2026-13", "acme", "NULL", "5", "4", "1"],
            ["2026-11", "acme", "NULL", "-5", "4", "1"],
            ["2026-11", "acme", "NULL", "5", "x", "1"],
            ["2026-11", "acme", "NULL", "5", "4", "NaN"],
            ["2026-11", "", "NULL", "5", "4", "1"],
            ["2026-11", "NULL", "s3://b/events/x", "8", "4", "7"],
        ] {
            assert!(matches!(answer.take(&line(wrong), &definition()), Err(AthenaError::Answer(_))), "{wrong:?}");
        }
        assert!(answer.take(&vec![None; 4], &definition()).is_err());
        assert!(answer.take(&vec![Some("2026-11".into()); 5], &definition()).is_err());
    }

    #[test]
    fn a_missing_partition_cannot_pass_for_zero() {
        let month = |text: &str| text.parse::<Month>().unwrap();
        let files = |names: &[(&str, u64)]| names.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
        let live: BTreeMap<_, BTreeMap<String, u64>> =
            [(month("2026-10"), files(&[("a", 3)])), (month("2026-11"), files(&[("b", 2), ("c", 4)]))].into();
        assert_eq!(differences(&live, &live), Vec::<String>::new());
        let mut read = live.clone();
        read.remove(&month("2026-10"));
        insta::assert_snapshot!(differences(&read, &live).join("\n"), @"2026-10 has 1 files with 3 rows in the log, and 0 files with 0 rows were read");
        // As many files and rows, but another file: a version behind.
        read = live.clone();
        read.insert(month("2026-10"), files(&[("old", 3)]));
        assert_eq!(differences(&read, &live).len(), 1);
        // A month that the log does not have.
        read = live.clone();
        read.insert(month("2026-12"), files(&[("d", 1)]));
        insta::assert_snapshot!(AthenaError::OtherFiles(differences(&read, &live)), @"Athena did not read the archive as the log has it: 2026-12 has 0 files with 0 rows in the log, and 1 files with 1 rows were read; see `recount doctor` and `recount fsck`, then ask again");
    }
}
