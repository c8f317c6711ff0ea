//! The same recount put to Athena: for archives beyond one machine. What proves that its answer is about the whole archive stands in
//! [`athena::cover`](crate::athena::cover).
//!
//! - Here: the question and its answer. Pure.
//! - `run`: asking and writing; only in a build with the feature `aws`.
//!
//! What our own fold proves and this does not: that no event key stands twice. `recount fsck` does.

#[cfg(feature = "aws")]
pub mod run;

use recount_schemas::definition::Count;
use recount_schemas::{Definition, Group, Month};
use serde::{Deserialize, Serialize};

use crate::athena::answer::{Fields, Line};
use crate::athena::cover::{OfFile, Read, Taking};
use crate::athena::{Asked, AthenaError, sql};
use crate::usage::{Totalled, Usage};

/// The question, for people to read.
pub const SQL: &str = include_str!("../../../../infra/aws/athena/engine/recompute.sql");

/// What a recount by Athena did and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The totals.
    #[serde(flatten)]
    pub totals: Usage,
    /// What was asked.
    #[serde(flatten)]
    pub asked: Asked,
    /// The objects written.
    pub written: Vec<String>,
}

/// The question for a definition.
pub fn question(definition: &Definition) -> Result<String, AthenaError> {
    if definition.count != Count::Inserts {
        return Err(AthenaError::Net);
    }
    let table = sql::literal(&definition.table);
    let sums = sql::each(definition, |measure| {
        let (column, total) = (&measure.column, sql::named(measure, "sum"));
        format!("sum(CASE WHEN class = 'insert' AND source_table = {table} THEN {column} END) AS {total}")
    });
    let all_sums =
        sql::each(definition, |measure| format!("sum({}) AS {}", measure.column, sql::named(measure, "all")));
    Ok(sql::filled(&sql::statement(SQL), &[("table", &table), ("sums", &sums), ("all_sums", &all_sums)]))
}

/// The totals, as the answer's lines come by.
#[derive(Debug, Clone)]
pub struct Totals<'d> {
    definition: &'d Definition,
    /// The totals.
    pub totals: Totalled,
}

impl<'d> Totals<'d> {
    /// Of no line.
    pub fn new(definition: &'d Definition) -> Self {
        Self { definition, totals: Totalled::default() }
    }
}

