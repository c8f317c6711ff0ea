//! Applying a plan, part by part; every step may be done again.
//!
//! 1. Wait until `settle` after the table was read, so that what was changed before is in the stream; for nothing there is no wait.
//!    Archive to the tip.
//! 2. Of each part: the rows that are archived already (by this plan, before a crash) are left out. So are items of which the
//!    archive has had a change since the plan was made that was made before the item was read, or a backfilled row:
//!
//!    | since then came | the item |
//!    | --- | --- |
//!    | its captured INSERT | is `captured`: counted by the consumer |
//!    | another captured change made before it was read | has `moved`: the next plan knows what is missing of it |
//!    | another plan's row for it | is `backfilled` |
//!    | a record of it in quarantine that a redrive would count | has `moved` |
//!    | an erased INSERT of its group's month | has `moved`: that may have been its own |
//!
//! 3. The rows that are left go into the archive by one entry of the log, which is put only if no rows came since step 2 looked;
//!    else again from there. So of two plans, or two runs of one plan, only one can bring an item in.
//! 4. All rows of the part that are in the archive are counted, through the consumer's own path, which counts each once.
//!
//! A crash between 3 and 4 leaves rows that are archived and not counted: reconcile calls them `missing`, and the next run, or
//! a repair, counts them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use recount_consumer::totals::Entry as Counted;
use recount_schemas::host::Deadline;
use recount_schemas::{Cell, Delta, EventKey, EventName, Month, SequenceNumber, ShardId};
use serde::{Deserialize, Serialize};

use super::BackfillError;
use super::make::{Named, waiting};
use super::plan::{FORMAT, Missing, Plan, judge, origin, part_key, report_key, shard, unpack};
use crate::archive::life::Life;
use crate::audit::again::Waiting;
use crate::audit::run::to_the_tip;
use crate::bucket::Objects;
use crate::commit::{Addition, Committer, Outcome, token};
use crate::context::Context;
use crate::history::{History, whole};
use crate::items::read::changes_where;
use crate::items::{Change, Unnamed};
use crate::log::{AddedFile, LogStore, State, names};
use crate::progress::{Says, Work, settle};
use crate::rows::row::Place;
use crate::rows::{ArchivedRow, lookup, write};
use crate::table::item::{ItemHash, hash};
use crate::table::pace::Pace;

/// Events given to the consumer's path at a time.
const AT_ONCE: usize = 96;
/// How often in a row others may put rows first.
const TRIES: u32 = 50;
/// Most archived changes since the plan was made that are held.
const MAX_SINCE: usize = 4_000_000;
/// The largest part as stored.
const MAX_PART: u64 = 256 << 20;
/// The largest report.
const MAX_REPORT: u64 = 16 << 20;
/// Items that are named of those that were left out.
const NAMED: usize = 1_000;
const DAY_US: i64 = 86_400_000_000;

/// Why an item of the plan was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Its INSERT was captured meanwhile.
    Captured,
    /// Another change of it, made before it was read, was captured meanwhile.
    Moved,
    /// Another plan brought it in.
    Backfilled,
}

/// An item that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The canonical text of its key.
    pub key: String,
    /// Why.
    pub why: Left,
}

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Applied {
    /// The format of the report.
    pub format: u32,
    /// Rows that were added to the archive.
    pub added: u64,
    /// Rows that an earlier run of the plan had added.
    pub added_before: u64,
    /// Events that were counted.
    pub counted: u64,
    /// Events that had been counted before.
    pub counted_before: u64,
    /// Events that are on the too-old list: a repair puts them into the number.
    pub too_old: u64,
    /// Events that could not be counted, since their cell's item is not understood. Their rows are archived.
    #[serde(default)]
    pub uncounted: u64,
    /// Items left out because their INSERT was captured meanwhile.
    pub captured: u64,
    /// Items left out because they changed: they need another plan.
    pub moved: u64,
    /// Items left out because another plan brought them in.
    pub backfilled: u64,
    /// Some of those that were left out.
    pub left_out: Vec<LeftOut>,
}

