//! `recount-local`: the command line of local mode.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use recount_local::demo::{DemoArgs, DemoError, demo};
use recount_local::io;
use recount_local::serve::{ServeArgs, ServeError, serve};
use recount_schemas::causes;
use recount_schemas::host::SystemHost;
use recount_schemas::terminal::{Guarded, shown_message};
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

/// The whole pipeline on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "recount-local",
    version,
    about,
    after_help = "Examples:\n  recount-local demo\n  recount-local serve --port 4566 --data ./recount-data"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve DynamoDB, DynamoDB Streams, Kinesis and S3 on one loopback port, with the pipeline running beside them.
    Serve(ServeArgs),
    /// The main job end to end, and an incident: totals damaged, named, repaired.
    Demo(DemoArgs),
}

/// What is logged when `RUST_LOG` says nothing. The protocol layer logs every refused request as an error; clients
/// provoke those on purpose.
const LOG: &str = "info,s3s=off,dynoxide=warn";
/// The demo provokes failures, and tells of them itself.
const DEMO_LOG: &str = "off";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let asked_for = !e.use_stderr();
            // Where the terminal is gone there is nobody to tell. What was typed can come from anywhere.
            let _ = match asked_for {
                true => e.print(),
                false => write!(Guarded(std::io::stderr()), "{}", e.render()),
            };
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(3) };
        }
    };
    let log = match cli.command {
        Command::Serve(_) => LOG,
        Command::Demo(_) => DEMO_LOG,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log));
    let writer = || Guarded(std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).init();
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("error: {}", shown_message(&causes(e.as_ref())));
            let usage = e.downcast_ref::<DemoError>().is_some_and(DemoError::is_usage)
                || e.downcast_ref::<ServeError>().is_some_and(ServeError::is_usage);
            ExitCode::from(if usage { 3 } else { 2 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    io::runtime(Builder::new_multi_thread()).context("cannot start the runtime")?.block_on(work(cli))
}

async fn work(cli: Cli) -> anyhow::Result<u8> {
    match cli.command {
        Command::Serve(args) => {
            serve(&args, SystemHost::shared()).await?;
            Ok(0)
        }
        Command::Demo(args) => Ok(u8::from(!demo(&args, SystemHost::shared()).await?.clean)),
    }
}
