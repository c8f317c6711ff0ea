//! `recount replay`: the command line, its table, its exit code.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use recount_schemas::Group;
use recount_schemas::terminal::{shown, shown_line};

use super::args::Format;
use super::commands::{CommandError, Exit};
use super::tables::{count, plural};
use crate::context::Context;
use crate::progress::Says;
use crate::replay::{Ask, Question, ReplayError, Report, When, replay};

/// What is typed behind `recount replay`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Times are those of creation, as DynamoDB gives them. 2026-11-22 and 2026-11 begin by the definition's time zone.

Examples:
  recount replay --from 2026-11-20 --to 2026-11-21 --into mended                what it would send, and how long it takes
  recount replay --from 2026-11-20 --to 2026-11-21 --into mended --confirm      send it; killed, the same line goes on
  recount replay --into shadow --hand-over --follow --confirm                   everything, then the live stream as it comes
  recount replay --into shadow --positions                                      where your own consumer takes over

Ends with 0 when it is through or only shown, 1 where changes could not be sent since part of them was erased,
2 where it failed: the same command then goes on behind the last records that were acknowledged."
)]
pub struct ReplayArgs {
    /// Only changes created at or after this time: 2026-11-22T08:00:00Z, 2026-11-22 or 2026-11.
    #[arg(long, value_name = "TIME")]
    pub from: Option<When>,
    /// Only changes created before this time.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["hand_over", "positions"])]
    pub to: Option<When>,
    /// Only changes whose image is of this group.
    #[arg(long)]
    pub group: Option<Group>,
    /// The stream that they go into.
    #[arg(long, value_name = "STREAM")]
    pub into: String,
    /// Records a second [default: 500 for each of the stream's shards].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Bytes a second [default: 500,000 for each of the stream's shards].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes_per_second: Option<u64>,
    /// Keep the checkpoint in this file [default: an object replays/HASH.json in the bucket].
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Behind the archive's last record go on with the live stream, to its tip.
    #[arg(long)]
    pub hand_over: bool,
    /// Go on beyond the tip until interrupted.
    #[arg(long, requires = "hand_over")]
    pub follow: bool,
    /// Only print, as JSON, where a consumer of your own begins on the live stream behind this replay: with its --from, --group and
    /// --checkpoint. Refused with 2 until it is done.
    #[arg(long, conflicts_with_all = ["hand_over", "confirm"])]
    pub positions: bool,
    /// Send them.
    #[arg(long)]
    pub confirm: bool,
}

/// Runs the command.
pub async fn run(
    context: &Context,
    args: ReplayArgs,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let zone = context.definition.zone.rules();
    let at = |when: Option<When>| match when.map(|when| when.us(zone)) {
        Some(None) => Err(ReplayError::Question("a time is out of the calendar's range".to_owned())),
        Some(us) => Ok(us),
        None => Ok(None),
    };
    let (from_us, to_us) = (at(args.from)?, at(args.to)?);
    if from_us.zip(to_us).is_some_and(|(from, to)| from >= to) {
        return Err(ReplayError::Question("--from is not before --to".to_owned()).into());
    }
    let question = Question { from_us, to_us, group: args.group, into: args.into, hand_over: args.hand_over };
    let ask = Ask {
        question,
        rate: args.rate,
        bytes_per_second: args.bytes_per_second,
        checkpoint: args.checkpoint,
        follow: args.follow,
        confirm: args.confirm,
    };
    let report = replay(context, &ask, says).await?;
    if args.positions {
        if !report.finished {
            return Err(ReplayError::NotDone { checkpoint: report.checkpoint }.into());
        }
        serde_json::to_writer(&mut *out, &report.positions)?;
        writeln!(out)?;
        return Ok(Exit::Clean);
    }
    super::commands::write(out, format, &report, table)?;
    Ok((&report).into())
}

impl From<&Report> for Exit {
    fn from(report: &Report) -> Self {
        match (report.confirmed, report.incomplete, report.finished) {
            (true, 0, true) | (false, ..) => Self::Clean,
            (true, _, true) => Self::Findings,
            (true, _, false) => Self::Undecided,
        }
    }
}

impl From<ReplayError> for CommandError {
    fn from(error: ReplayError) -> Self {
        Self::Replay(Box::new(error))
    }
}

/// How such an error ends the command.
pub fn exit(error: &ReplayError) -> Exit {
    match error {
        ReplayError::Context(error) => super::commands::exit_of_context(error),
        ReplayError::IntoItself(_) | ReplayError::Question(_) | ReplayError::Checkpoint { .. } => Exit::Usage,
        _ => Exit::Undecided,
    }
}