impl Applied {
    fn leave(&mut self, item: &str, why: Left) {
        match why {
            Left::Captured => self.captured += 1,
            Left::Moved => self.moved += 1,
            Left::Backfilled => self.backfilled += 1,
        }
        if self.left_out.len() < NAMED {
            self.left_out.push(LeftOut { key: item.to_owned(), why });
        }
    }
}

/// The changes that came into the archive since the plan was made.
#[derive(Debug, Default)]
struct Since {
    files: BTreeSet<String>,
    changes: HashMap<ItemHash, Vec<Arrived>>,
    held: usize,
    /// Those of them that were erased meanwhile.
    unnamed: Unnamed,
    /// What waits in quarantine.
    waiting: BTreeMap<ItemHash, Waiting>,
}

#[derive(Debug)]
struct Arrived {
    insert: bool,
    backfilled: bool,
    /// Whether it may have been there when the plan was made.
    undated: bool,
    created_us: i64,
    key: EventKey,
}

impl Since {
    /// Takes what files have that came behind the log's first `entries`. Of a file that was written anew since, that are not all
    /// its rows: a position that was read before is that of a row that the plan has seen.
    async fn read(&mut self, context: &Context, state: &State, entries: u64) -> Result<(), BackfillError> {
        let new: Vec<AddedFile> = state
            .live()
            .filter(|live| live.n >= entries && !self.files.contains(&live.file.target))
            .map(|live| live.file.clone())
            .collect();
        let anew = |file: &AddedFile| state.version(file.month) >= entries;
        let history = match new.iter().any(anew) {
            true => whole(&context.bucket, &context.host).await?,
            false => History::default(),
        };
        let before = entries.checked_sub(1).map(|last| history.positions_up_to(last)).unwrap_or_default();
        for file in &new {
            // Of rows that were redriven or backfilled the positions do not say when they came.
            let brought = history.origins.get(&file.target).is_none_or(|of| of.brought.iter().any(|n| *n >= entries));
            let undated = anew(file) && brought;
            let wanted = |shard: &str, sequence: &str| {
                let beside = shard.parse::<ShardId>().is_ok_and(|shard| shard.is_beside_the_stream());
                !anew(file) || brought || !(beside || before.has(shard, sequence))
            };
            let (held, into) = (&mut self.held, &mut self.changes);
            let take = |change: Change| {
                let arrived = into.entry(hash(change.item.as_bytes())).or_default();
                // A file that was written anew has rows that were read already.
                if *held < MAX_SINCE && arrived.iter().all(|known| known.key != change.key) {
                    *held += 1;
                    let insert = change.name == EventName::Insert;
                    let (backfilled, created_us, key) = (change.backfilled, change.created_us, change.key);
                    arrived.push(Arrived { insert, backfilled, undated, created_us, key });
                }
                Ok(())
            };
            let (bucket, definition) = (&context.bucket, &context.definition);
            changes_where(bucket, definition, [file], &[], &mut self.unnamed, wanted, take).await?;
            if self.held >= MAX_SINCE {
                return Err(BackfillError::Stale);
            }
        }
        self.files.extend(new.into_iter().map(|file| file.target));
        Ok(())
    }

    /// Whether an INSERT that was erased meanwhile may be this row's: then only another plan can tell.
    fn may_be_erased(&self, row: &ArchivedRow) -> bool {
        row.group.as_ref().is_some_and(|group| self.unnamed.may_be(group, row.month, None))
    }

