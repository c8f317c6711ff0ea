//! Real input: an item for each file of a directory.
//!
//! - [`walk`]: which files, and which project each belongs to.
//! - Each file is read once, in pieces, through SHA-256; its size is the number of bytes read, not what the directory says.
//! - A file that cannot be read is reported and does not end the scan.
//!
//! A scan's key is a hash of the run's name and the file's path below the directory: a run repeated under the same name
//! writes the same items again, another run writes new ones.

pub mod walk;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use recount_schemas::host::SharedHost;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::drive::{Pace, Target, drive};
use crate::items::{Scan, hex, scan_id};
use crate::table::Write;
pub use walk::{FileError, MAX_DEPTH};
use walk::{Found, Walk};

/// The most errors that a report lists.
pub const MAX_LISTED: usize = 100;
const PIECE: usize = 64 * 1024;

/// Whose the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectFrom {
    /// The directory just below the one scanned. A file that lies in none belongs to a project named like the directory
    /// scanned itself.
    TopDir,
    /// One project for all.
    Name(String),
}

/// When a file counts as scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OccurredAt {
    /// When it was last modified.
    Mtime,
    /// Now.
    Now,
}

/// What to scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSettings {
    /// The directory.
    pub dir: PathBuf,
    /// Whose the files are.
    pub project_from: ProjectFrom,
    /// When they count.
    pub occurred_at: OccurredAt,
    /// The run's name, part of each key.
    pub run: String,
    /// How many files are read at once.
    pub readers: usize,
}

/// Files and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a scan did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScanReport {
    /// The directory.
    pub dir: String,
    /// The run's name.
    pub run: String,
    /// Items inserted: one for each file read.
    pub inserted: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What was left out: symbolic links, sockets and other things that are neither file nor directory.
    pub left_out: u64,
    /// The number of files and directories that could not be read.
    pub failed: u64,
    /// The first of those, at most [`MAX_LISTED`].
    pub errors: Vec<FileError>,
    /// What each project got.
    pub projects: BTreeMap<String, Tally>,
    /// The time that it took, in seconds.
    pub seconds: f64,
}

/// Why a scan ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError<E> {
    /// The directory itself cannot be read.
    #[error("cannot scan {dir}")]
    Dir {
        /// The directory.
        dir: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The items could not be written.
    #[error(transparent)]
    Target(E),
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Items written.
    pub written: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Scans a directory into `target`.
pub async fn scan<T: Target<Op = Write>>(
    target: &T,
    settings: &ScanSettings,
    host: &SharedHost,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<ScanReport, ScanError<T::Error>> {
    let started = host.monotonic();
    let dir_error = |source| ScanError::Dir { dir: settings.dir.display().to_string(), source };
    let walk = Walk::new(&settings.dir, &settings.project_from).map_err(dir_error)?;
    let seen = Seen::default();
    let writes = found(walk)
        .map(|found| async { (read(found, settings, host).await, &seen) })
        .buffer_unordered(settings.readers.max(1))
        .filter_map(|(outcome, seen)| std::future::ready(seen.keep(outcome)));
    let told = |written| progress(Progress { written, bytes: seen.bytes.load(Ordering::Relaxed) });
    let driven = drive(target, writes, Pace::default(), &**host, &told).await.map_err(ScanError::Target)?;
    let lists = seen.lists.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(ScanReport {
        dir: settings.dir.display().to_string(),
        run: settings.run.clone(),
        inserted: driven.operations,
        bytes: seen.bytes.into_inner(),
        left_out: seen.left_out.into_inner(),
        failed: seen.failed.into_inner(),
        errors: lists.errors,
        projects: lists.projects,
        seconds: host.monotonic().saturating_sub(started).as_secs_f64(),
    })
}

/// What became of one thing found.
enum Outcome {
    Scanned(Scan),
    LeftOut,
    Failed(FileError),
}

#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    left_out: AtomicU64,
    failed: AtomicU64,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    projects: BTreeMap<String, Tally>,
    errors: Vec<FileError>,
}

impl Seen {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, outcome: Outcome) -> Option<Write> {
        match outcome {
            Outcome::Scanned(scan) => {
                self.bytes.fetch_add(scan.bytes, Ordering::Relaxed);
                let mut lists = self.lists();
                let tally = lists.projects.entry(scan.project_id.clone()).or_default();
                tally.files += 1;
                tally.bytes = tally.bytes.saturating_add(scan.bytes);
                Some(Write::Put(scan))
            }
            Outcome::LeftOut => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
            Outcome::Failed(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut lists = self.lists();
                if lists.errors.len() < MAX_LISTED {
                    lists.errors.push(error);
                }
                None
            }
        }
    }
}

/// What a walk finds, walked on a thread of its own, at most some hundred entries ahead.
fn found(walk: Walk) -> impl Stream<Item = Found> {
    let (to, mut from) = mpsc::channel(256);
    tokio::task::spawn_blocking(move || {
        for found in walk {
            if to.blocking_send(found).is_err() {
                return; // nobody listens any more
            }
        }
    });
    futures::stream::poll_fn(move |context| from.poll_recv(context))
}

async fn read(found: Found, settings: &ScanSettings, host: &SharedHost) -> Outcome {
    let file = match found {
        Found::File(file) => file,
        Found::LeftOut => return Outcome::LeftOut,
        Found::Failed(error) => return Outcome::Failed(error),
    };
    let path = file.path.clone();
    let contents = match tokio::task::spawn_blocking(move || contents(&path)).await {
        Ok(Ok(contents)) => contents,
        Ok(Err(error)) => return Outcome::Failed(FileError::new(&file.path, &error)),
        Err(error) => return Outcome::Failed(FileError::new(&file.path, &error)),
    };
    let scanned_us = match settings.occurred_at {
        OccurredAt::Mtime => contents.modified_us,
        OccurredAt::Now => host.now_us(),
    };
    Outcome::Scanned(Scan {
        scan_id: scan_id(&settings.run, file.relative.as_os_str().as_encoded_bytes()),
        project_id: file.project,
        file_name: file.name,
        bytes: contents.bytes,
        sha256: contents.sha256,
        verdict: "clean".to_owned(),
        scanned_us,
    })
}

struct Contents {
    bytes: u64,
    sha256: String,
    modified_us: i64,
}

fn contents(path: &Path) -> std::io::Result<Contents> {
    let mut file = File::open(path)?;
    let modified = jiff::Timestamp::try_from(file.metadata()?.modified()?).map_err(std::io::Error::other)?;
    let (mut hasher, mut bytes, mut piece) = (Sha256::new(), 0u64, vec![0; PIECE]);
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(piece.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
    Ok(Contents { bytes, sha256: hex(&hasher.finalize()), modified_us: modified.as_microsecond() })
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
