//! `recount-local serve`: the engines on a loopback port, and the pipeline beside them, until a signal.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use recount_compactor::context::{ContextError, read_definition};
use recount_schemas::host::SharedHost;
use recount_schemas::{Definition, Settings};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::engines::{Engines, OpenError, Options};
use crate::pipeline::{self, Pipeline, PipelineError, SCANS};

/// What to serve, and where.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  recount-local serve
  recount-local serve --port 8000 --data /tmp/mine --definition recount.toml --shards 4

In another shell, with AWS_ENDPOINT_URL=http://127.0.0.1:4566, AWS_REGION=us-east-1 and any credentials, every AWS SDK, the AWS
CLI, producer and recount work on it. Ctrl-C or SIGTERM ends it; its state survives, also kill -9.

Exit codes: 0 stopped by a signal, 2 it could not serve, 3 bad usage: the command line or the definition")]
pub struct ServeArgs {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 4566)]
    pub port: u16,
    /// Directory of all data; made where it is missing.
    #[arg(long, value_name = "DIR", default_value = "recount-data")]
    pub data: PathBuf,
    /// What is counted [default: the one in DIR, else scans per project]. It is kept as DIR/recount.toml.
    #[arg(long, value_name = "FILE")]
    pub definition: Option<PathBuf>,
    /// Shards of the Kinesis stream, where it is made.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..=64))]
    pub shards: i32,
    /// How often the compactor archives, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub archive_every: u64,
}

/// Why serving did not start or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The engines.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The port.
    #[error("cannot listen on {address}: {source}; stop what listens there, or take another port with --port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The definition.
    #[error(transparent)]
    Definition(#[from] ContextError),
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Anything else of the operating system.
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
}

impl ServeError {
    /// Whether the definition is what stands in the way: wrong, or not the one that made the totals.
    pub fn is_usage(&self) -> bool {
        use recount_consumer::handler::HandlerError;
        use recount_consumer::totals::TotalsError;
        matches!(
            self,
            Self::Definition(_)
                | Self::Pipeline(PipelineError::Consumer(
                    HandlerError::LedgerTooShort { .. } | HandlerError::Totals(TotalsError::OtherDefinition { .. })
                ))
        )
    }
}

/// Listens on 127.0.0.1 and nowhere else: the engines take any credentials.
///
/// # Errors
/// [`ServeError::Listen`].
pub async fn listen(port: u16) -> Result<TcpListener, ServeError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Completes on Ctrl-C or SIGTERM.
///
/// # Errors
/// When the handlers cannot be installed; that shows at once, not at the signal.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The line that says that requests are taken; scripts wait for it.
pub fn ready_line(address: SocketAddr, data: &Path) -> String {
    format!("ready: http://{address} (DynamoDB, DynamoDB Streams, Kinesis, S3), data in {}", data.display())
}

/// Runs until a signal.
///
/// # Errors
/// When the directory is in use, the port is taken, or the operating system refuses.
pub async fn serve(args: &ServeArgs, host: SharedHost) -> Result<(), ServeError> {
    let stop = stop_signal()?;
    // The port first: the cheaper of the two that another process may hold.
    let listener = listen(args.port).await?;
    let address = listener.local_addr()?;
    // The definition before the engines: what is wrong with it shows before anything is made.
    let (definition, text) = definition(args)?;
    let engines = Engines::open(&args.data, Arc::clone(&host), Options::default())?;
    let kept = args.data.join(DEFINITION);
    if !kept.exists() {
        keep(&kept, &text)?; // from the first moment on: killed now, it starts again with the same
    }
    let sdk = crate::client::in_process(engines.door()).await;
    let options = pipeline::Options {
        shards: args.shards,
        archive_every: Some(Duration::from_secs(args.archive_every)),
        ..pipeline::Options::default()
    };
    let positions = args.data.join("positions.sqlite");
    let pipeline = Pipeline::start(&engines, &sdk, &positions, Settings::default(), definition, host, &options).await?;
    // Another one replaces it only now that it was taken: a refused one leaves the directory as it was.
    keep(&kept, &text)?;
    println!("{}", ready_line(address, &args.data));
    let served = engines.serve(listener, stop).await;
    pipeline.stop().await;
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// The definition's file in the data directory.
const DEFINITION: &str = "recount.toml";

/// Writes the definition's text whole or not at all: killed in between, the old one is there.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    let new = path.with_extension("toml.new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}

/// The definition in force and its text: the one named, else the one that the directory was made with, else the built-in.
fn definition(args: &ServeArgs) -> Result<(Definition, String), ServeError> {
    let kept = args.data.join(DEFINITION);
    let path = args.definition.clone().or_else(|| kept.exists().then_some(kept));
    let Some(path) = path else {
        let built_in = Definition::parse(SCANS, DEFINITION).map_err(ContextError::from)?;
        return Ok((built_in, SCANS.to_owned()));
    };
    let definition = read_definition(&path.to_string_lossy())?;
    Ok((definition, std::fs::read_to_string(path)?))
}