    /// Why an item of the plan is left out, if it is. `ours` is its own row's event key.
    fn left(&self, missing: &Missing, ours: EventKey) -> Option<Left> {
        let item = hash(missing.item.as_bytes());
        let mut left = self.waiting.get(&item).filter(|waiting| waiting.may_count).map(|_| Left::Moved);
        let Some(arrived) = self.changes.get(&item) else { return left };
        for change in arrived.iter().filter(|change| change.key != ours) {
            if change.backfilled {
                return Some(if change.undated { Left::Moved } else { Left::Backfilled });
            }
            if change.created_us <= missing.read_us.saturating_add(crate::audit::compare::MARGIN_US) {
                left = match (left, change.insert && !change.undated) {
                    (Some(Left::Captured), _) | (_, true) => Some(Left::Captured),
                    _ => Some(Left::Moved),
                };
            }
        }
        left
    }
}

/// A row of the plan, and what it adds.
struct Row {
    missing: Missing,
    row: ArchivedRow,
    adds: Vec<(Cell, Delta)>,
}

/// How a plan is applied.
#[derive(Debug, Clone, Copy)]
pub struct Pacing {
    /// How long a change may take from the table into the stream.
    pub settle: Duration,
    /// Events counted a second at most.
    pub events: Option<u32>,
}

/// Applies a plan. What an earlier run did is left as it is; a plan that was applied to its end says what came of it.
pub async fn apply(
    context: &Context,
    named: &Named,
    pacing: Pacing,
    says: &Says<'_>,
) -> Result<Applied, BackfillError> {
    if let Some(applied) = report(context, &named.hash).await? {
        return Ok(applied);
    }
    let (plan, now_us) = (&named.plan, context.host.now_us());
    let oldest = now_us.saturating_sub((i64::from(context.definition.ledger_days) - 1).saturating_mul(DAY_US));
    if plan.created_us < oldest {
        return Err(BackfillError::TooOld);
    }
    // 1.
    let wait = settled_us(plan, pacing.settle).map_or(0, |settled_us| settled_us.saturating_sub(now_us));
    if let Ok(wait @ 1..) = u64::try_from(wait) {
        settle(&context.host, Duration::from_micros(wait), says).await;
    }
    if to_the_tip(context, says).await?.is_none() {
        return Err(BackfillError::Behind);
    }
    let mut applied = Applied { format: FORMAT, ..Applied::default() };
    let mut since = Since { waiting: waiting(context).await?, ..Since::default() };
    let pace = Pace::new(context.host.clone(), pacing.events.map(f64::from));
    let mut first = 1u64;
    says(Work::Step("bringing in the plan's items"));
    says(Work::Of(plan.parts.iter().map(|part| part.items).sum(), "items"));
    for part in &plan.parts {
        let key = part_key(plan.created_us, part);
        let gone = || BackfillError::Plan(super::plan::PlanError::Missing(key.clone()));
        let bytes = context.bucket.get(&key, MAX_PART).await?.ok_or_else(gone)?;
        let rows = rows(context, named, unpack(part, &bytes)?, first)?;
        first += part.items;
        let archived = archive(context, named, &rows, &mut since, &mut applied).await?;
        count(context, &rows, &archived, &pace, &mut applied).await?;
        says(Work::Done(part.items));
    }
    // What is not counted yet is the next run's, so this one was not the end.
    if applied.uncounted > 0 {
        return Ok(applied);
    }
    let bytes = Bytes::from(serde_json::to_vec(&applied)?);
    context.bucket.put_if_absent(&report_key(&named.hash), bytes).await?;
    for part in &plan.parts {
        context.bucket.delete(&part_key(plan.created_us, part)).await?;
    }
    Ok(applied)
}

/// When nothing is under way any more of what was changed before the table was read, µs since 1970; `None` where the plan brings
/// nothing, and need not wait.
pub fn settled_us(plan: &Plan, settle: Duration) -> Option<i64> {
    let settle_us = i64::try_from(settle.as_micros()).unwrap_or(i64::MAX);
    (!plan.parts.is_empty()).then(|| plan.read_us.1.saturating_add(settle_us))
}