/// The report for people.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<13}{value}"); // writing to a string cannot fail
    };
    let question = &report.question;
    line("into", format!("{}, {}", shown(&question.into), plural(report.shards, "shard")));
    let when = |us: Option<i64>, none: &str| us.map_or_else(|| none.to_owned(), instant);
    line(
        "created",
        format!("{} up to {}", when(question.from_us, "the beginning"), when(question.to_us, "the last archived")),
    );
    if let Some(group) = &question.group {
        line("group", shown(group.as_str()));
    }
    let found = match (report.first_created_us, report.last_created_us) {
        (Some(first), Some(last)) => format!(", created {} to {}", instant(first), instant(last)),
        _ => String::new(),
    };
    // What was sent to its end is not counted again.
    if report.resumed && report.events == 0 {
        line("archived", "nothing of it is left to send".to_owned());
    } else {
        let (changes, groups) = (plural(report.events, "change"), plural(report.groups, "group"));
        line("archived", format!("{changes} in {groups}, {}{found}", plural(report.bytes, "byte")));
        let (records, bytes) = (plural(report.rate.records, "record"), plural(report.rate.bytes, "byte"));
        line("rate", format!("{records} and {bytes} a second: {} left", duration(report.seconds)));
    }
    line("checkpoint", format!("{}{}", shown(&report.checkpoint), if report.resumed { ", taken up" } else { "" }));
    for warning in &report.warnings {
        line("note", shown_line(warning));
    }
    if report.incomplete > 0 {
        let ids: Vec<String> = report.incomplete_ids.iter().map(|id| shown(id)).collect();
        line("not sent", format!("{}: {}", plural(report.incomplete, "change"), ids.join(", ")));
    }
    let sent = format!("{} sent, {} forwarded from the live stream", count(report.sent), count(report.forwarded));
    let end = match (report.confirmed, report.finished, question.hand_over) {
        (_, true, false) => format!("done: {sent}"),
        (true, true, true) => format!("at the tip: {sent}"),
        (true, false, _) => format!("not through: {sent}"),
        (false, _, true) => {
            format!("{sent} so far; with --confirm the archive goes to the tip, is sent, and the live stream follows")
        }
        (false, false, false) => format!("{sent} so far; with --confirm the rest is sent"),
    };
    let _ = writeln!(text, "{end}"); // writing to a string cannot fail
    text
}

fn instant(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| format!("{us} µs"), |at| at.to_string())
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::run::Positions;
    use crate::replay::send::Rate;

    fn report() -> Report {
        Report {
            confirmed: false,
            question: Question {
                from_us: Some(1_793_491_200_000_000),
                to_us: None,
                group: Some("acme".parse().unwrap()),
                into: "mended".to_owned(),
                hand_over: false,
            },
            checkpoint: "replays/00.json".to_owned(),
            resumed: false,
            events: 1_500_000,
            bytes: 900_000_000,
            groups: 1,
            first_created_us: Some(1_793_491_200_000_000),
            last_created_us: Some(1_793_577_600_000_001),
            incomplete: 0,
            incomplete_ids: Vec::new(),
            too_large: 0,
            shards: 2,
            rate: Rate { records: 1_000, bytes: 1_000_000 },
            seconds: 1_500,
            warnings: Vec::new(),
            sent: 0,
            forwarded: 0,
            finished: false,
            positions: Positions::default(),
        }
    }

    #[test]
    fn a_plan_says_what_it_would_do() {
        insta::assert_snapshot!(table(&report()), @r"
        into         mended, 2 shards
        created      2026-11-01T00:00:00Z up to the last archived
        group        acme
        archived     1,500,000 changes in 1 group, 900,000,000 bytes, created 2026-11-01T00:00:00Z to 2026-11-02T00:00:00.000001Z
        rate         1,000 records and 1,000,000 bytes a second: 25 min left
        checkpoint   replays/00.json
        0 sent, 0 forwarded from the live stream so far; with --confirm the rest is sent
        ");
    }

    #[test]
    fn what_was_sent_before_is_not_said_to_be_nothing() {
        let done =
            Report { resumed: true, finished: true, events: 0, groups: 0, bytes: 0, sent: 1_500_000, ..report() };
        insta::assert_snapshot!(table(&done), @r"
        into         mended, 2 shards
        created      2026-11-01T00:00:00Z up to the last archived
        group        acme
        archived     nothing of it is left to send
        checkpoint   replays/00.json, taken up
        done: 1,500,000 sent, 0 forwarded from the live stream
        ");
    }

    #[test]
    fn how_a_replay_ends() {
        for (confirmed, incomplete, finished, exit) in [
            (false, 3, false, Exit::Clean),
            (true, 0, true, Exit::Clean),
            (true, 3, true, Exit::Findings),
            (true, 0, false, Exit::Undecided),
        ] {
            let report = Report { confirmed, incomplete, finished, ..report() };
            assert_eq!(Exit::from(&report), exit, "{confirmed} {incomplete} {finished}");
        }
        assert_eq!(exit(&ReplayError::IntoItself("s".to_owned())), Exit::Usage);
    }
}
