//! Reconcile, step by step. The order is what makes it exact while the pipeline runs:
//!
//! 1. Note the time. Read the progress of all shards.
//! 2. Read the cells (consistent): each item is one moment.
//! 3. Per cell, after its item, read its pages (consistent) and its too-old list.
//! 4. Read quarantine and applied plans.
//! 5. Archive to the tip as it is found now, then compare.
//!
//! The first look takes what the files' summaries say of their rows (see [`bulk`](super::bulk)), and reads the rows of the files
//! without one; or it takes what Athena says of all rows, asked in step 5 when the archive is at the tip (see
//! [`by_athena`]). Cells about which these alone say nothing go through all five steps by their rows.
//!
//! So every key that a cell has counted is archived by step 5, and every record at or below the progress of step 1 had its
//! verdict before the cells were read. Cells where something seems wrong go through all five steps once more: the archive
//! gets its second chance to have a key, a cell that has no item is looked for by its pages, and a difference that one event
//! would explain is held against the events. What the second look says is the finding.
//!
//! What Athena said of a cell is held against its rows: where fewer of them are archived than it said, it meant another cell, and
//! of that one nobody knows. Then nothing is said. (An erasure that removes events meanwhile looks just so, and the next reconcile decides.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use recount_schemas::bugs::{self, Bug};
use recount_schemas::{Cell, Delta, EventKey};

use super::bulk::Bulks;
use super::by_athena;
use super::diff::{OutOfRange, horizon};
use super::evidence::{self, EvidenceError};
use super::finding::{Finding, Kind, Named, named_sums};
use super::join::{Compared, Contributions, Fewer, Found, JoinError, Known, compare};
use super::look::{LookError, Unusable, read_cells};
use super::standing::Standings;
use super::{ByAthena, Report, Verdict, places, table};
use crate::athena::{Asked, AthenaError, Place};
use crate::bucket::{BucketError, Objects};
use crate::context::{Context, ContextError};
use crate::contributions::locate::locate;
use crate::contributions::reader::{Reader, live_files};
use crate::contributions::spill::Sorter;
use crate::contributions::{ReadError, Scope};
use crate::log::{LogStore, State};
use crate::progress::{Says, Work};
use crate::recompute::write::WriteError;
use crate::repair::applied::{self, AppliedError};