/// What came of a plan that was applied to its end.
pub async fn report(context: &Context, hash: &str) -> Result<Option<Applied>, BackfillError> {
    match context.bucket.get(&report_key(hash), MAX_REPORT).await? {
        Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        None => Ok(None),
    }
}

/// The rows of a part; their sequence numbers go on from `first`.
fn rows(context: &Context, named: &Named, items: Vec<Missing>, first: u64) -> Result<Vec<Row>, BackfillError> {
    let (definition, created_us) = (&context.definition, named.plan.created_us);
    let origin = origin(&named.hash);
    let beside = |why: String| BackfillError::Plan(super::plan::PlanError::Malformed { name: named.hash.clone(), why });
    let shard: ShardId = shard(&named.hash).parse().map_err(|e| beside(format!("{e}")))?;
    let mut rows = Vec::with_capacity(items.len());
    for (i, missing) in (first..).zip(items) {
        let record = missing.record(&definition.table, created_us, &origin);
        let judged = judge(definition, &record, created_us).map_err(|reason| beside(reason.to_string()))?;
        let sequence: SequenceNumber = i.to_string().parse().map_err(|e| beside(format!("{e}")))?;
        let place = Place { shard: shard.clone(), sequence, arrived_us: created_us };
        let adds = judged.effect.contributions().to_vec();
        let row = ArchivedRow::new(definition, &judged, judged.change.content_hash().0, &record, place);
        rows.push(Row { missing, row, adds });
    }
    Ok(rows)
}

/// Steps 2 and 3. Gives the event keys of the rows that are in the archive then.
async fn archive(
    context: &Context,
    named: &Named,
    rows: &[Row],
    since: &mut Since,
    applied: &mut Applied,
) -> Result<BTreeSet<EventKey>, BackfillError> {
    let keys: BTreeSet<EventKey> = rows.iter().map(|row| row.row.key).collect();
    let origin = origin(&named.hash);
    for _ in 0..TRIES {
        // A run of its own each time: its life bounds what may be written, not how long the whole backfill takes.
        let life = Life::begin(context.host.clone(), context.limits.life, Deadline::NONE);
        let log = LogStore::new(context.bucket.clone(), context.host.clone());
        let mut state = log.read_to_head().await?;
        let committer = Committer {
            objects: &context.bucket,
            log: &log,
            definition: context.definition.hash(),
            catalog: context.catalog.as_deref(),
            host: &context.host,
            life: &life,
        };
        committer.finish(&mut state).await?;
        since.read(context, &state, named.plan.entries).await?;
        let mut there = BTreeSet::new();
        for live in state.live() {
            there.extend(lookup(&context.bucket, &live.file, &keys).await?.into_iter().map(|found| found.key));
        }
        let mut by_month: BTreeMap<Month, Vec<ArchivedRow>> = BTreeMap::new();
        let mut left = Vec::new();
        let mut adding = there.clone();
        for row in rows.iter().filter(|row| !there.contains(&row.row.key)) {
            let erased = since.may_be_erased(&row.row).then_some(Left::Moved);
            match since.left(&row.missing, row.row.key).or(erased) {
                Some(why) => left.push((row, why)),
                None => {
                    adding.insert(row.row.key);
                    by_month.entry(row.row.month).or_default().push(row.row.clone());
                }
            }
        }
        let added = (adding.len() - there.len()) as u64;
        if added > 0 {
            let (base, token) = (state.next, token(&context.host));
            let mut files = Vec::new();
            for (i, (month, rows)) in by_month.into_iter().enumerate() {
                let Some(mut written) = write(&context.definition, month, rows)? else { continue };
                let source = names::staged(base, &token, i);
                life.check()?;
                context.bucket.put(&source, std::mem::take(&mut written.bytes)).await?;
                files.push((source, written));
            }
            let ended = committer.commit(&Addition { base, token, origin: origin.clone(), files }, &mut state).await?;
            if !matches!(ended.outcome, Outcome::Committed(_)) {
                continue;
            }
        }
        applied.added += added;
        applied.added_before += there.len() as u64;
        left.into_iter().for_each(|(row, why)| applied.leave(&row.missing.item, why));
        return Ok(adding);
    }
    Err(BackfillError::Busy)
}

