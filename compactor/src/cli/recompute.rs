//! `recount recompute --engine athena`.

use std::fmt::Write as _;
use std::io::Write;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{self, plural};
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
        let mut text = tables::usage(&report.totals, &context.definition);
        let asked = &report.asked;
        let (files, rows, bytes) =
            (plural(asked.files, "file"), plural(asked.rows, "row"), plural(asked.scanned_bytes, "byte"));
        let entries = plural(asked.entries, "entry");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{entries} of the log, {files} with {rows}, {bytes} scanned by Athena");
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