/// A reconcile that took longer says nothing: pages may have expired under it.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// Reconcile could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// AWS, the definition or the archive.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The cells could not be read.
    #[error(transparent)]
    Look(#[from] LookError),
    /// An item is not understood, and the question is about its cell.
    #[error("{0}; mend or delete the item, then repair")]
    Unusable(String),
    /// Quarantine or conflicts could not be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Applied plans could not be read.
    #[error(transparent)]
    Applied(#[from] AppliedError),
    /// The archive could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The comparison failed.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A sum is out of range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The temporary file failed.
    #[error("sorting in the temporary directory failed: {0}")]
    Spill(#[from] std::io::Error),
    /// The findings could not be laid out as a table.
    #[error(transparent)]
    Table(#[from] WriteError),
    /// The findings could not be stored.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// Athena could not say.
    #[error(transparent)]
    Athena(Box<AthenaError>),
}

impl From<AthenaError> for ReconcileError {
    fn from(error: AthenaError) -> Self {
        Self::Athena(Box::new(error))
    }
}

/// A report, and the reconstruction that it came from.
#[derive(Debug)]
pub struct Reconciled {
    /// The report.
    pub report: Report,
    /// The cells with findings.
    pub found: Vec<Found>,
}

/// By what a pass compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The summaries of the files that have one, and the rows of the others.
    Summaries,
    /// What Athena says of the rows of all files.
    Athena,
    /// The rows of all files.
    Rows,
}

struct Pass {
    now_ms: i64,
    compared: Compared,
    /// Whether anything stood for rows.
    in_bulk: bool,
    /// What Athena was asked.
    asked: Option<Asked>,
    unusable: Vec<Unusable>,
    state: State,
    quarantined: u64,
    /// Why nothing can be said.
    undecided: Option<String>,
}

/// Compares all cells in `scope`. `says` is told which step is being made. A reconcile of everything keeps what it found under
/// [`table::FINDINGS`]; one of a part would hide what is wrong elsewhere, and leaves the table as it is.
pub async fn reconcile(context: &Context, scope: &Scope, says: &Says<'_>) -> Result<Reconciled, ReconcileError> {
    by(By::Summaries, context, scope, says).await
}

/// The same, where Athena says which cells need not be looked at event by event.
pub async fn reconcile_by_athena(
    context: &Context,
    scope: &Scope,
    says: &Says<'_>,
) -> Result<Reconciled, ReconcileError> {
    // What cannot be asked shows before anything is read.
    Place::of(context)?;
    by(By::Athena, context, scope, says).await
}

async fn by(first: By, context: &Context, scope: &Scope, says: &Says<'_>) -> Result<Reconciled, ReconcileError> {
    context.check_definition().await?;
    let began = context.host.monotonic();
    let mut last = pass(context, scope, first, Before::default(), says).await?;
    let (cells, events, in_bulk) = (last.compared.cells, last.compared.events, last.in_bulk);
    let not_settled = suspects(&last.compared).len() as u64;
    let athena = last
        .asked
        .take()
        .map(|asked| ByAthena { asked, cells_read: not_settled.saturating_add(last.compared.more_suspects) });
    if in_bulk && last.undecided.is_none() && not_settled > 0 {
        says(Work::Step("reading the events of the cells that are not shown to be clean without"));
        last = match last.compared.more_suspects {
            0 => {
                let said = if first == By::Athena { said(&last.compared) } else { BTreeMap::new() };
                again(context, scope, last, Before { said, ..Before::default() }, says).await?
            }
            // All rows are read: what was said of them is nothing any more.
            _ => pass(context, scope, By::Rows, Before::default(), says).await?,
        };
        last.undecided = last.undecided.or_else(|| last.compared.fewer.as_ref().map(contradicted));
    }
    if last.undecided.is_none() && !suspects(&last.compared).is_empty() {
        says(Work::Step("looking again at the cells where something seems wrong"));
        let hints: BTreeMap<Cell, Delta> = last.compared.found.iter().filter_map(hint).collect();
        last = again(context, scope, last, Before { hints, ..Before::default() }, says).await?;
        resolve(context, &mut last).await?;
    }
    let mut undecided = last.undecided;
    if context.host.monotonic().saturating_sub(began) > LONGEST {
        undecided = Some("it ran longer than a day; narrow it with --month or --group".to_owned());
    }

    let found = last.compared.found;
    let mut findings: Vec<Finding> = lost(&last.state);
    last.unusable.sort_by(|a, b| (&a.cell, &a.why).cmp(&(&b.cell, &b.why)));
    findings.extend(last.unusable.iter().map(unusable));
    for found in &found {
        for finding in &found.outcome.findings {
            findings.push(Finding {
                expected_sums: named_sums(&context.definition, &found.outcome.expected),
                actual_sums: named_sums(&context.definition, &found.outcome.actual),
                ..finding.clone()
            });
        }
    }
    places::fill(&context.bucket, &last.state, &mut findings).await?;
    if (cells, events, findings.len()) == (0, 0, 0) {
        undecided = undecided.or_else(|| nothing_asked_for(scope));
    }
    let verdict = match (&undecided, findings.is_empty()) {
        (Some(_), _) => Verdict::Undecided,
        (None, true) => Verdict::Clean,
        (None, false) => Verdict::Findings,
    };
    let mut tally = last.compared.tally;
    found.iter().for_each(|found| tally.add(found.outcome.tally));
    let report = Report {
        verdict,
        coverage: undecided.is_none().then(|| tally.at(last.now_ms)),
        undecided_because: undecided,
        cells,
        events,
        quarantined: last.quarantined,
        findings,
        more_cells: last.compared.more_cells,
        athena,
    };
    if *scope == Scope::all() && report.verdict != Verdict::Undecided {
        let entry = i64::try_from(last.state.next).unwrap_or(i64::MAX).saturating_sub(1);
        let bytes = table::findings(&context.definition, &report, entry, context.host.now_ms())?;
        context.bucket.put(table::FINDINGS, bytes.into()).await?;
    }
    Ok(Reconciled { report, found })
}

/// Why a part in which nothing is says nothing: what was asked for may be misspelt, and would pass for clean.
fn nothing_asked_for(scope: &Scope) -> Option<String> {
    let group = scope.group.as_ref().map(|group| format!("of group {group}"));
    let month = scope.month.map(|month| format!("of {month}"));
    let asked: Vec<String> = group.into_iter().chain(month).collect();
    (!asked.is_empty())
        .then(|| format!("no event {} is counted or archived; recount usage lists groups and months", asked.join(" ")))
}

/// Holes that the stream left in the archive: findings for ever.
fn lost(state: &State) -> Vec<Finding> {
    let finding = |hole: &crate::log::state::Hole| {
        let number =
            |n: &Option<recount_schemas::SequenceNumber>, else_| n.as_ref().map_or(else_, |n| n.as_str()).to_owned();
        let detail = format!(
            "stream {} may have dropped records of shard {} behind {} and before {} (log entry {})",
            hole.stream.arn,
            hole.shard,
            number(&hole.lost.after, "its beginning"),
            number(&hole.lost.before, "its end"),
            hole.n
        );
        Finding::about_none(Kind::Lost, detail)
    };
    state.lost.iter().map(finding).collect()
}

/// An item that nobody understands: a finding about its cell, or about none.
fn unusable(Unusable { cell, why }: &Unusable) -> Finding {
    let detail = format!("{why}; mend or delete the item, then repair");
    match cell {
        Some(cell) => Finding::about(Kind::Unusable, cell, Named::default(), detail),
        None => Finding::about_none(Kind::Unusable, detail),
    }
}

/// The difference that one event might explain.
fn hint(found: &Found) -> Option<(Cell, Delta)> {
    Some((found.outcome.cell.clone(), found.outcome.unexplained.clone()?))
}

fn suspects(compared: &Compared) -> BTreeSet<Cell> {
    let found = compared.found.iter().map(|found| &found.outcome.cell);
    let open = compared.open.iter().map(|open| open.cell());
    found.chain(open).chain(compared.suspects.keys()).cloned().collect()
}

/// How many archived events the cells that are looked at again were said to have.
fn said(compared: &Compared) -> BTreeMap<Cell, u64> {
    let found = compared.found.iter().map(|found| (&found.outcome.cell, found.outcome.events));
    let open = compared.open.iter().map(|open| (open.cell(), open.events()));
    let suspects = compared.suspects.iter().map(|(cell, rows)| (cell, *rows));
    found.chain(open).chain(suspects).map(|(cell, events)| (cell.clone(), events)).collect()
}

/// Why nothing can be said where Athena and the rows contradict each other.
fn contradicted(Fewer { cell: Cell { group, month, lane }, said, read }: &Fewer) -> String {
    format!(
        "Athena said that group {:?} has {said} events of {month} in lane {lane}, and {read} of them are archived; \
         run it again, then without --engine athena, and see `recount fsck`",
        group.as_str()
    )
}

/// What earlier passes said.
#[derive(Debug, Default)]
struct Before {
    /// Differences that one event might explain.
    hints: BTreeMap<Cell, Delta>,
    /// How many archived events Athena said that cells have.
    said: BTreeMap<Cell, u64>,
}

/// The suspects of a pass once more, by their rows. What the pass says of all others stays said.
async fn again(
    context: &Context,
    scope: &Scope,
    before: Pass,
    told: Before,
    says: &Says<'_>,
) -> Result<Pass, ReconcileError> {
    let cells = Scope { cells: Some(Arc::new(suspects(&before.compared))), ..scope.clone() };
    let mut next = pass(context, &cells, By::Rows, told, says).await?;
    next.compared.more_cells += before.compared.more_cells;
    next.compared.tally.add(before.compared.tally);
    next.unusable.extend(before.unusable);
    Ok(next)
}

/// Looks for unmatched keys in the whole archive, and concludes the cells that have them.
async fn resolve(context: &Context, pass: &mut Pass) -> Result<(), ReconcileError> {
    let open = std::mem::take(&mut pass.compared.open);
    let keys: BTreeSet<EventKey> = open.iter().flat_map(|open| open.unmatched().collect::<Vec<_>>()).collect();
    let located = locate(&context.bucket, &context.definition, &pass.state, &keys).await?;
    for mut open in open {
        open.misplace(&located);
        pass.compared.take(open.conclude()?);
    }
    pass.compared.found.sort_by(|a, b| {
        let order = |found: &Found| {
            let cell = &found.outcome.cell;
            (cell.month, cell.group.clone(), cell.lane)
        };
        order(a).cmp(&order(b))
    });
    Ok(())
}

/// The log as it was with so many entries, as the archive run left it; as it is now where `earlier` has more. An entry that was put since
/// may be under way for long, and till then a month's location shows what was before it.
async fn at(context: &Context, earlier: State, entries: u64) -> Result<State, ReconcileError> {
    if earlier.next == entries {
        return Ok(earlier);
    }
    let log = LogStore::new(context.bucket.clone(), context.host.clone());
    let (mut state, mut found) = (earlier, None);
    let followed = log.follow(&mut state, |state| {
        if state.next == entries {
            found = Some(state.clone());
        }
    });
    followed.await.map_err(ContextError::from)?;
    Ok(found.unwrap_or(state))
}

async fn pass(
    context: &Context,
    scope: &Scope,
    by: By,
    before: Before,
    says: &Says<'_>,
) -> Result<Pass, ReconcileError> {
    // 1. The time and the progress, before anything else.
    says(Work::Step("reading the consumer's progress"));
    let now_ms = context.host.now_ms();
    let passed = context.passed().await?;

    // 2 and 3. The cells; of each, after its item, the pages and the too-old list.
    says(Work::Step("reading the cells and their ledgers"));
    let mut sorter = Sorter::new();
    let read = read_cells(&context.totals, scope, &mut sorter).await?;
    let standings = Standings::new(sorter.finish()?);
    let passed = if bugs::on(Bug::ProgressAfterCells) { context.passed().await? } else { passed };

    // 4. Quarantine and plans.
    says(Work::Step("reading quarantine and applied plans"));
    let quarantined = evidence::quarantined(&context.bucket).await?;
    let settled = applied::settled(&context.bucket).await?;

    // 5. The archive, to the tip as it is now; conflicts are written on the way there.
    says(Work::Step("archiving to the tip of the stream"));
    let earlier = match by {
        By::Athena => Some(context.log().await?),
        By::Summaries | By::Rows => None,
    };
    let archived = context.archive().await?;
    let state = match earlier {
        Some(earlier) => at(context, earlier, archived.log_entries).await?,
        None => context.log().await?,
    };
    let in_quarantine = quarantined.len() as u64;
    if !archived.reached_tip {
        let why = "the archive did not reach the tip of the stream; run it again".to_owned();
        return Ok(Pass {
            now_ms,
            compared: Compared::default(),
            in_bulk: false,
            asked: None,
            unusable: read.unusable,
            state,
            quarantined: in_quarantine,
            undecided: Some(why),
        });
    }
    let known = Known {
        passed,
        horizon: Some(horizon(now_ms, context.definition.ledger_days)),
        quarantined,
        voided: settled.void,
        settled: settled.settled,
        variants: evidence::variants(&context.bucket, &context.definition, scope).await?,
        hints: before.hints,
        said: before.said,
        unusable: read.unusable.iter().filter_map(|unusable| unusable.cell.clone()).collect(),
    };
    let files = || live_files(&state, &context.definition);
    let (bulks, files, asked) = match by {
        By::Rows => (Bulks::default(), files()?, None),
        By::Summaries => {
            let read = Bulks::read(&context.bucket, &context.definition, scope, &known.passed, files()?, says).await;
            let (bulks, files) = read.map_err(ReadError::from)?;
            (bulks, files, None)
        }
        By::Athena => {
            let horizon = horizon(now_ms, context.definition.ledger_days);
            let (answered, of) = by_athena::ask(context, scope, &known.passed, horizon, &state, says).await?;
            (Bulks::answered(answered)?, Vec::new(), Some(of))
        }
    };
    let in_bulk = !bulks.is_empty();
    says(Work::Step("comparing"));
    let reader = Reader::new(context.bucket.clone(), Arc::clone(&context.definition), scope.clone(), files);
    let contributions = Contributions::Archive(Box::new(reader.telling(says)));
    let compared = compare(&context.definition, &known, standings, bulks, contributions).await?;
    let (unusable, quarantined) = (read.unusable, in_quarantine);
    Ok(Pass { now_ms, compared, in_bulk, asked, unusable, state, quarantined, undecided: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;
    use crate::log::entry::Lost;
    use crate::log::state::Hole;

    #[cfg(feature = "aws")]
    #[tokio::test]
    async fn the_log_is_as_the_archive_run_left_it() {
        use crate::athena::about::tests::Deployment;
        let entries = ["2026-10", "2026-11", "2026-11", "2026-10"];
        let deployment = Deployment::new(crate::rows::testing::definition(), &entries, 4, vec![Vec::new()]);
        let mut state = State::default();
        for (wanted, found) in [(0, 0), (1, 1), (3, 3), (3, 3), (4, 4), (3, 4), (9, 4)] {
            state = at(&deployment.context, state, wanted).await.unwrap();
            assert_eq!(state.next, found, "{wanted}");
        }
    }

    #[test]
    fn a_part_in_which_nothing_is_is_not_clean() {
        let group = Some("Acme".parse().unwrap());
        let scope = Scope { group: group.clone(), month: Some("2020-01".parse().unwrap()), ..Scope::all() };
        insta::assert_snapshot!(nothing_asked_for(&scope).unwrap(), @"no event of group Acme of 2020-01 is counted or archived; recount usage lists groups and months");
        insta::assert_snapshot!(nothing_asked_for(&Scope { group, ..Scope::all() }).unwrap(), @"no event of group Acme is counted or archived; recount usage lists groups and months");
        assert_eq!(nothing_asked_for(&Scope::all()), None, "a new deployment is clean");
    }

    /// As the log says it of an open shard of a stream that was deleted and made anew.
    #[test]
    fn what_the_log_says_is_lost_is_one_finding() {
        let lost_there = Lost { after: Some("7".parse().unwrap()), before: None, since_ms: Some(1), found_ms: 2 };
        let stream = Stream { arn: "arn:aws:kinesis:us-east-1:0:stream/s".into(), created_ms: 1 };
        let hole = Hole { n: 4, stream, shard: "s0".parse().unwrap(), lost: lost_there };
        let findings = lost(&State { lost: vec![hole], ..State::default() });
        assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::Lost]);
        insta::assert_snapshot!(findings[0].detail, @"stream arn:aws:kinesis:us-east-1:0:stream/s may have dropped records of shard s0 behind 7 and before its end (log entry 4)");
    }
}