impl Taking for Totals<'_> {
    const KINDS: &'static [&'static str] = &["group"];
    const KEYS: bool = false;

    fn take(&mut self, line: &Line, read: &mut Read) -> Result<(), AthenaError> {
        let measures = self.definition.measures.len();
        let mut fields = Fields::new(line);
        let month: Month = fields.given("month")?;
        let (group, file) = (fields.spelt("group")?, fields.text()?);
        let rows: u64 = fields.given("number of rows")?;
        let events: u64 = fields.given("number of events")?;
        let judged: u64 = fields.given("number of judged rows")?;
        let groups = fields.spelt("group")?.zip(fields.spelt("group")?);
        let delta = fields.delta(events, measures)?;
        let sums = fields.sums(measures)?;
        if let Some(file) = file {
            let fresh = group.is_none() && read.file(month, file, OfFile { rows, judged, keys: None, groups, sums });
            let bad = fields.bad("a file twice");
            fields.end()?;
            return if fresh { Ok(()) } else { Err(bad) };
        }
        read.others("group", month, rows);
        let group: Option<Group> = group.map(|text| text.parse()).transpose().map_err(|_| fields.bad("no group"))?;
        fields.end()?;
        match group {
            Some(group) if delta.events > 0 => Ok(self.totals.add(&group, month, &delta)?),
            // What has no group counts nowhere.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use recount_schemas::Amount;

    use super::*;
    use crate::athena::answer::line;

    pub(crate) const TOML: &str =
        "[source]\ntable = \"o'scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\nsum = [\"bytes\"]\n";

    fn definition() -> Definition {
        Definition::parse(TOML, "recount.toml").unwrap()
    }

    #[test]
    fn the_question_is_one_reading() {
        insta::assert_snapshot!(question(&definition()).unwrap(), @r#"
        SELECT
            month,
            to_hex(to_utf8(group_key)) AS named,
            "$path" AS file,
            count(*) AS archived,
            count(CASE WHEN class = 'insert' AND source_table = 'o''scans' THEN 1 END) AS events,
            count(CASE WHEN class IS NOT NULL AND source_table IS NOT NULL THEN 1 END) AS judged,
            CASE WHEN "$path" IS NOT NULL THEN to_hex(to_utf8(min(group_key))) END AS first_group,
            CASE WHEN "$path" IS NOT NULL THEN to_hex(to_utf8(max(group_key))) END AS last_group,
            sum(CASE WHEN class = 'insert' AND source_table = 'o''scans' THEN measure_bytes END) AS sum_bytes,
            sum(measure_bytes) AS all_bytes
        FROM events
        GROUP BY GROUPING SETS ((month, group_key), (month, "$path"))
        "#);
        let net = Definition::parse(&format!("{TOML}count = \"net\"\n"), "recount.toml").unwrap();
        assert!(matches!(question(&net), Err(AthenaError::Net)));
    }

    #[test]
    fn an_answer_is_read_exactly() {
        let definition = definition();
        let (mut totals, mut read) = (Totals::new(&definition), Read::default());
        for texts in [
            ["2026-11", "61636D65", "NULL", "5", "4", "5", "NULL", "NULL", "12345678901234567890.000000001", "9"],
            ["2026-11", "7A657461", "NULL", "1", "0", "1", "NULL", "NULL", "NULL", "NULL"],
            ["2026-11", "NULL", "NULL", "2", "0", "2", "NULL", "NULL", "NULL", "1"],
            ["2026-11", "NULL", "s3://b/events/x", "8", "4", "8", "61636D65", "7A657461", "7.000000000", "10"],
        ] {
            totals.take(&line(&texts), &mut read).unwrap();
        }
        let of: Vec<_> = totals.totals.0.values().collect();
        assert_eq!((of.len(), of[0].events), (1, 4));
        assert_eq!(of[0].sums[0], Amount::parse_sum("12345678901234567890.000000001").unwrap());
        assert_eq!(read.size(), (1, 8));
        read.is_whole(Totals::KINDS).unwrap();
        for wrong in [
            ["NULL", "acme", "NULL", "5", "4", "5", "NULL", "NULL", "1", "1"],
            ["2026-13", "acme", "NULL", "5", "4", "5", "NULL", "NULL", "1", "1"],
            ["2026-11", "61636D65", "NULL", "-5", "4", "5", "NULL", "NULL", "1", "1"],
            ["2026-11", "61636D65", "NULL", "5", "x", "5", "NULL", "NULL", "1", "1"],
            ["2026-11", "61636D65", "NULL", "5", "18446744073709551615", "5", "NULL", "NULL", "1", "1"],
            ["2026-11", "61636D65", "NULL", "5", "4", "5", "NULL", "NULL", "NaN", "1"],
            ["2026-11", "61636D65", "NULL", "5", "4", "5", "NULL", "NULL", "1", "x"],
            ["2026-11", "", "NULL", "5", "4", "5", "NULL", "NULL", "1", "1"],
            ["2026-11", "61636D65", "s3://b/events/y", "8", "4", "8", "61636D65", "7A657461", "7", "1"],
            ["2026-11", "NULL", "s3://b/events/x", "8", "4", "8", "61636D65", "7A657461", "7", "1"],
            ["2026-11", "NULL", "s3://b/events/y", "8", "4", "NULL", "61636D65", "7A657461", "7", "1"],
            ["2026-11", "NULL", "s3://b/events/y", "8", "4", "8", "acme", "7A657461", "7", "1"],
        ] {
            let error = totals.take(&line(&wrong), &mut read);
            assert!(matches!(error, Err(AthenaError::Answer(_))), "{wrong:?}");
        }
        assert!(totals.take(&vec![None; 9], &mut read).is_err());
        assert!(totals.take(&vec![Some("2026-11".into()); 5], &mut read).is_err());
        assert!(
            totals
                .take(&line(&["2026-11", "NULL", "NULL", "2", "0", "2", "NULL", "NULL", "NULL", "1", "1"]), &mut read)
                .is_err()
        );
    }
}
