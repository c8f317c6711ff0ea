//! `tests/simulate --seeds N [--from S] [--scenario NAME]`; `tests/run` lives through 200.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::faults::{Fault, SCENARIOS, scenario};
use crate::runner::{Order, Tally, faults, hear_panics, least, live, run};
use crate::trace::time;

/// Histories, where no number is given.
const HISTORIES: u64 = 200;
/// Lines of the trace shown before a violation.
const SHOWN: usize = 60;

#[derive(Debug, Parser)]
#[command(name = "simulate", about = "Lives through histories in which everything goes wrong that may")]
struct Args {
    /// How many histories.
    #[arg(long, default_value_t = HISTORIES)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Which faults: a scenario, or faults by name, with commas between them; without it each seed draws its own.
    #[arg(long)]
    scenario: Option<String>,
    /// How much is written, in percent.
    #[arg(long, default_value_t = 100)]
    size: u64,
    /// Go on after a history that fails.
    #[arg(long)]
    keep_going: bool,
    /// Print the whole trace of the first seed, and nothing else.
    #[arg(long)]
    trace: bool,
    /// Do not look for the least history that fails.
    #[arg(long)]
    no_minimise: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Look for these deliberate bugs, each in at most `--seeds` histories; `all` for all of them (feature `bugs`).
    #[arg(long, value_delimiter = ',')]
    bugs: Vec<String>,
    /// List faults and scenarios.
    #[arg(long)]
    list_scenarios: bool,
    /// What `cargo test` may pass to every test; not used here.
    #[arg(hide = true)]
    ignored: Vec<String>,
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn named(text: &str) -> Option<BTreeSet<Fault>> {
    let mut faults = BTreeSet::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        faults.extend(scenario(name)?);
    }
    Some(faults)
}

pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.list_scenarios {
        for (name, faults) in SCENARIOS {
            println!("{name}: {}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        }
        println!("faults: {}", Fault::ALL.map(|fault| fault.to_string()).join(" "));
        return ExitCode::SUCCESS;
    }
    let chosen = match args.scenario.as_deref().map(named) {
        None => None,
        Some(Some(faults)) => Some(faults),
        Some(None) => {
            eprintln!("no such scenario; --list-scenarios shows them");
            return ExitCode::from(3);
        }
    };
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        hear_panics();
    }
    let order =
        Order { from: args.from, seeds: args.seeds, faults: chosen, stop: !args.keep_going, threads: args.threads };
    if args.trace {
        let outcome = live(args.from, &faults(&order, args.from), args.size);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        println!("{} requests, {} records, {}", outcome.requests, outcome.records, time(outcome.virtual_us));
        for violation in &outcome.violations {
            println!("violation of invariant {} at {}: {}", violation.invariant, time(violation.at_us), violation.what);
        }
        return if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    }
    if !args.bugs.is_empty() {
        return prove(&args);
    }
    if !same_seed_same_trace(&order) {
        return ExitCode::from(1);
    }
    #[allow(clippy::disallowed_methods)] // for the reader only
    let begun = Instant::now();
    let tally = run(&order, &|_| {});
    let seconds = begun.elapsed().as_secs_f64();
    tell(&tally, seconds);
    for failure in &tally.failures {
        println!(
            "seed {}: invariant {} at {}: {}",
            failure.seed,
            failure.violation.invariant,
            time(failure.violation.at_us),
            failure.violation.what
        );
    }
    let Some(first) = tally.failures.first() else { return ExitCode::SUCCESS };
    if !args.no_minimise {
        explain(first.seed, &faults(&order, first.seed));
    }
    ExitCode::from(1)
}

/// One seed is one history: what comes out of two runs is the same to the last request.
fn same_seed_same_trace(order: &Order) -> bool {
    for seed in order.from..order.from + order.seeds.min(3) {
        let faults = faults(order, seed);
        let (one, two) = (live(seed, &faults, 100), live(seed, &faults, 100));
        if one.trace_hash != two.trace_hash {
            let differs = one.trace.iter().zip(&two.trace).position(|(a, b)| a != b);
            println!("seed {seed} gave two histories; they part at line {differs:?}:");
            if let Some(at) = differs {
                println!("  {}\n  {}", one.trace[at], two.trace[at]);
            }
            return false;
        }
    }
    true
}

fn tell(tally: &Tally, seconds: f64) {
    let minutes = tally.virtual_us as f64 / 60e6;
    println!(
        "{} histories, {} records, {} requests, {:.0} virtual minutes in {seconds:.1} s: {:.0} histories a minute, {:.0} \
         virtual minutes a second",
        tally.histories,
        tally.records,
        tally.requests,
        minutes,
        tally.histories as f64 / seconds * 60.0,
        minutes / seconds
    );
    let struck: Vec<String> = tally.struck.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
    println!("what went wrong: {}", struck.join(", "));
}

fn explain(seed: u64, faults: &BTreeSet<Fault>) {
    let (faults, size, outcome) = least(seed, faults);
    let names: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { "calm".to_owned() } else { names.join(",") };
    println!("the least history that fails: tests/simulate --trace --from {seed} --scenario {names} --size {size}");
    let at = outcome.trace.iter().position(|line| line.contains("VIOLATION")).unwrap_or(outcome.trace.len());
    for line in &outcome.trace[at.saturating_sub(SHOWN)..outcome.trace.len().min(at + 3)] {
        println!("  {line}");
    }
    for violation in &outcome.violations {
        println!("invariant {}: {}", violation.invariant, violation.what);
    }
}

#[cfg(not(feature = "bugs"))]
fn prove(_: &Args) -> ExitCode {
    eprintln!("this build has no bugs to switch on; build with --features bugs");
    ExitCode::from(3)
}

/// The table of deliberate bugs: the seeds that it took, and what the first of them broke.
#[cfg(feature = "bugs")]
fn prove(args: &Args) -> ExitCode {
    use crate::proof::{Found, find, not_here};
    use recount_schemas::bugs::Bug;

    let mut wanted: Vec<Bug> = Vec::new();
    for name in &args.bugs {
        match name.parse() {
            Ok(bug) => wanted.push(bug),
            Err(_) if name == "all" => wanted.extend(Bug::ALL.iter().filter(|bug| not_here(**bug).is_none())),
            Err(_) => {
                eprintln!("there is no bug {name}");
                return ExitCode::from(3);
            }
        }
    }
    let row = |found: &Found| {
        let seeds = found.seeds.map_or("not found".to_owned(), |seeds| seeds.to_string());
        let what: String = found.what.chars().take(160).collect();
        println!("| {} | {seeds} | {} | {what} |", found.bug.as_str(), found.invariant);
    };
    println!("| bug | seeds | invariant | what was seen |\n| --- | --- | --- | --- |");
    let found = find(&wanted, args.from, args.seeds, args.threads, &row);
    for bug in Bug::ALL {
        if let Some(why) = not_here(*bug).filter(|_| args.bugs.iter().any(|name| name == "all")) {
            println!("| {} | – | {} | {why} |", bug.as_str(), bug.invariants().first().copied().unwrap_or_default());
        }
    }
    let missed = found.iter().filter(|found| found.seeds.is_none()).count();
    println!("{} bugs, {missed} not found in {} seeds", found.len(), args.seeds);
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
