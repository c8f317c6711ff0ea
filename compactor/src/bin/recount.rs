//! `recount`: the operator's one tool.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    ExitCode::from(recount_compactor::cli::main(std::env::args_os()).await)
}
