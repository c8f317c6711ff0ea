//! What a reconcile may say of a system that nobody damaged: which kinds of finding, and of which events.
//!
//! | finding | where | each key that it names |
//! | --- | --- | --- |
//! | `lost` | the stream may have dropped something | – |
//! | `unbacked` | the same | has a record that was lost |
//! | `damaged` | the same, and the key has left the ledger since, or only a variant came again | – ; of its cell some record was lost, was in a stream that is no more, or came too old |
//! | `doubled` | as `damaged` | as `damaged`: by chance it differs by what one archived event adds |
//! | `missing` | the stream was made anew | has a record in a stream that is no more |
//! | `too_old` | changes come months late | was created longer ago than the ledger reaches back |
//! | `conflicting` | records have variants | came with two contents |
//!
//! And each concerns the cell of the finding. All others are false alarms.

use std::collections::BTreeSet;

use recount_compactor::log::state::State;
use recount_compactor::reconcile::{Finding, Kind, ReconcileError, Reconciled, Verdict};
use recount_schemas::EventKey;

use crate::checks::{self, CLOCKS_OFF_MS, DAY_MS};
use crate::faults::Fault;
use crate::network::Put;
use crate::oracle::Oracle;
use crate::plan::{DAY_US, LEDGER_DAYS};
use crate::world::{World, now_ms};

/// All that is known of records, when a reconcile has spoken.
struct Evidence<'w> {
    world: &'w World,
    oracle: Oracle,
    puts: Vec<Put>,
    log: State,
}

impl Evidence<'_> {
    fn records(&self, key: &EventKey) -> impl Iterator<Item = (usize, &Put)> {
        let of_key = |put: &Put| self.oracle.keys.get(&(put.shard.clone(), put.sequence.clone())) == Some(key);
        self.puts.iter().enumerate().filter(move |(_, put)| of_key(put))
    }

    /// Whether a record of it was in a stream that is no more: it may be archived, and never have come to the consumer.
    fn was_before(&self, key: &EventKey) -> bool {
        let lives = checks::life_of(self.world, usize::MAX);
        self.records(key).any(|(index, _)| checks::life_of(self.world, index) < lives)
    }

    /// Whether a record of it came when the ledger no longer reached back to it. Such a record is listed, and not counted, unless an
    /// earlier one was: which of many were, a number alone does not tell.
    fn came_too_old(&self, key: &EventKey) -> bool {
        let reach_ms = LEDGER_DAYS * DAY_MS - CLOCKS_OFF_MS;
        self.records(key).any(|(_, put)| put.arrived_us / 1_000 - key.created_ms() > reach_ms)
    }

    fn was_lost(&self, key: &EventKey) -> bool {
        self.records(key).any(|(index, put)| checks::is_lost(self.world, &self.log, put, index))
    }

    /// Why a key cannot be what the finding says; `None`: it can.
    fn denies(&self, kind: Kind, key: &EventKey) -> Option<&'static str> {
        let reach_ms = now_ms(self.world) - LEDGER_DAYS * DAY_MS + CLOCKS_OFF_MS;
        let contents = || self.records(key).map(|(_, put)| &put.data).collect::<BTreeSet<_>>().len();
        match kind {
            Kind::Unbacked if !self.was_lost(key) => Some("no record of it was lost"),
            Kind::Missing if !self.was_before(key) => Some("no record of it was in a stream that is no more"),
            Kind::TooOld if key.created_ms() > reach_ms => Some("it is younger than the ledger reaches back"),
            Kind::Conflicting if contents() < 2 => Some("it came with one content"),
            _ => None,
        }
    }

    /// Why a finding is a false alarm; `None`: it is none.
    fn refutes(&self, finding: &Finding) -> Option<String> {
        let cell = finding.cell();
        if matches!(finding.kind, Kind::Damaged | Kind::Doubled) {
            let explains = |key: &EventKey| self.was_lost(key) || self.was_before(key) || self.came_too_old(key);
            let explained =
                cell.is_some_and(|cell| self.oracle.cells().get(&cell).is_some_and(|keys| keys.iter().any(explains)));
            return (!explained).then(|| "each record of its cell came in time, and was not lost".to_owned());
        }
        finding.events.iter().find_map(|event| {
            let key = &event.event_key;
            let concerns = cell.as_ref().is_some_and(|cell| !self.oracle.adds(key, cell).is_empty());
            let why = if concerns { self.denies(finding.kind, key) } else { Some("no record of it concerns the cell") };
            why.map(|why| format!("{key}: {why}"))
        })
    }
}

/// Whether the history is one in which there may be such a finding.
fn may_be(world: &World, finding: &Finding) -> bool {
    let lossy = world.may_lose();
    match finding.kind {
        Kind::Lost | Kind::Unbacked => lossy,
        // Counted, not archived, and then forgotten by the ledger: nothing can back it any more. What is created long
        // before it comes is forgotten sooner. Or what was counted was lost before it was archived, and only a variant
        // of it came again: then the sums differ, and no event does. (That the number is right, the looks at the cells
        // say.)
        Kind::Damaged | Kind::Doubled => {
            let old = world.clock.now() > LEDGER_DAYS as u64 * DAY_US;
            let varied = world.has(Fault::Variant) && finding.expected == finding.actual;
            lossy && (old || varied || world.has(Fault::Late) || world.has(Fault::Ancient))
        }
        Kind::Missing => world.has(Fault::NewStream),
        Kind::TooOld => world.has(Fault::Ancient),
        Kind::Conflicting => world.has(Fault::Variant),
        _ => false,
    }
}

/// Holds what a reconcile said against what may be said. Its verdict, if it came to one.
pub async fn judge(world: &World, name: &str, done: Option<&Result<Reconciled, ReconcileError>>) -> Option<Verdict> {
    let report = match done {
        None => {
            world.trace(format!("{name}: died"));
            return None;
        }
        Some(Err(error)) => {
            world.trace(format!("{name}: {error}"));
            return None;
        }
        Some(Ok(reconciled)) => &reconciled.report,
    };
    world.trace(format!("{name}: {:?}, {} findings", report.verdict, report.findings.len()));
    if report.findings.is_empty() {
        return Some(report.verdict);
    }
    let log = match world.admin.log().await {
        Ok(log) => log,
        Err(error) => {
            world.violated(5, format!("the log cannot be read: {error}"));
            return Some(report.verdict);
        }
    };
    let evidence = Evidence { world, oracle: world.oracle(), puts: world.network.puts(), log };
    for finding in &report.findings {
        if !may_be(world, finding) {
            world.violated(8, format!("{name} found, though nobody damaged anything: {finding:?}"));
        } else if let Some(why) = evidence.refutes(finding) {
            world.violated(8, format!("{name} found what is not so ({why}): {finding:?}"));
        }
    }
    Some(report.verdict)
}
