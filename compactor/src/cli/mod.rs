//! The command line: what is typed, to a library function, to a report and an exit code.
//!
//! - [`args`]: the command line as typed.
//! - [`commands`]: each command as a function that returns its report and verdict; the demo and the tests call these.
//! - [`explain`], [`fsck`], [`why`]: a command with its arguments, its report and its table.
//! - [`redrive`](mod@redrive): `recount redrive`.
//! - [`replay`](mod@replay): `recount replay`.
//! - [`audit`], [`backfill`]: likewise.
//! - [`tables`]: reports as tables.
//! - [`progress`]: what is being done, on a terminal only.
//!
//! Exit codes: 0 clean, 1 findings, 2 could not decide, 3 bad usage.

pub mod args;
pub mod audit;
pub mod backfill;
pub mod commands;
pub mod compact;
pub mod erase;
pub mod explain;
pub mod fsck;
pub mod progress;
pub mod redrive;
pub mod replay;
pub mod tables;
pub mod why;

use std::ffi::OsString;
use std::io::Write;

use aws_config::BehaviorVersion;
use clap::Parser;
use recount_schemas::host::SystemHost;
use recount_schemas::{Settings, terminal};

use crate::context::{Context, read_definition};
use args::{Cli, Format};
use commands::{CommandError, Exit};
use progress::Progress;

/// Runs the command line with the machine's clock and environment. Returns the exit code.
pub async fn main(line: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = !error.use_stderr();
            // Where the terminal is gone there is nobody to tell. What was typed can come from anywhere.
            let _ = match asked_for {
                true => error.print(),
                false => write!(terminal::Guarded(std::io::stderr()), "{}", error.render()),
            };
            return if asked_for { Exit::Clean.code() } else { Exit::Usage.code() };
        }
    };
    let _ = tracing_subscriber::fmt()
        .with_writer(|| terminal::Guarded(std::io::stderr()))
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .try_init();
    match run(cli).await {
        Ok(exit) => exit.code(),
        Err(error) => {
            let message = terminal::shown_message(&format!("{error}"));
            let _ = writeln!(std::io::stderr(), "error: {message}");
            error.exit().code()
        }
    }
}

async fn run(cli: Cli) -> Result<Exit, CommandError> {
    let mut settings = Settings::from_lookup(|name| std::env::var(name).ok());
    if let Some(definition) = cli.definition {
        settings.definition = definition;
    }
    let definition = read_definition(&settings.definition)?;
    let sdk = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let context = Context::new(&sdk, settings, definition, SystemHost::shared());
    let progress = Progress::new(cli.format == Format::Table);
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let exit = commands::run(&context, cli.command, cli.format, &mut out, &|step| progress.step(step)).await;
    progress.finish();
    exit.and_then(|exit| match out.flush() {
        // A reader such as `head` that has seen enough is no failure of ours.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit),
    })
}
