//! A pipeline with sealed cells, what each cell must hold by an account of its own, and the checks.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::{Finding, Kind, Report, Verdict};
use recount_compactor::repair::{self, repair};
use recount_local::pipeline::Options;
use recount_schemas::items::{ledger_pk, too_old_pk};
use recount_schemas::{Cell, EventKey};

use crate::support::naive::{self, Scan};
use crate::support::records::{Change, change};
use crate::support::world::{World, definition, options};

/// An instant in the one month that most cells are of.
const NOVEMBER: i64 = 1_795_000_000;

/// What an event adds to a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    pub event_id: String,
    pub events: i64,
    pub bytes: i64,
}

/// What is wrong, where, with which events: all that a finding says, but for its numbers and words.
pub type Told = (Kind, Cell, BTreeSet<String>);

/// An item of a table, in a form that compares.
pub type Raw = BTreeMap<(String, String), BTreeMap<String, AttributeValue>>;

pub struct Bench {
    pub world: World,
    pub rng: fastrand::Rng,
    pub sent: Vec<Change>,
    pub account: BTreeMap<Cell, BTreeMap<EventKey, Added>>,
    seed: u64,
    net: bool,
    lanes: u16,
    live: Vec<(String, Scan)>,
    made: usize,
}

pub fn cell(project: &str, lane: u16) -> Cell {
    Cell { group: project.parse().unwrap(), month: naive::month(NOVEMBER).parse().unwrap(), lane }
}

impl Bench {
    pub async fn start(seed: u64, net: bool, lanes: u16) -> Self {
        // A consumer that stumbles gives up soon: the tests wait for it.
        Self::with(seed, net, lanes, Options { retries: 2, ..options() }).await
    }

    pub async fn with(seed: u64, net: bool, lanes: u16, options: Options) -> Self {
        let count = if net { "net" } else { "inserts" };
        let world = World::start(&definition(&format!("count = \"{count}\"\nlanes = {lanes}")), options).await;
        let (account, rng) = (BTreeMap::new(), fastrand::Rng::with_seed(seed));
        Self { world, rng, sent: Vec::new(), account, seed, net, lanes, live: Vec::new(), made: 0 }
    }

    /// Makes a change that concerns `project`, created at `created_us`, and enters it into the account.
    pub fn make(&mut self, project: &str, created_us: i64) -> Change {
        self.made += 1;
        // Amounts that no two events share, so that one that stands twice can be named.
        let bytes = 1_000_000 + 1_009 * self.made as i64;
        let scan = Scan { project: project.to_owned(), at: NOVEMBER, bytes };
        let event_id = format!("event-{}-{:08x}", self.made, self.rng.u32(..));
        let roll = if self.net && !self.live.is_empty() { self.rng.u8(0..10) } else { 9 };
        let change = match roll {
            0..=1 => {
                let (id, old) = self.live.swap_remove(self.rng.usize(0..self.live.len()));
                change(&event_id, &id, None, Some(&old), created_us)
            }
            2..=3 => {
                let at = self.rng.usize(0..self.live.len());
                let old = std::mem::replace(&mut self.live[at].1, scan.clone());
                change(&event_id, &self.live[at].0, Some(&scan), Some(&old), created_us)
            }
            _ => {
                let id = format!("item-{}", self.made);
                self.live.push((id.clone(), scan.clone()));
                change(&event_id, &id, Some(&scan), None, created_us)
            }
        };
        self.enter(&change, created_us);
        change
    }

    /// Takes a change that will not be sent out of the account.
    pub fn forget(&mut self, change: &Change) {
        for adds in self.account.values_mut() {
            adds.retain(|_, added| added.event_id != change.event_id);
        }
    }

