//! `recount explain`.

use std::io::Write;

use clap::Args;
use recount_schemas::{Group, Month};

use super::args::Format;
use super::commands::{CommandError, Exit, json};
use super::tables;
use crate::context::Context;
use crate::explain::as_of::Moment;
use crate::explain::{Event, Summary, explain_as_of, explain_with};
use crate::reconcile::ReconcileError;

/// What can be typed behind `recount explain`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Why an event is in the number: counted taken_as_counted. Why not: not_yet missing quarantined too_old adds_nothing
counts_elsewhere; with --all: other_month conflict_variant. A group or month without any event is no error: that is said, and the
exit code is 0.

Examples:
  recount explain acme 2026-11                                what makes the number now
  recount explain acme 2026-11 --all                          and why the group's other events do not count in it
  recount explain acme 2026-11 --as-of 2026-12-01T02:00:00Z   what the archive had of it then
  recount explain acme 2026-11 --as-of 4711                   what it had after entry 4711 of its log"
)]
pub struct Explain {
    /// The group.
    pub group: Group,
    /// The month, as 2026-11.
    pub month: Month,
    /// The most events in a table; JSON has all.
    #[arg(long, default_value_t = 1_000)]
    pub limit: usize,
    /// As the archive had it: after this entry of its log, or after the last one made by this time.
    #[arg(long, value_name = "TIME|COMMIT")]
    pub as_of: Option<Moment>,
    /// Also the group's events of other months, and variants that were not archived.
    #[arg(long, conflicts_with = "as_of")]
    pub all: bool,
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: &Explain,
    format: Format,
    out: &mut (dyn Write + Send),
) -> Result<Exit, CommandError> {
    match format {
        Format::Table => {
            let mut events: Vec<Event> = Vec::new();
            let keep = |event| {
                if events.len() < args.limit {
                    events.push(event);
                }
                Ok(())
            };
            let summary = explained(context, args, keep).await?;
            out.write_all(tables::explanation(&summary, &events).as_bytes())?;
        }
        Format::Json => {
            write!(out, "{{\"group\":{},\"month\":{},\"events\":[", json(&args.group)?, json(&args.month)?)?;
            let (mut first, mut failed) = (true, None);
            let each = |event: Event| {
                let comma = if std::mem::take(&mut first) { "" } else { "," };
                let text = serde_json::to_string(&event).map_err(std::io::Error::other)?;
                let written = write!(out, "{comma}\n{text}");
                // What fails here is the output, and not the temporary file of what is sorted.
                Ok(written.inspect_err(|error| failed = Some(std::io::Error::new(error.kind(), error.to_string())))?)
            };
            let summary = explained(context, args, each).await;
            let summary = summary.map_err(|error| failed.take().map_or(error, CommandError::Output))?;
            write!(
                out,
                "],\n\"number\":{},\"archived\":{},\"counted\":{},\"unarchived\":{},\"void\":{}",
                json(&summary.number)?,
                summary.archived,
                summary.counted,
                summary.unarchived,
                summary.void,
            )?;
            if let Some(as_of) = &summary.as_of {
                write!(out, ",\"as_of\":{},\"undated\":{}", json(as_of)?, summary.undated)?;
            }
            writeln!(out, "}}")?;
        }
    }
    Ok(Exit::Clean)
}

async fn explained(
    context: &Context,
    args: &Explain,
    take: impl FnMut(Event) -> Result<(), ReconcileError>,
) -> Result<Summary, CommandError> {
    match args.as_of {
        Some(moment) => Ok(explain_as_of(context, &args.group, args.month, moment, take).await?),
        None => Ok(explain_with(context, &args.group, args.month, args.all, take).await?),
    }
}
