//! The audit, step by step. The order is what makes it honest while changes go on:
//!
//! 1. Read the table: every item with the time of its page, or an export with its one time.
//! 2. Archive to the tip, so that what the table showed has had its chance to be archived.
//! 3. Compare each item with its archived changes up to its time ([`compare`](super::compare)): most are done with that.
//! 4. Look again at those that differ, [`ROUNDS`] times at most: read the item, consistently; wait for what capture may still
//!    have under way (`settle`); archive to the tip; compare with what came since. What differs still is a finding. Of an
//!    export, whose moment is past, only the archive is looked at again.
//!
//! A finding is therefore an item whose present content was not archived within `settle` after it was read. Capture that lags
//! behind more than that is told apart by a longer `--settle`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recount_schemas::definition::OccurredAt;
use recount_schemas::terminal::plural;
use recount_schemas::{EventKey, Group, Month};

use super::again::{Items, quarantined};
use super::compare::{Comparison, Kind};
use super::report::{Count, Finding, LastChange, MAX_FINDINGS, Report};
use crate::bucket::BucketError;
use crate::context::{Context, ContextError};
use crate::contributions::ReadError;
use crate::contributions::locate::locate;
use crate::contributions::reader::live_files;
use crate::contributions::spill::Sorter;
use crate::items::read::{changes, without};
use crate::items::walk::{push_change, push_seen};
use crate::items::{Seen, Side, State, Unnamed, Walk};
use crate::log::{AddedFile, State as LogState};
use crate::progress::{self, Says, Work};
use crate::reconcile::Verdict;
use crate::table::item::{Binary, ItemHash, hash, item_hash, key_text, parse};
use crate::table::pace::Pace;
use crate::table::{Reading, Table, TableError, read, time};

/// How often suspects are looked at again.
pub const ROUNDS: u32 = 2;
/// Most groups' months that are counted.
const MAX_COUNTS: usize = 200_000;

/// What an audit is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How the table is read.
    pub reading: Reading,
    /// How long a change may be under way between the table and the stream.
    pub settle: Duration,
}

/// An audit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// AWS, the definition or the archive.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The table could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The archive could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// An item has no key: it is another table's.
    #[error("an item of {table} lacks an attribute of its key; is `key` in the definition's [source] the table's key")]
    NoKey {
        /// The table.
        table: String,
    },
    /// The temporary file failed.
    #[error("sorting in the temporary directory failed: {0}")]
    Spill(#[from] std::io::Error),
}

/// Items by group and month, on both sides.
#[derive(Debug, Default)]
struct Counts(BTreeMap<(Group, Month), (u64, u64)>);

impl Counts {
    fn at(&mut self, group: Group, month: Month) -> Option<&mut (u64, u64)> {
        if self.0.len() >= MAX_COUNTS && !self.0.contains_key(&(group.clone(), month)) {
            return None;
        }
        Some(self.0.entry((group, month)).or_default())
    }
}

/// Attributes that the archive does not keep.
pub fn omitted(definition: &recount_schemas::Definition) -> Vec<String> {
    definition.archive.omit.clone()
}

