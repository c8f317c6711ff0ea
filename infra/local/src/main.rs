//! `recount-local`: the command line of local mode.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use recount_local::serve::{ServeArgs, serve};
use recount_schemas::host::SystemHost;
use tracing_subscriber::EnvFilter;

/// The whole pipeline on one machine.
#[derive(Debug, Parser)]
#[command(name = "recount-local", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve DynamoDB, DynamoDB Streams, Kinesis and S3 on one loopback port.
    Serve(ServeArgs),
}

/// What is logged when `RUST_LOG` says nothing. The protocol layer logs every refused request as an error; clients
/// provoke those on purpose.
const LOG: &str = "info,s3s=off,dynoxide=warn";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", with_causes(&e));
            ExitCode::from(2)
        }
    }
}

/// An error and those of its causes that its own text does not hold already.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[tokio::main]
async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(args) => serve(&args, SystemHost::shared()).await?,
    }
    Ok(())
}
