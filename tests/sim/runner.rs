//! Many histories, on all cores; of one that fails, the least that still does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::faults::Fault;
use crate::plan::{Plan, draw_faults};
use crate::world::{Outcome, Violation, history};

/// What to live through.
#[derive(Debug, Clone)]
pub struct Order {
    pub from: u64,
    pub seeds: u64,
    /// `None`: each seed draws its own.
    pub faults: Option<BTreeSet<Fault>>,
    /// Stop at the first that fails.
    pub stop: bool,
    pub threads: usize,
}

/// A history that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
}

/// What they came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub histories: u64,
    pub virtual_us: u64,
    pub requests: u64,
    pub records: u64,
    pub struck: BTreeMap<Fault, u64>,
    pub failures: Vec<Failure>,
}

thread_local! {
    /// What panicked in the history of this thread: the runtime itself forgets the panics of tasks.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what panics say, for [`live`], instead of printing it.
pub fn hear_panics() {
    std::panic::set_hook(Box::new(|panic| PANICS.with(|panics| panics.borrow_mut().push(panic.to_string()))));
}

/// Lives through the history of a seed; a panic, in whatever task, is a violation as any other.
pub fn live(seed: u64, faults: &BTreeSet<Fault>, size: u64) -> Outcome {
    PANICS.with(|panics| panics.borrow_mut().clear());
    let mut outcome = live_unheard(seed, faults, size);
    let heard = PANICS.with(RefCell::take);
    let heard = heard.into_iter().map(|text| Violation { invariant: 0, at_us: 0, what: format!("a panic: {text}") });
    outcome.violations.extend(heard);
    outcome
}

fn live_unheard(seed: u64, faults: &BTreeSet<Fault>, size: u64) -> Outcome {
    let plan = Plan::draw(seed, faults, size);
    catch_unwind(AssertUnwindSafe(|| history(plan))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        let violation = Violation { invariant: 0, at_us: 0, what: format!("a panic: {text}") };
        Outcome {
            violations: vec![violation],
            trace_hash: 0,
            trace: Vec::new(),
            virtual_us: 0,
            requests: 0,
            records: 0,
            struck: BTreeMap::new(),
        }
    })
}

/// The faults of a seed under an order.
pub fn faults(order: &Order, seed: u64) -> BTreeSet<Fault> {
    order.faults.clone().unwrap_or_else(|| draw_faults(seed))
}

/// Lives through all of them.
pub fn run(order: &Order, says: &(dyn Fn(&Tally) + Sync)) -> Tally {
    let (next, stopped, tally) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..order.threads.max(1) {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= order.seeds {
                        break;
                    }
                    let seed = order.from + at;
                    let outcome = live(seed, &faults(order, seed), 100);
                    let mut tally = tally.lock().unwrap();
                    tally.histories += 1;
                    tally.virtual_us += outcome.virtual_us;
                    tally.requests += outcome.requests;
                    tally.records += outcome.records as u64;
                    for (fault, count) in outcome.struck {
                        *tally.struck.entry(fault).or_default() += count;
                    }
                    if let Some(violation) = outcome.violations.into_iter().next() {
                        tally.failures.push(Failure { seed, violation });
                        stopped.fetch_or(order.stop, Ordering::Relaxed);
                    }
                    says(&tally);
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap();
    tally.failures.sort_by_key(|failure| failure.seed);
    tally
}

/// The least history that fails: faults are turned off one by one, and less is written, as long as something fails still.
pub fn least(seed: u64, all: &BTreeSet<Fault>) -> (BTreeSet<Fault>, u64, Outcome) {
    let mut faults = all.clone();
    let mut size = 100;
    let mut outcome = live(seed, &faults, size);
    let broken = outcome.violations.first().map(|violation| violation.invariant);
    let same = |tried: &Outcome| tried.violations.iter().any(|violation| Some(violation.invariant) == broken);
    for fault in all {
        let mut fewer = faults.clone();
        fewer.remove(fault);
        let tried = live(seed, &fewer, size);
        if same(&tried) {
            (faults, outcome) = (fewer, tried);
        }
    }
    for smaller in [5, 10, 20, 40, 70] {
        let tried = live(seed, &faults, smaller);
        if same(&tried) {
            (size, outcome) = (smaller, tried);
            break;
        }
    }
    (faults, size, outcome)
}
