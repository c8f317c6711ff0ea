//! `recount recompute --engine athena`.

use std::fmt::Write as _;
use std::io::Write;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{self, grouped};
use crate::athena::AthenaError;
use crate::context::Context;
use crate::progress::Says;
use crate::recompute::athena::Report;

/// Runs it.
pub async fn run(
    context: &Context,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let report = ask(context, says).await?;
    write(out, format, &report, |report| {
        let number = |n: u64| grouped(i64::try_from(n).unwrap_or(i64::MAX));
        let mut text = tables::usage(&report.totals, &context.definition);
        let asked = &report.asked;
        let (files, rows, bytes) = (number(asked.files), number(asked.rows), number(asked.scanned_bytes));
        let entries = number(asked.entries);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{entries} entries of the log, {files} files with {rows} rows, {bytes} bytes scanned by Athena"
        );
        for written in &report.written {
            let _ = writeln!(text, "written {written}");
        }
        text
    })?;
    Ok(Exit::Clean)
}

#[cfg(feature = "aws")]
async fn ask(context: &Context, says: &Says<'_>) -> Result<Report, AthenaError> {
    crate::recompute::athena::run::recompute(context, says).await
}

#[cfg(not(feature = "aws"))]
async fn ask(_: &Context, _: &Says<'_>) -> Result<Report, AthenaError> {
    Err(AthenaError::Unable)
}