/// Step 4.
async fn count(
    context: &Context,
    rows: &[Row],
    archived: &BTreeSet<EventKey>,
    pace: &Pace,
    applied: &mut Applied,
) -> Result<(), BackfillError> {
    let mut cells: BTreeMap<&Cell, Vec<Counted>> = BTreeMap::new();
    for row in rows.iter().filter(|row| archived.contains(&row.row.key)) {
        for (cell, delta) in &row.adds {
            cells.entry(cell).or_default().push(Counted { key: row.row.key, delta: delta.clone() });
        }
    }
    for (cell, entries) in cells {
        for entries in entries.chunks(AT_ONCE) {
            pace.ready().await;
            let done = match context.totals.apply(cell, entries, Deadline::NONE).await {
                Ok(done) => done,
                // A bad cell delays no good one (invariant 10). Reconcile names the item; once it is mended, these are missing.
                Err(error) if error.is_unusable() => {
                    tracing::warn!(%error, "a cell that is not understood was passed by");
                    applied.uncounted += entries.len() as u64;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            pace.used(entries.len() as f64);
            applied.counted += done.applied.len() as u64;
            applied.counted_before += done.duplicates.len() as u64;
            applied.too_old += done.too_old.len() as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::compare::MARGIN_US;

    #[test]
    fn what_came_since_the_plan_was_made_decides() {
        let missing = Missing {
            event_id: "e".into(),
            item: r#"{"id":{"S":"a"}}"#.into(),
            keys: serde_json::Map::new(),
            image: serde_json::Map::new(),
            behind: None,
            read_us: 1_000_000_000,
        };
        let ours = EventKey::least_at(1);
        let read = missing.read_us;
        for (what, arrived, expected) in [
            ("nothing", vec![], None),
            ("its own row", vec![(true, true, read, 1)], None),
            ("its INSERT", vec![(true, false, read - 5, 2)], Some(Left::Captured)),
            ("its INSERT, by another clock", vec![(true, false, read + MARGIN_US, 2)], Some(Left::Captured)),
            ("a change and its INSERT", vec![(false, false, read, 2), (true, false, read, 3)], Some(Left::Captured)),
            ("its INSERT and a change", vec![(true, false, read, 3), (false, false, read, 2)], Some(Left::Captured)),
            ("a change of before", vec![(false, false, read, 2)], Some(Left::Moved)),
            ("a change of after", vec![(false, false, read + MARGIN_US + 1, 2)], None),
            (
                "another life",
                vec![(false, false, read + MARGIN_US + 1, 2), (true, false, read + MARGIN_US + 2, 3)],
                None,
            ),
            ("another plan's row", vec![(true, true, read + 9 * MARGIN_US, 2)], Some(Left::Backfilled)),
        ] {
            let arrived = arrived.into_iter().map(|(insert, backfilled, created_us, key)| Arrived {
                insert,
                backfilled,
                undated: false,
                created_us,
                key: EventKey::least_at(key),
            });
            let changes = HashMap::from([(hash(missing.item.as_bytes()), arrived.collect())]);
            let since = Since { changes, ..Since::default() };
            assert_eq!(since.left(&missing, ours), expected, "{what}");
        }
        for (may_count, expected) in [(true, Some(Left::Moved)), (false, None)] {
            let waiting = Waiting { reason: "too_large".into(), may_count };
            let waiting = BTreeMap::from([(hash(missing.item.as_bytes()), waiting)]);
            assert_eq!(Since { waiting, ..Since::default() }.left(&missing, ours), expected);
        }
    }
}
