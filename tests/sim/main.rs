//! The simulation: the real parts over the real SDK, embedded engines, virtual time, and everything going wrong that may.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`plan`] | a history, drawn from its seed |
//! | [`faults`] | what can go wrong, by name, and how AWS says it |
//! | [`world`] | a history from the first record to the last check |
//! | [`parts`] | the parts as processes that die and stand still |
//! | [`oracle`] | what the records come to, counted the obvious way |
//! | [`checks`] | what must hold always, and at the end; [`damage`]: what somebody edits is found and put right; [`bystanders`]: bad records delay no good ones |
//! | [`capture`] | the table's changes through the relay, and what audit says of those that got lost |
//! | [`verdicts`] | what reconcile may find where nobody damaged anything, key by key |
//! | [`network`] | the way between the processes and the engines |
//! | [`clock`], [`process`], [`source`] | virtual time, machines, event IDs by the seed |
//! | [`trace`] | what happened |
//! | [`runner`] | many histories; the least that fails |
//! | `proof` | every deliberate bug is found |
//! | [`cli`] | the command line |

#[path = "../it/support/naive.rs"]
#[allow(dead_code)]
mod naive;
#[path = "../it/support/records.rs"]
#[allow(dead_code)]
mod records;

mod bystanders;
mod capture;
mod checks;
mod cli;
mod clock;
mod damage;
mod faults;
mod network;
mod oracle;
mod parts;
mod plan;
mod process;
#[cfg(feature = "bugs")]
mod proof;
mod runner;
mod source;
mod trace;
mod verdicts;
mod world;

fn main() -> std::process::ExitCode {
    cli::main()
}
