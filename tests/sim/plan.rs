//! A history, drawn from its seed: what is written and when, how the parts run, what goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::faults::{Fault, Service};
use crate::naive::{self, Scan};
use crate::network::{Brownout, Weather};
use crate::records::{self, Change};

pub const SECOND_US: u64 = 1_000_000;
pub const MINUTE_US: u64 = 60 * SECOND_US;
pub const HOUR_US: u64 = 60 * MINUTE_US;
pub const DAY_US: u64 = 24 * HOUR_US;

/// The definition's `ledger_days`: the least that goes with a stream that keeps its records for a week.
pub const LEDGER_DAYS: i64 = 10;

/// How long after the last act damage is repaired, about; until then it is calm.
const AFTERWARDS: u64 = 5 * HOUR_US;

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub enum Act {
    /// Records go straight into the stream, as DynamoDB itself writes them there.
    Stream(Vec<(String, Vec<u8>)>),
    /// The application writes its table.
    Table(Vec<TableWrite>),
    /// A shard is split, or two are merged: which, is drawn from the number.
    Reshard { split: bool, pick: u64 },
    /// The next batches come again.
    Redeliver { pick: u64, records: u64, repeats: u32, lost_answers: u32 },
    /// The operator reconciles.
    Reconcile,
    /// The operator repairs what nobody damaged.
    Repair,
    /// Somebody starts a part with another definition.
    OtherDefinition,
    /// Clocks jump.
    Skew(i64),
    /// Somebody looks at everything: what must hold always, holds now.
    Look,
    /// The stream is deleted and made anew.
    NewStream,
}

/// A write of the application.
#[derive(Debug, Clone)]
pub enum TableWrite {
    Put { id: String, scan: Scan },
    Delete { id: String },
}

/// How a part dies, as a number to be drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Risk {
    /// How many of its runs end so, 0 to 1.
    pub dies: f64,
    pub freezes: f64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub faults: BTreeSet<Fault>,
    /// µs since 1970.
    pub epoch_us: i64,
    pub net: bool,
    pub lanes: u16,
    pub shards: i32,
    pub retention_hours: i32,
    pub weather: Weather,
    /// In the order of their times, µs since the history began.
    pub acts: Vec<(u64, Act)>,
    /// When the last act is over.
    pub end_us: u64,
    pub batch_size: usize,
    pub window: Duration,
    pub bisect: bool,
    pub seal_at: usize,
    pub keep_keys: usize,
    pub named_keys: usize,
    pub write_keys: usize,
    pub hard_limit: usize,
    /// Whether the log's numbers are small: how soon uploads are garbage, how often the folded log is kept.
    pub small: bool,
    /// How often a run of the compactor is one that compacts, 0 to 1; and with what grace.
    pub compacts: f64,
    pub grace: Duration,
    /// About how large a merged file gets, in bytes, and of how many at a time.
    pub merged_bytes: u64,
    pub merged_inputs: usize,
    pub archive_every: Duration,
    /// What is written while damage is repaired: records with their partition keys.
    pub more: Vec<(String, Vec<u8>)>,
    /// When no compactor runs: from, to.
    pub archive_pause: Option<(u64, u64)>,
    /// When the relay is off: from, to.
    pub relay_off: Option<(u64, u64)>,
    pub commit_bytes: u64,
    pub page_records: i32,
    pub consumer: Risk,
    pub relay: Risk,
    pub compactor: Risk,
    pub operator: Risk,
    pub doubled_batches: f64,
    /// Whether it is about cells.
    cells: bool,
    /// When much is written, µs since the history began.
    bursts: Vec<u64>,
}