/// Holds the archive against the table. `says` is told which step is being made.
pub async fn audit(context: &Context, options: &Options, says: &Says<'_>) -> Result<Report, AuditError> {
    let definition = &context.definition;
    let omitted = omitted(definition);
    // 1. The table.
    let table = read(context, &options.reading, says).await?;
    let (mut sorter, mut counts) = (Sorter::new(), Counts::default());
    push_table(context, &table, &omitted, &mut sorter, &mut counts)?;

    // 2. The archive, to the tip.
    let mut report = Report {
        verdict: Verdict::Undecided,
        undecided_because: None,
        table: table.source.clone(),
        changes: 0,
        archived_items: 0,
        looked_at_again: 0,
        without_key: 0,
        may_be_erased: 0,
        findings: Vec::new(),
        more: 0,
        counts: Vec::new(),
    };
    let Some(mut state) = to_the_tip(context, says).await? else { return Ok(behind(report)) };

    // 3. Side by side.
    says(Work::Step("reading the archive"));
    let push = |change: crate::items::Change| {
        report.changes += 1;
        Ok(push_change(&mut sorter, &change)?)
    };
    let mut unnamed = Unnamed::default();
    let all = files(&state, context)?;
    changes(&context.bucket, definition, progress::files(&all, says), &omitted, &mut unnamed, push).await?;
    says(Work::Step("comparing"));
    let began_us = options.reading.export.is_none().then_some(table.window.0);
    let mut suspects = compare(sorter, table.window, began_us, &mut report, &mut counts)?;
    report.looked_at_again = suspects.len() as u64;

    // 4. Again.
    let pace = Pace::new(context.host.clone(), options.reading.rate);
    let items = Items { dynamo: &context.dynamo, definition, omitted: &omitted, host: &context.host, pace: &pace };
    for _ in 0..ROUNDS {
        if suspects.is_empty() {
            break;
        }
        if options.reading.export.is_none() {
            says(Work::Step(&format!("looking again at {}", plural(suspects.len() as u64, "item"))));
            let keys: Vec<&str> = suspects.iter().map(Comparison::item).collect();
            let now = items.read(&keys).await?;
            for suspect in &mut suspects {
                suspect.again(now.get(&suspect.hash).copied());
            }
        }
        progress::settle(&context.host, options.settle, says).await;
        let Some(next) = to_the_tip(context, says).await? else { return Ok(behind(report)) };
        let known: BTreeSet<&str> = state.live().map(|live| live.file.target.as_str()).collect();
        let new: Vec<AddedFile> =
            files(&next, context)?.into_iter().filter(|file| !known.contains(file.target.as_str())).collect();
        let by_hash: BTreeMap<ItemHash, usize> = suspects.iter().enumerate().map(|(i, s)| (s.hash, i)).collect();
        let take = |change: crate::items::Change| {
            let at = by_hash.get(&hash(change.item.as_bytes()));
            if let Some(suspect) = at.and_then(|at| suspects.get_mut(*at)) {
                suspect.take(&change);
            }
            Ok(())
        };
        changes(&context.bucket, definition, new.iter(), &omitted, &mut unnamed, take).await?;
        suspects.retain(|suspect| suspect.verdict().is_some());
        state = next;
    }
    report.table.read_units += pace.units();
    report.without_key = unnamed.changes;
    (report.findings, report.may_be_erased) = findings(context, &table, &state, &suspects, &unnamed).await?;
    let cells: BTreeSet<(Group, Month)> =
        report.findings.iter().filter_map(|finding| finding.group.clone().zip(finding.month)).collect();
    report.counts = cells
        .into_iter()
        .filter_map(|(group, month)| {
            let (in_table, in_archive) = counts.0.get(&(group.clone(), month)).copied()?;
            Some(Count { group, month, in_table, in_archive })
        })
        .collect();
    report.verdict = match (report.findings.is_empty(), report.more) {
        (true, 0) => Verdict::Clean,
        (true, _) => Verdict::Undecided,
        (false, _) => Verdict::Findings,
    };
    if report.verdict == Verdict::Clean && report.may_be_erased > 0 && unnamed.is_too_many() {
        report.verdict = Verdict::Undecided;
        let why = "so much was erased that a lost item cannot be told from an erased one";
        report.undecided_because = Some(why.to_owned());
    } else if report.verdict == Verdict::Undecided {
        report.undecided_because = Some("too many items differed at the first look; run it again".to_owned());
    }
    Ok(report)
}

fn behind(report: Report) -> Report {
    let why = "the archive did not reach the tip of the stream; run it again".to_owned();
    Report { verdict: Verdict::Undecided, undecided_because: Some(why), ..report }
}

/// The log once the archive is at the tip; `None` where it did not get there.
pub(crate) async fn to_the_tip(context: &Context, says: &Says<'_>) -> Result<Option<LogState>, ContextError> {
    says(Work::Step("archiving to the tip of the stream"));
    let archived = context.archive().await?;
    let state = context.log().await?;
    Ok(archived.reached_tip.then_some(state))
}

/// The live files, all of this definition.
pub(crate) fn files(state: &LogState, context: &Context) -> Result<Vec<AddedFile>, ReadError> {
    Ok(live_files(state, &context.definition)?.into_iter().flat_map(|(_, files)| files).collect())
}

fn push_table(
    context: &Context,
    table: &Table,
    omitted: &[String],
    sorter: &mut Sorter,
    counts: &mut Counts,
) -> Result<(), AuditError> {
    let definition = &context.definition;
    let no_key = || AuditError::NoKey { table: definition.table.clone() };
    for stored in table.spool.items() {
        let stored = stored?;
        let reading = definition.read(&stored.json, stored.read_us).ok();
        if let Some(count) = reading.and_then(|reading| counts.at(reading.group, reading.month)) {
            count.0 += 1;
        }
        let item = parse(&stored.json, Binary::Once).ok_or_else(no_key)?;
        let text = key_text(&definition.key, &item).ok_or_else(no_key)?;
        let image = item_hash(&without(item, omitted));
        let (part, offset, read_us) = (stored.part, stored.offset, stored.read_us);
        push_seen(sorter, &Seen { part, offset, read_us, image, item: text })?;
    }
    Ok(())
}

