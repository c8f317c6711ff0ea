//! The producer tool: see `producer --help`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use recount_producer::cli::Cli;
use recount_producer::cli::run::{Exit, run};
use recount_schemas::host::SystemHost;
use recount_schemas::terminal::{Guarded, shown_message};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = !error.use_stderr(); // help or version
            let _ = match asked_for {
                true => error.print(),
                false => write!(Guarded(std::io::stderr()), "{}", error.render()),
            };
            return code(if asked_for { Exit::Clean } else { Exit::Usage });
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let writer = || Guarded(std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).init();
    match run(cli, &SystemHost::shared()).await {
        Ok((report, exit)) => match writeln!(std::io::stdout(), "{report}") {
            Ok(()) => code(exit),
            Err(_) => code(Exit::Undecided), // nobody reads the report
        },
        Err(error) => {
            let exit = error.exit();
            eprintln!("producer: {}", shown_message(&format!("{:#}", anyhow::Error::new(error))));
            code(exit)
        }
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}
