//! `recount-local serve`: the engines on a loopback port until a signal.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use recount_schemas::host::SharedHost;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::engines::{Engines, OpenError, Options};

/// What to serve, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 4566)]
    pub port: u16,
    /// Directory of all data; made where it is missing.
    #[arg(long, value_name = "DIR", default_value = "recount-data")]
    pub data: PathBuf,
    /// The definition of the totals; its pipeline then runs beside the engines.
    #[arg(long, value_name = "FILE")]
    pub definition: Option<PathBuf>,
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
    /// Anything else of the operating system.
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
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
    let engines = Engines::open(&args.data, host, Options::default())?;
    println!("{}", ready_line(address, &args.data));
    engines.serve(listener, stop).await?;
    tracing::info!("stopped");
    Ok(())
}