/// The first look at all items.
fn compare(
    sorter: Sorter,
    window: (i64, i64),
    began_us: Option<i64>,
    report: &mut Report,
    counts: &mut Counts,
) -> Result<Vec<Comparison>, AuditError> {
    let mut suspects = Vec::new();
    let mut done = |comparison: Comparison| {
        if let Some(last) = &comparison.last {
            report.archived_items += 1;
            let group = last.group.clone().filter(|_| last.state != State::Absent);
            if let Some(count) = group.and_then(|group| counts.at(group, last.month)) {
                count.1 += 1;
            }
        }
        match comparison.verdict() {
            None => {}
            Some(_) if suspects.len() < MAX_FINDINGS => suspects.push(comparison),
            Some(_) => report.more += 1,
        }
    };
    let mut current: Option<Comparison> = None;
    for side in Walk::new(sorter.finish()?) {
        let (hash, side) = side?;
        if current.as_ref().is_none_or(|current| current.hash != hash) {
            let seen = match &side {
                Side::Table(seen) => Some(seen.clone()),
                Side::Change(_) => None,
            };
            let next = Comparison::new(hash, seen, window);
            let next = match began_us {
                Some(began_us) => next.by_a_scan(began_us),
                None => next,
            };
            current.replace(next).map(&mut done);
        }
        if let (Some(current), Side::Change(change)) = (&mut current, &side) {
            current.take(change);
        }
    }
    current.map(done);
    Ok(suspects)
}

/// What remains, with the names of things.
async fn findings(
    context: &Context,
    table: &Table,
    state: &LogState,
    suspects: &[Comparison],
    unnamed: &Unnamed,
) -> Result<(Vec<Finding>, u64), AuditError> {
    if suspects.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let mut may_be_erased = 0;
    let definition = &context.definition;
    let waiting = quarantined(&context.bucket, definition, context.host.now_us()).await?.unwrap_or_default();
    let keys: BTreeSet<EventKey> = suspects.iter().filter_map(|s| s.last.as_ref().map(|last| last.key)).collect();
    let located = locate(&context.bucket, definition, state, &keys).await?;
    let mut findings = Vec::with_capacity(suspects.len());
    for suspect in suspects {
        let Some(verdict) = suspect.verdict() else { continue };
        let reason = waiting.get(&suspect.hash).map(|waiting| waiting.reason.as_str());
        let kind = if reason.is_some() { Kind::Quarantined } else { verdict };
        let mut group = suspect.last.as_ref().and_then(|last| Some((last.group.clone()?, last.month)));
        let mut occurred_us = None;
        if let (None, Some(seen)) = (&group, &suspect.seen) {
            let stored = table.spool.get(seen.part, seen.offset)?;
            if let Ok(reading) = definition.read(&stored.json, stored.read_us) {
                // The creation time is not in the item.
                let own = definition.occurred_at != OccurredAt::CreationTime;
                occurred_us = own.then_some(reading.occurred_us);
                group = Some((reading.group, reading.month));
            }
        }
        let uninserted = matches!(verdict, Kind::NeverCaptured | Kind::InsertMissing);
        if uninserted && group.as_ref().is_some_and(|(group, month)| unnamed.may_be(group, *month, occurred_us)) {
            may_be_erased += 1;
            continue;
        }
        let last = suspect.last.as_ref().and_then(|last| {
            let origin = located.get(&last.key)?;
            Some(LastChange {
                event_id: origin.event_id.clone(),
                event_name: last.name.as_str().to_owned(),
                created_at: time(last.created_us),
                shard_id: origin.shard_id.clone(),
                sequence_number: origin.sequence_number.clone(),
            })
        });
        let detail = match reason {
            Some(reason) => format!("{} ({reason}): fix it, then redrive it", kind.meaning()),
            None => kind.meaning().to_owned(),
        };
        let key = serde_json::from_str(suspect.item()).unwrap_or_else(|_| suspect.item().into());
        let (group, month) = group.map_or((None, None), |(group, month)| (Some(group), Some(month)));
        findings.push(Finding { kind, key, group, month, last, detail });
    }
    findings.sort_by(|a, b| {
        let order = |f: &Finding| (f.kind, f.group.clone(), f.month, f.key.to_string());
        order(a).cmp(&order(b))
    });
    Ok((findings, may_be_erased))
}