    fn enter(&mut self, change: &Change, created_us: i64) {
        let key = EventKey::new(created_us.div_euclid(1_000), change.event_id.as_bytes()).unwrap();
        let old = change.old.iter().filter(|_| self.net).map(|scan| (scan, -1));
        for (scan, sign) in change.new.iter().map(|scan| (scan, 1)).chain(old) {
            let cell = cell(&scan.project, key.lane(self.lanes));
            let added = Added { event_id: change.event_id.clone(), events: 0, bytes: 0 };
            let added = self.account.entry(cell).or_default().entry(key).or_insert(added);
            added.events += sign;
            added.bytes += sign * scan.bytes;
        }
    }

    /// Sends `each` new changes for each project, created during the last minute, and waits until they are counted.
    pub async fn feed(&mut self, projects: &[String], each: usize) {
        let now = self.world.host.now_us();
        let mut changes = Vec::new();
        for _ in 0..each {
            for project in projects {
                let created = now - self.rng.i64(0..60_000_000);
                changes.push(self.make(project, created));
            }
        }
        self.send(changes).await;
    }

    pub async fn send(&mut self, changes: Vec<Change>) {
        self.world.put_changes(&changes).await;
        self.world.pipeline.drained().await.unwrap();
        self.sent.extend(changes);
    }

    /// Delivers every record of every shard again.
    pub async fn redeliver(&self) {
        self.rewind().await;
        self.world.pipeline.drained().await.unwrap();
    }

    pub async fn rewind(&self) {
        let shards = self.world.pipeline.clients().kinesis.list_shards().stream_name(&self.world.settings().stream);
        for shard in shards.send().await.unwrap().shards() {
            self.world.pipeline.chaos().rewind(shard.shard_id(), 1_000_000);
        }
    }

    /// What a cell must hold.
    pub fn due(&self, cell: &Cell) -> (i64, i64) {
        let added = self.account.get(cell).into_iter().flat_map(BTreeMap::values);
        added.fold((0, 0), |(events, bytes), added| (events + added.events, bytes + added.bytes))
    }

    fn totals_due(&self) -> naive::Totals {
        let mut totals = naive::Totals::new();
        for cell in self.account.keys() {
            let (events, bytes) = self.due(cell);
            let total = totals.entry((cell.group.to_string(), cell.month.to_string())).or_default();
            *total = (total.0 + events, total.1 + bytes);
        }
        totals.retain(|_, total| *total != (0, 0));
        totals
    }

    /// What a cell holds.
    pub async fn held(&self, cell: &Cell) -> (i64, i64) {
        let look = self.world.pipeline.context().totals.look(cell).await.unwrap().unwrap_or_default();
        (look.events, look.sums.first().map_or(0, |sum| sum.to_string().parse().unwrap()))
    }

    /// All is as it must be: totals equal the account, and reconcile has nothing to say.
    pub async fn assert_clean(&self, when: &str) {
        let seed = self.seed;
        assert_eq!(self.world.totals().await, self.totals_due(), "totals {when}, seed {seed}");
        let report = self.world.reconcile().await;
        assert_eq!((report.verdict, &report.findings), (Verdict::Clean, &Vec::new()), "{when}, seed {seed}");
    }

    /// Reconcile tells just this, with the numbers of the account on one side and those of the items on the other.
    pub async fn assert_told(&self, told: &BTreeSet<Told>, when: &str) -> Report {
        let report = self.world.reconcile().await;
        self.assert_tells(&report, told, when).await;
        report
    }

