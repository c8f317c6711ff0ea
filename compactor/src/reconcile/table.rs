//! Findings as Parquet, in the schema of [`recount_schemas::archive::findings_schema`], for Athena: one object, one PUT.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{
    ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use parquet::file::metadata::KeyValue;
use recount_schemas::amount::{PRECISION, SCALE};
use recount_schemas::archive::findings_schema;
use recount_schemas::{Amount, Definition};

use super::finding::{Finding, NamedEvent};
use super::{Report, Verdict};
use crate::recompute::write::{WriteError, parquet};

/// Where they are.
pub const FINDINGS: &str = "findings/findings.parquet";
/// The key of the file's metadata under which the verdict stands.
pub const VERDICT: &str = "recount.verdict";

/// One row: a finding, and one of the events that it names.
struct Line<'r> {
    number: i64,
    finding: &'r Finding,
    event: Option<&'r NamedEvent>,
}

/// The findings of a report, made from the log up to entry `log_entry` and ended at `found_ms`.
pub fn findings(
    definition: &Definition,
    report: &Report,
    log_entry: i64,
    found_ms: i64,
) -> Result<Vec<u8>, WriteError> {
    let lines: Vec<Line<'_>> = (0..)
        .zip(&report.findings)
        .flat_map(|(number, finding)| {
            let none = finding.events.is_empty().then_some(None);
            let events = finding.events.iter().map(Some).chain(none);
            events.map(move |event| Line { number, finding, event })
        })
        .collect();
    let numbers = |value: &dyn Fn(&Line<'_>) -> Option<i64>| -> ArrayRef {
        Arc::new(lines.iter().map(value).collect::<Int64Array>())
    };
    let small = |value: &dyn Fn(&Line<'_>) -> Option<i32>| -> ArrayRef {
        Arc::new(lines.iter().map(value).collect::<Int32Array>())
    };
    let texts = |value: &dyn Fn(&Line<'_>) -> Option<String>| -> ArrayRef {
        Arc::new(lines.iter().map(value).collect::<StringArray>())
    };
    let mut keys = BinaryBuilder::new();
    lines.iter().for_each(|line| keys.append_option(line.event.map(|event| event.event_key.as_bytes())));
    let of_cell = |line: &Line<'_>, value: i64| line.finding.group.as_ref().map(|_| value);
    let origin = |line: &Line<'_>| line.event.and_then(|event| event.origin.clone());
    let row = |line: &Line<'_>| line.event.and_then(|event| event.row);
    let mut columns = vec![
        numbers(&|line| Some(line.number)),
        texts(&|line| Some(line.finding.kind.as_str().to_owned())),
        texts(&|line| line.finding.group.as_ref().map(ToString::to_string)),
        texts(&|line| line.finding.month.map(|month| month.to_string())),
        small(&|line| line.finding.lane.map(i32::from)),
        numbers(&|line| of_cell(line, line.finding.expected)),
        numbers(&|line| of_cell(line, line.finding.actual)),
        numbers(&|line| Some(i64::try_from(line.finding.count).unwrap_or(i64::MAX))),
        texts(&|line| Some(line.finding.detail.clone())),
        Arc::new(keys.finish()),
        texts(&|line| Some(origin(line)?.event_id)),
        texts(&|line| Some(origin(line)?.shard_id.to_string())),
        texts(&|line| Some(origin(line)?.sequence_number.to_string())),
        texts(&|line| Some(origin(line)?.file)),
        small(&|line| i32::try_from(row(line)?.row_group).ok()),
        numbers(&|line| i64::try_from(row(line)?.row_number).ok()),
        numbers(&|_| Some(log_entry)),
        Arc::new(TimestampMillisecondArray::from_iter_values(lines.iter().map(|_| found_ms))),
    ];
    for actual in [false, true] {
        for measure in &definition.measures {
            let sum = |line: &Line<'_>| -> Option<i128> {
                let sums = if actual { &line.finding.actual_sums } else { &line.finding.expected_sums };
                sums.get(&measure.attribute).copied().map(Amount::billionths)
            };
            // SCALE is 9: it fits an i8.
            let array = lines.iter().map(sum).collect::<Decimal128Array>();
            columns.push(Arc::new(array.with_precision_and_scale(PRECISION, SCALE as i8)?));
        }
    }
    let batch = RecordBatch::try_new(findings_schema(definition), columns)?;
    let verdict = match report.verdict {
        Verdict::Clean => "clean",
        Verdict::Findings => "findings",
        Verdict::Undecided => "undecided",
    };
    parquet(definition, &batch, [KeyValue::new(VERDICT.to_owned(), verdict.to_owned())])
}
