//! The command line: what is typed, to a library function, to a report and an exit code.
//!
//! - [`args`]: the command line as typed.
//! - [`commands`]: each command as a function that returns its report and verdict; the demo and the tests call these.
//! - [`recompute`]: `recount recompute --engine athena`.
//! - [`doctor`], [`explain`], [`fsck`], [`why`]: a command with its arguments, its report and its table.
//! - [`redrive`](mod@redrive): `recount redrive`.
//! - [`replay`](mod@replay): `recount replay`.
//! - [`audit`], [`backfill`]: likewise.
//! - [`definition`], [`estimate`]: commands that ask nobody.
//! - [`tables`]: reports as tables. [`titled`]: which home a report is of.
//! - [`cure`]: what can be done where AWS, or nobody, answers as it should not.
//! - [`rebuild`], [`switch`]: the commands that have a file of their own.
//! - [`progress`]: what is being done, on a terminal; what is waited for, everywhere.
//!
//! Exit codes: 0 clean, 1 findings, 2 could not decide, 3 bad usage.

pub mod args;
pub mod audit;
pub mod backfill;
pub mod commands;
pub mod compact;
pub mod cure;
pub mod definition;
pub mod doctor;
pub mod erase;
pub mod estimate;
pub mod explain;
pub mod fsck;
pub mod progress;
pub mod rebuild;
pub mod recompute;
pub mod redrive;
pub mod replay;
pub mod switch;
pub mod tables;
pub mod titled;
pub mod why;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};

use aws_config::{BehaviorVersion, SdkConfig};
use recount_consumer::handler::{AttemptTimeouts, Clients};
use recount_schemas::host::SystemHost;
use recount_schemas::{Definition, Home, Settings, terminal};

use crate::bucket::Bucket;
use crate::context::{Context, ContextError, Given, read_definition};
use crate::sets;
use crate::stack::{Stack, StackError, find};
use args::{Cli, Command, Format};
use commands::{CommandError, Exit};
use cure::Asked;
use progress::Progress;

/// Runs the command line with the machine's clock and environment. Returns the exit code.
pub async fn main(line: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::typed(line) {
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
    let mut asked = Asked::default();
    match run(cli, &mut asked).await {
        Ok(exit) => exit.code(),
        Err(error) => {
            let message = error.to_string();
            let cure = asked.cure(&message).map_or_else(String::new, |cure| format!("\n  {cure}"));
            let _ = writeln!(std::io::stderr(), "error: {}", terminal::shown_message(&format!("{message}{cure}")));
            error.exit().code()
        }
    }
}

async fn run(cli: Cli, asked: &mut Asked) -> Result<Exit, CommandError> {
    let Cli { format, definition: mut file, set, stack, mut command } = cli;
    let mut out = std::io::BufWriter::new(Left(std::io::stdout()));
    match &command {
        Command::Definition(args) => {
            return definition::run(args, format, &mut out).and_then(|exit| flushed(&mut out, exit));
        }
        Command::Estimate(args) => {
            return estimate::run(args, format, &mut out).and_then(|exit| flushed(&mut out, exit));
        }
        _ => {}
    }
    // There the definition is that of the totals to be made, not of those that are there.
    if let Command::Rebuild(args) = &mut command {
        args.definition = file.take();
    }
    // What is wrong with a file shows before anybody is asked.
    let named = file.as_deref().map(read_definition).transpose()?;
    commands::check_files(&command)?;
    let local = Settings::from_lookup(|name| std::env::var(name).ok());
    let stack = stack.filter(|name| !name.is_empty());
    // That there is no file is no fault where a set is the current home, or a stack has the definition.
    let missing = |error: &ContextError| matches!(error, ContextError::Unreadable { source, .. } if source.kind() == ErrorKind::NotFound);
    let read = match named.is_none() && stack.is_none() {
        true => read_definition(&local.definition).map(drop),
        false => Ok(()),
    };
    let read = match read {
        Err(error) if !missing(&error) => return Err(error.into()),
        read => read,
    };
    let sdk = aws_config::defaults(BehaviorVersion::latest()).load().await;
    *asked = Asked {
        names: local.clone(),
        stack: stack.clone(),
        region: sdk.region().map(ToString::to_string),
        endpoints: Asked::endpoints(|name| std::env::var(name).ok(), sdk.endpoint_url()),
    };
    let host = SystemHost::shared();
    let stack = match stack {
        Some(name) => Some(find::stack(&sdk, &name).await?),
        None => None,
    };
    let base = stack.as_ref().map_or(local, |stack| stack.settings.clone());
    asked.names = base.clone();
    let in_set = std::env::var(Settings::SET).ok().filter(|name| !name.is_empty());
    let home = match (set, in_set) {
        (Some(home), _) => home,
        (None, Some(name)) => name.parse()?,
        (None, None) => {
            let Clients { s3, .. } = Clients::within(&sdk, AttemptTimeouts::ARCHIVE);
            match sets::current(&Bucket::new(s3, base.bucket.as_str(), host.clone())).await {
                Ok(current) => current.home,
                Err(error) => return Err(read.err().map_or_else(|| error.into(), CommandError::from)),
            }
        }
    };
    let given = given(&sdk, stack.as_ref(), &home, named).await?;
    let context = Context { stack, ..Context::open(&sdk, &base, &home, given, host).await? };
    let progress = Progress::new(format == Format::Table);
    let exit = commands::run(&context, command, format, &mut out, &|work| progress.say(work)).await;
    progress.finish();
    exit.and_then(|exit| flushed(&mut out, exit))
}

/// Where a home's definition comes from: what the command line names; of a stack's base, what its consumer has in use; else the file
/// of the settings. A set has its own beside it.
async fn given(
    sdk: &SdkConfig,
    stack: Option<&Stack>,
    home: &Home,
    named: Option<Definition>,
) -> Result<Given, StackError> {
    Ok(match (named, stack) {
        (Some(definition), _) => Given::Named(definition),
        (None, Some(stack)) if home.set().is_none() => Given::Deployed(find::definition(sdk, stack).await?.definition),
        (None, _) => Given::File,
    })
}

/// How a command ends once its report is out.
fn flushed(out: &mut impl Write, exit: Exit) -> Result<Exit, CommandError> {
    out.flush()?;
    Ok(exit)
}

/// A reader such as `head` that has seen enough is no failure of ours: what comes after goes nowhere, and the command ends as it would.
struct Left<W>(W);

impl<W: Write> Write for Left<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            done => done,
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe whose reader takes so many bytes and goes, or a disk that is full.
    struct Ends(usize, ErrorKind);

    impl Write for Ends {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(self.1.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            if self.0 == 0 { Err(self.1.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is_one() {
        let report = [b'x'; 100];
        let mut out = Left(Ends(10, ErrorKind::BrokenPipe));
        out.write_all(&report).unwrap();
        assert!(matches!(flushed(&mut out, Exit::Findings), Ok(Exit::Findings)));
        let mut out = Left(Ends(10, ErrorKind::StorageFull));
        assert_eq!(out.write_all(&report).unwrap_err().kind(), ErrorKind::StorageFull);
        assert!(matches!(flushed(&mut out, Exit::Clean), Err(CommandError::Output(_))));
    }
}