    pub async fn assert_tells(&self, report: &Report, told: &BTreeSet<Told>, when: &str) {
        let seed = self.seed;
        let found = tell(&report.findings);
        let (unforeseen, untold): (Vec<_>, Vec<_>) =
            (found.difference(told).collect(), told.difference(&found).collect());
        assert!(found == *told, "{when}, seed {seed}: found unforeseen {unforeseen:#?}, did not find {untold:#?}");
        assert_eq!(report.findings.len(), told.len(), "a finding twice {when}, seed {seed}");
        let verdict = if told.is_empty() { Verdict::Clean } else { Verdict::Findings };
        assert_eq!(report.verdict, verdict, "{when}, seed {seed}");
        for finding in &report.findings {
            let cell = finding.cell().unwrap();
            let (due, held) = (self.due(&cell), self.held(&cell).await);
            let sum =
                |sums: &BTreeMap<String, recount_schemas::Amount>| sums["bytes"].to_string().parse::<i64>().unwrap();
            let said = ((finding.expected, sum(&finding.expected_sums)), (finding.actual, sum(&finding.actual_sums)));
            assert_eq!(said, (due, held), "numbers of {finding:?} {when}, seed {seed}");
        }
    }

    pub async fn repair(&self) -> repair::Report {
        repair(self.world.pipeline.context(), &Scope::all(), true, &|_| {}).await.unwrap()
    }

    /// Repairs; cells other than `damaged` stay as they are to the last attribute; what is left is `left`; a second
    /// repair has nothing to do.
    pub async fn assert_repaired(&self, damaged: &BTreeSet<Cell>, left: &BTreeSet<Told>, when: &str) {
        let seed = self.seed;
        let before = self.tables().await;
        let report = self.repair().await;
        let reconciled = report.reconciled.as_ref().unwrap();
        self.assert_tells(reconciled, left, &format!("after repair {when}")).await;
        assert_eq!(report.refused().count(), 0, "{when}, seed {seed}");
        let after = self.tables().await;
        assert_eq!(without(&before, damaged), without(&after, damaged), "other cells {when}, seed {seed}");
        let again = self.repair().await;
        assert!(again.plans.is_empty() && again.applied.is_empty(), "a second plan {when}, seed {seed}: {again:?}");
        assert_eq!(self.tables().await, after, "a second repair wrote something {when}, seed {seed}");
    }

    /// Everything in the totals and the ledger.
    pub async fn tables(&self) -> Raw {
        let mut all = Raw::new();
        for table in [&self.world.settings().totals, &self.world.settings().ledger] {
            let mut from = None;
            loop {
                let scan = self.world.pipeline.clients().dynamodb.scan().table_name(table).consistent_read(true);
                let page = scan.set_exclusive_start_key(from).send().await.unwrap();
                for item in page.items() {
                    let at = (item["pk"].as_s().unwrap().clone(), format!("{:?}", item["sk"]));
                    let sorted = item.iter().map(|(name, value)| (name.clone(), in_order(value)));
                    all.insert(at, sorted.collect());
                }
                from = page.last_evaluated_key;
                if from.is_none() {
                    break;
                }
            }
        }
        all
    }
}

fn in_order(value: &AttributeValue) -> AttributeValue {
    let mut value = value.clone();
    if let AttributeValue::Bs(set) = &mut value {
        set.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    }
    value
}

fn without(raw: &Raw, cells: &BTreeSet<Cell>) -> Raw {
    let theirs = |(pk, sk): &(String, String)| {
        let of = |cell: &Cell| {
            let item = *pk == cell.group.to_string() && sk.contains(&format!("\"{}#{}\"", cell.month, cell.lane));
            item || *pk == ledger_pk(cell) || *pk == too_old_pk(cell)
        };
        cells.iter().any(of)
    };
    raw.iter().filter(|(at, _)| !theirs(at)).map(|(at, item)| (at.clone(), item.clone())).collect()
}

/// What findings tell.
pub fn tell(findings: &[Finding]) -> BTreeSet<Told> {
    let of = |f: &Finding| (f.kind, f.cell().unwrap(), f.event_ids.iter().cloned().collect());
    findings.iter().map(of).collect()
}

/// One thing to be told.
pub fn told<'a>(kind: Kind, cell: &Cell, ids: impl IntoIterator<Item = &'a str>) -> Told {
    (kind, cell.clone(), ids.into_iter().map(str::to_owned).collect())
}