fn sub(seed: u64, what: u64) -> fastrand::Rng {
    // Two rounds of SplitMix64: neighbouring seeds give unrelated streams.
    let mix = |mut z: u64| {
        z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    fastrand::Rng::with_seed(mix(mix(seed) ^ what))
}

/// A generator for one purpose: turning a fault off changes the draws of that fault, and hardly any other.
pub fn rng(seed: u64, purpose: &str) -> fastrand::Rng {
    sub(seed, purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
}

/// The faults of a history: each with the chance of one in two, or in four if it weighs upon all others.
pub fn draw_faults(seed: u64) -> BTreeSet<Fault> {
    let mut rng = rng(seed, "faults");
    let rare = [
        Fault::Trim,
        Fault::NewStream,
        Fault::Ancient,
        Fault::Damage,
        Fault::Variant,
        Fault::OtherDefinition,
        Fault::QuarantineDown,
        Fault::RelayOff,
    ];
    let mut faults: BTreeSet<Fault> =
        Fault::ALL.into_iter().filter(|fault| rng.u8(..) < if rare.contains(fault) { 48 } else { 110 }).collect();
    // What was lost cannot be told from what was planted. (A long history may lose something without them: `checks::end`.)
    if faults.contains(&Fault::Trim) || faults.contains(&Fault::NewStream) {
        faults.remove(&Fault::Damage);
    }
    faults
}

/// Ends of months around which clocks change, of a year, and of a February; s, UTC.
const ENDS: [i64; 5] = [1_767_222_000, 1_774_994_400, 1_793_487_600, 1_796_079_600, 1_803_855_600];

impl Plan {
    /// The history of a seed with these faults. `size`: how much is written, in percent of what it would be.
    pub fn draw(seed: u64, faults: &BTreeSet<Fault>, size: u64) -> Self {
        let has = |fault| faults.contains(&fault);
        let mut rng = rng(seed, "shape");
        let epoch_us = (ENDS[rng.usize(0..ENDS.len())] - rng.i64(0..86_400)) * 1_000_000;
        let long = [Fault::Trim, Fault::Ancient, Fault::RelayOff].into_iter().any(has);
        let span = if long { rng.u64(3 * DAY_US..25 * DAY_US) } else { rng.u64(2 * HOUR_US..2 * DAY_US) };
        let pauses = has(Fault::Trim);
        let archive_pause = pauses.then(|| {
            let from = rng.u64(span / 8..span / 3);
            (from, from + rng.u64(26 * HOUR_US..40 * HOUR_US))
        });
        // A run reads the whole log, so a history of many runs costs a multiple.
        // Often enough that the stream keeps what it missed, also when it dies a few times.
        let every = (span / rng.u64(8..30)).min(18 * HOUR_US);
        // A third of all histories is about cells: sealed all the time, by several writers at once.
        let cells = rng.u8(0..3) == 0;
        let (seal_at, keep_keys) = if cells { (rng.usize(3..5), 1) } else { (rng.usize(4..12), rng.usize(1..3)) };
        let risk = |fault, rng: &mut fastrand::Rng| Risk {
            dies: if has(fault) { 0.1 + 0.4 * rng.f64() } else { 0.0 },
            freezes: if has(Fault::Freeze) { 0.1 * rng.f64() } else { 0.0 },
        };
        let mut plan = Self {
            seed,
            faults: faults.clone(),
            epoch_us,
            net: rng.u8(..) < 90,
            lanes: [1, 1, 2, 4][rng.usize(0..4)],
            shards: rng.i32(1..4),
            retention_hours: if pauses { 24 } else { 168 },
            weather: weather(seed, faults),
            acts: Vec::new(),
            end_us: span,
            batch_size: [1, 3, 10, 10, 40, 100][rng.usize(0..6)],
            window: Duration::from_secs([0, 0, 5, 60][rng.usize(0..4)]),
            bisect: rng.bool(),
            seal_at,
            keep_keys,
            named_keys: rng.usize(2..8),
            write_keys: rng.usize(8..40),
            hard_limit: seal_at * 4,
            small: rng.u8(0..3) > 0,
            compacts: if has(Fault::Compaction) { 0.3 + 0.7 * rng.f64() } else { 0.0 },
            grace: [Duration::ZERO, Duration::ZERO, Duration::from_secs(3_600), Duration::from_secs(86_400)]
                [rng.usize(0..4)],
            merged_bytes: rng.u64(5_000..60_000),
            merged_inputs: rng.usize(2..8),
            archive_every: Duration::from_micros(every),
            archive_pause,
            relay_off: has(Fault::RelayOff).then(|| relay_off(seed, span)),
            commit_bytes: rng.u64(2_000..40_000),
            page_records: rng.i32(3..40),
            consumer: risk(Fault::ConsumerDies, &mut rng),
            relay: risk(Fault::RelayDies, &mut rng),
            compactor: risk(Fault::CompactorDies, &mut rng),
            operator: risk(Fault::OperatorDies, &mut rng),
            doubled_batches: match has(Fault::TwoConsumers) {
                true if cells => 0.5 + 0.5 * rng.f64(),
                true => 0.3 * rng.f64(),
                false => 0.0,
            },
            cells,
            bursts: Vec::new(),
            more: Vec::new(),
        };
        plan.write(size);
        plan.brown_out();
        plan.disturb();
        plan.acts.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The text of the definition.
    pub fn definition(&self) -> String {
        format!(
            "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\n\
             occurred_at = \"scanned_at\"\ntime_zone = \"{}\"\nsum = [\"bytes\"]\ncount = \"{}\"\nlanes = {}\n\
             ledger_days = {LEDGER_DAYS}\n",
            naive::ZONE,
            if self.net { "net" } else { "inserts" },
            self.lanes
        )
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// What application and source write.
    fn write(&mut self, size: u64) {
        let mut rng = rng(self.seed, "writes");
        let bursts = rng.usize(4..14);
        let hot = self.cells || rng.u8(..) < 128;
        let mut made = 0usize;
        let mut written: Vec<Change> = Vec::new();
        for _ in 0..bursts {
            let at = rng.u64(0..self.end_us);
            self.bursts.push(at);
            let most = match (self.cells, self.has(Fault::SlowOperator)) {
                (true, true) => 250,
                (true, false) => 60,
                (false, _) => 30,
            };
            let count = (rng.u64(2..most) * size).div_ceil(100) as usize;
            if rng.u8(..) < 70 {
                self.acts.push((at, Act::Table(table_writes(&mut rng, count, &mut made, self.epoch_us))));
                continue;
            }
            let changes = self.changes(&mut rng, at, count, hot, &mut made);
            let spread = match (self.has(Fault::SlowOperator), self.cells) {
                // So long that the operator is never done with it.
                (true, _) => rng.u64(MINUTE_US..6 * MINUTE_US),
                (false, true) => rng.u64(1..40 * SECOND_US),
                (false, false) => rng.u64(1..5 * MINUTE_US),
            };
            let mut puts: Vec<(u64, Vec<u8>, String)> = Vec::new();
            for change in &changes {
                let when = at + rng.u64(0..spread);
                puts.push((when, change.json.clone().into_bytes(), change.partition_key.clone()));
                if self.has(Fault::Duplicate) && rng.u8(..) < 50 {
                    let again = when + self.delay(&mut rng);
                    // Sometimes on another shard.
                    let key = if rng.bool() { change.partition_key.clone() } else { format!("other-{}", rng.u32(..)) };
                    puts.push((again, change.json.clone().into_bytes(), key));
                }
                if self.has(Fault::Variant) && rng.u8(..) < 20 {
                    let again = when + self.delay(&mut rng);
                    let json = variant(&change.json);
                    puts.push((again, json.into_bytes(), change.partition_key.clone()));
                }
            }
            if self.has(Fault::Poison) {
                for _ in 0..rng.usize(0..3) {
                    let when = at + rng.u64(0..spread);
                    puts.push((when, poison(&mut rng, written.last()), format!("item-{}", rng.usize(0..made.max(1)))));
                }
            }
            written.extend(changes);
            // A few at a time, in one request.
            puts.sort_by_key(|(when, ..)| *when);
            let most = rng.usize(1..12);
            for together in puts.chunks(most) {
                let records = together.iter().map(|(_, data, key)| (key.clone(), data.clone())).collect();
                self.acts.push((together[0].0, Act::Stream(records)));
            }
        }
        if let Some((off, on)) = self.relay_off {
            self.write_beside(&mut made, size, off, on);
        }
        if self.has(Fault::Damage) {
            self.write_more(&mut made, size);
        }
    }

    /// Items that are changed before, while and after the relay is off.
    fn write_beside(&mut self, made: &mut usize, size: u64, off: u64, on: u64) {
        let mut rng = rng(self.seed, "beside");
        let dropped = off..on - 25 * HOUR_US;
        for _ in 0..3 {
            let count = (rng.u64(3..20) * size).div_ceil(100) as usize;
            let mut writes = table_writes(&mut rng, count, made, self.epoch_us);
            let later = writes.split_off(rng.usize(0..=writes.len()));
            let last = later.clone().split_off(rng.usize(0..=later.len()));
            for (at, writes) in [(off - HOUR_US, writes), (rng.u64(dropped.clone()), later), (on + HOUR_US, last)] {
                if !writes.is_empty() {
                    self.acts.push((at, Act::Table(writes)));
                }
            }
        }
        // Whoever looks, lets DynamoDB drop what is too old.
        self.acts.push((on, Act::Look));
    }

    /// What is written while somebody repairs.
    fn write_more(&mut self, made: &mut usize, size: u64) {
        let mut rng = rng(self.seed, "more");
        let count = (rng.u64(5..40) * size).div_ceil(100) as usize;
        let changes = self.changes(&mut rng, self.end_us + AFTERWARDS, count, true, made);
        self.more = changes.into_iter().map(|change| (change.partition_key, change.json.into_bytes())).collect();
    }

    /// How long after a record its duplicate comes: within what the ledger remembers, unless the history is about that.
    fn delay(&self, rng: &mut fastrand::Rng) -> u64 {
        match rng.u8(0..4) {
            0 => 0,
            1 => rng.u64(0..MINUTE_US),
            2 => rng.u64(0..6 * HOUR_US),
            // As long as the ledger remembers; where changes are ancient, longer.
            _ if self.has(Fault::Ancient) => rng.u64(self.end_us / 2..self.end_us),
            _ => rng.u64(0..self.end_us.min(8 * DAY_US)),
        }
    }

    fn changes(&self, rng: &mut fastrand::Rng, at: u64, count: usize, hot: bool, made: &mut usize) -> Vec<Change> {
        let now = self.epoch_us + at as i64;
        let mut changes = Vec::new();
        while changes.len() < count {
            let id = format!("item-{}", *made);
            *made += 1;
            let mut state: Option<Scan> = None;
            for step in 0..rng.usize(1..4) {
                let next = match (&state, rng.u8(0..4)) {
                    (Some(_), 0) => None,
                    _ => Some(scan(rng, self.epoch_us, hot)),
                };
                let created = now - self.lateness(rng);
                let event = format!("{id}-{step}-{:08x}", rng.u32(..));
                changes.push(records::change(&event, &id, next.as_ref(), state.as_ref(), created));
                state = next;
                if state.is_none() {
                    break;
                }
            }
        }
        changes
    }

    /// By how much a change comes late, µs.
    fn lateness(&self, rng: &mut fastrand::Rng) -> i64 {
        let us = match rng.u8(..) {
            0..=30 if self.has(Fault::Ancient) => rng.u64((LEDGER_DAYS as u64 - 1) * DAY_US..200 * DAY_US),
            0..=60 if self.has(Fault::Late) => rng.u64(MINUTE_US..9 * DAY_US),
            // Late by what a cell was sealed since.
            61..=150 if self.has(Fault::Late) && self.cells => rng.u64(0..10 * MINUTE_US),
            61..=70 => 0,
            _ => rng.u64(0..20 * SECOND_US),
        };
        us as i64
    }

    /// A time at which something else happens: mostly while much is written.
    fn moment(&self, rng: &mut fastrand::Rng) -> u64 {
        let burst = self.bursts[rng.usize(0..self.bursts.len())];
        let near = match rng.u8(0..5) {
            0 => rng.u64(0..self.end_us),
            1 => burst + rng.u64(0..HOUR_US),
            2 => burst + rng.u64(0..6 * MINUTE_US),
            3 if self.cells => burst + rng.u64(0..10 * SECOND_US),
            _ => burst + rng.u64(0..MINUTE_US),
        };
        near.min(self.end_us)
    }

    /// When what is not to be had: mostly while much is written, sometimes for long.
    fn brown_out(&mut self) {
        let mut rng = rng(self.seed, "brownouts");
        let mut window = |plan: &Self, longest: u64| {
            let from = plan.moment(&mut rng).saturating_sub(rng.u64(0..MINUTE_US));
            let most = if rng.u8(0..6) == 0 { longest * 4 } else { longest };
            (from, from + rng.u64(0..most))
        };
        let down = [
            (Service::DynamoDb, ""),
            (Service::DynamoDb, "acme"),
            (Service::DynamoDb, "UpdateItem recount-totals acme"),
            (Service::DynamoDb, "UpdateItem recount-totals globex"),
            (Service::DynamoDb, "PutItem recount-ledger"),
            (Service::DynamoDb, "Query recount-ledger"),
            (Service::DynamoDb, "Query recount-progress"),
            (Service::DynamoDb, "GetItem recount-totals"),
            (Service::Kinesis, ""),
            (Service::S3, ""),
            (Service::S3, "PUT /_staging/"),
            (Service::S3, "PUT /events/"),
            (Service::S3, "PUT /_log/"),
            (Service::S3, "DELETE"),
        ];
        if self.has(Fault::Brownout) {
            // Many short ones let one request wait while others go on.
            let (count, longest) = if self.cells { (12, 2 * MINUTE_US) } else { (4, 20 * MINUTE_US) };
            let windows: Vec<(u64, u64)> = (0..count).map(|_| window(self, longest)).collect();
            for (from, to) in windows {
                let mut rng = sub(self.seed, from);
                let (service, about) = down[rng.usize(0..down.len())];
                let strength = [1.0, 0.8, 0.6][rng.usize(0..3)];
                self.weather.brownouts.push(Brownout { from, to, service, strength, about: about.to_owned() });
            }
        }
        if self.has(Fault::QuarantineDown) {
            self.weather.quarantine_down = (0..2).map(|_| window(self, HOUR_US)).collect();
        }
    }

    /// Everything else that happens.
    fn disturb(&mut self) {
        let mut rng = rng(self.seed, "acts");
        let span = self.end_us;
        for _ in 0..if self.cells { 8 } else { rng.usize(2..6) } {
            // Repair says what reconcile says, and then does nothing; where findings are allowed, it could do something.
            let findings = [Fault::Trim, Fault::NewStream, Fault::Ancient, Fault::Variant];
            let repairs = rng.u8(0..4) == 0 && !findings.into_iter().any(|fault| self.has(fault));
            let act = if repairs { Act::Repair } else { Act::Reconcile };
            self.acts.push((self.moment(&mut rng), act));
        }
        for _ in 0..rng.usize(6..14) {
            self.acts.push((self.moment(&mut rng), Act::Look));
        }
        if self.has(Fault::Reshard) {
            for _ in 0..rng.usize(1..5) {
                self.acts.push((self.moment(&mut rng), Act::Reshard { split: rng.u8(..) < 150, pick: rng.u64(..) }));
            }
        }
        if self.has(Fault::Redelivery) {
            for _ in 0..rng.usize(2..8) {
                let (pick, records) = (rng.u64(..), rng.u64(0..80));
                let (repeats, lost_answers) = (rng.u32(0..3), rng.u32(0..3));
                let act = Act::Redeliver { pick, records, repeats, lost_answers };
                self.acts.push((self.moment(&mut rng), act));
            }
        }
        if self.has(Fault::OtherDefinition) {
            for _ in 0..2 {
                self.acts.push((self.moment(&mut rng), Act::OtherDefinition));
            }
        }
        if self.has(Fault::Skew) {
            for _ in 0..rng.usize(1..6) {
                let most = if rng.bool() { 5_000_000 } else { 3_600_000_000 };
                self.acts.push((self.moment(&mut rng), Act::Skew(rng.i64(-most..most))));
            }
        }
        if self.has(Fault::NewStream) {
            self.acts.push((rng.u64(span / 4..span), Act::NewStream));
        }
    }
}

/// When the relay is off, in a history of so many µs: for longer than DynamoDB keeps what it would have read.
fn relay_off(seed: u64, span: u64) -> (u64, u64) {
    let mut rng = rng(seed, "relay-off");
    let from = rng.u64(span / 8..span / 3);
    (from, from + rng.u64(27 * HOUR_US..40 * HOUR_US))
}

fn weather(seed: u64, faults: &BTreeSet<Fault>) -> Weather {
    let mut rng = rng(seed, "weather");
    Weather {
        faults: Fault::OF_REQUESTS.into_iter().filter(|fault| faults.contains(fault)).collect(),
        rate: [0.01, 0.05, 0.05, 0.15][rng.usize(0..4)],
        latency_us: if faults.contains(&Fault::Latency) { [2_000, 20_000, 100_000][rng.usize(0..3)] } else { 0 },
        operator_us: match faults.contains(&Fault::SlowOperator) {
            true => [200_000, 1_000_000, 3_000_000][rng.usize(0..3)],
            false => 0,
        },
        brownouts: Vec::new(),
        quarantine_down: Vec::new(),
    }
}

fn scan(rng: &mut fastrand::Rng, epoch_us: i64, hot: bool) -> Scan {
    let projects = ["acme", "globex \"quoted\"", "initech 🦀", "umbrella,#1"];
    let near = epoch_us / 1_000_000;
    Scan {
        project: projects[if hot && rng.u8(..) < 220 { 0 } else { rng.usize(0..projects.len()) }].to_owned(),
        // Around the ends of months and years, and around the change of clocks.
        at: if hot { near } else { ENDS[rng.usize(0..ENDS.len())] + rng.i64(-7_300..7_300) },
        bytes: rng.i64(0..10_000),
    }
}

fn table_writes(rng: &mut fastrand::Rng, count: usize, made: &mut usize, epoch_us: i64) -> Vec<TableWrite> {
    let mut writes = Vec::new();
    while writes.len() < count {
        let id = format!("file-{}", *made);
        *made += 1;
        for _ in 0..rng.usize(1..4) {
            writes.push(TableWrite::Put { id: id.clone(), scan: scan(rng, epoch_us, false) });
        }
        if rng.u8(..) < 60 {
            writes.push(TableWrite::Delete { id });
        }
    }
    writes
}

/// The same record with other bytes: another amount, in every image.
fn variant(json: &str) -> String {
    json.replace("\"bytes\":{\"N\":\"", "\"bytes\":{\"N\":\"1")
}

fn poison(rng: &mut fastrand::Rng, before: Option<&Change>) -> Vec<u8> {
    // Of an event of its own: it is no duplicate of the record that it is made from.
    let id = format!("\"eventID\":\"poison-{:08x}-", rng.u32(..));
    let before = before.map(|change| Change { json: change.json.replace("\"eventID\":\"", &id), ..change.clone() });
    match (rng.u8(0..7), before) {
        (0, _) => b"not json at all".to_vec(),
        (1, _) => vec![0xff, 0xfe, 0x00, 0x80],
        (2, _) => b"{}".to_vec(),
        (3, Some(change)) => change.json.replace("\"eventID\"", "\"eventid\"").into_bytes(),
        (4, Some(change)) => change.json.replace("\"N\":\"", "\"N\":\"many").into_bytes(),
        (5, Some(change)) => change.json.as_bytes()[..change.json.len() / 2].to_vec(),
        (6, Some(change)) => {
            // Created in the far future.
            let at = change.json.find("CreationDateTime\":").unwrap() + 18;
            let end = at + change.json[at..].find(',').unwrap();
            format!("{}9999999999999999{}", &change.json[..at], &change.json[end..]).into_bytes()
        }
        _ => Vec::new(),
    }
}
