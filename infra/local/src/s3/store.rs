//! Objects as files: what makes each operation atomic.
//!
//! ```text
//! DIR/s3/<bucket>/<key>       an object is a plain file; a reader that has it open keeps it whole
//! DIR/s3-work/temp/           files being written; swept when the store opens
//! DIR/s3-work/uploads/<id>/   parts of multipart uploads
//! DIR/s3-work/locks/          64 lock files; a key's writers take the one its hash says
//! ```
//!
//! | operation | how it becomes visible |
//! | --- | --- |
//! | put, no condition | `rename` over the old file |
//! | put, `If-None-Match: *` | `link` to a name that must not exist: the kernel picks the one winner, also between processes |
//! | put, `If-Match` | look at the ETag and `rename`, under the key's lock, which every writer of the key takes |
//! | delete | `unlink`, then the directories that became empty |
//!
//! A file is written and synced before it gets its name, so a killed process leaves the old object, the new one, or
//! none: never half. (The directory is not synced: a power cut may take the last names back.)

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use recount_schemas::host::SharedHost;

use super::attributes::{self, Attributes, Described};
use super::error::StoreError;
use super::key;

/// Lock files; two keys with one hash wait for each other, no more.
const LOCKS: u64 = 64;

/// How often a writer makes its directories again when a delete prunes them under its hands.
const PRUNE_RACES: usize = 64;

/// Under which condition a write happens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// Always.
    #[default]
    None,
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match: *`.
    Present,
    /// `If-Match: "<etag>"`, without the quotes.
    Matches(String),
}

/// A file being written; removed when it is dropped before it was published.
#[derive(Debug)]
pub struct Temp {
    path: PathBuf,
    /// The open file.
    pub file: File,
    armed: bool,
}

impl Temp {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file this name, in the place of whatever had it.
    pub(super) fn rename(&mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.armed = false;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.armed {
            let _ = fs::remove_file(&self.path); // the sweep of the next open takes what stays
        }
    }
}

/// The store of one directory.
#[derive(Debug)]
pub struct Store {
    objects: PathBuf,
    temp: PathBuf,
    locks: PathBuf,
    pub(super) uploads: PathBuf,
    host: SharedHost,
}

impl Store {
    /// Opens `dir`, makes what is missing, and sweeps what a killed process left half written.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(dir: &Path, host: SharedHost) -> Result<Self, StoreError> {
        let work = dir.join("s3-work");
        let store = Store {
            objects: dir.join("s3"),
            temp: work.join("temp"),
            locks: work.join("locks"),
            uploads: work.join("uploads"),
            host,
        };
        for path in [&store.objects, &store.temp, &store.locks, &store.uploads] {
            fs::create_dir_all(path).map_err(StoreError::io("make", path))?;
        }
        for left in fs::read_dir(&store.temp).map_err(StoreError::io("list", &store.temp))?.flatten() {
            let _ = fs::remove_file(left.path()); // gone already: another opener sweeps too
        }
        Ok(store)
    }

    /// A new empty file that has no name among the objects yet.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temp(&self) -> Result<Temp, StoreError> {
        let path = self.temp.join(format!("{:08x}-{:016x}", std::process::id(), self.host.random_u64()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(StoreError::io("make", &path))?;
        Ok(Temp { path, file, armed: true })
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(self.host.now_us()).unwrap_or(0))
    }

    /// 64 random bits, for the names of uploads.
    pub(super) fn random(&self) -> u64 {
        self.host.random_u64()
    }

    /// The directory of an existing bucket.
    pub(super) fn bucket(&self, bucket: &str) -> Result<PathBuf, StoreError> {
        key::check_bucket(bucket)?;
        let dir = self.objects.join(bucket);
        if dir.is_dir() { Ok(dir) } else { Err(StoreError::NoSuchBucket(bucket.to_owned())) }
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// [`StoreError::BucketExists`].
    pub fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        key::check_bucket(bucket)?;
        let dir = self.objects.join(bucket);
        match fs::create_dir(&dir) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::BucketExists(bucket.to_owned())),
            Err(e) => Err(StoreError::io("make", dir)(e)),
        }
    }

    /// Whether the bucket is there.
    ///
    /// # Errors
    /// [`StoreError::NoSuchBucket`].
    pub fn head_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        self.bucket(bucket).map(drop)
    }

    /// Removes an empty bucket.
    ///
    /// # Errors
    /// [`StoreError::BucketNotEmpty`], [`StoreError::NoSuchBucket`].
    pub fn delete_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let dir = self.bucket(bucket)?;
        remove_empty_tree(&dir);
        if dir.exists() { Err(StoreError::BucketNotEmpty(bucket.to_owned())) } else { Ok(()) }
    }

    /// All buckets by name, with the time each directory was made (where the file system knows it).
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn buckets(&self) -> Result<Vec<(String, SystemTime)>, StoreError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.objects).map_err(StoreError::io("list", &self.objects))?.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let Ok(name) = entry.file_name().into_string() else { continue };
            if metadata.is_dir() && key::check_bucket(&name).is_ok() {
                let made = metadata.created().or_else(|_| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((name, made));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Opens an object. The file stays whole for this reader, whatever is put or deleted meanwhile.
    ///
    /// # Errors
    /// [`StoreError::NoSuchKey`], [`StoreError::NoSuchBucket`].
    pub fn open_object(&self, bucket: &str, key: &str) -> Result<(File, Attributes), StoreError> {
        let path = key::file(&self.bucket(bucket)?, key)?;
        let missing = || StoreError::NoSuchKey(key.to_owned());
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if is_missing(&e) => return Err(missing()),
            Err(e) => return Err(StoreError::io("open", path)(e)),
        };
        if !file.metadata().map_err(StoreError::io("look at", &path))?.is_file() {
            return Err(missing());
        }
        let attributes = attributes::of(&mut file, &path)?;
        Ok((file, attributes))
    }

    /// The attributes of an object.
    ///
    /// # Errors
    /// As [`Store::open_object`].
    pub fn head(&self, bucket: &str, key: &str) -> Result<Attributes, StoreError> {
        self.open_object(bucket, key).map(|(_, attributes)| attributes)
    }

    /// Gives a written file its name, if the condition holds. `etag`: hex MD5 of its content.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] (412), [`StoreError::NoSuchKey`] (404: `If-Match` and no object),
    /// [`StoreError::NoSuchBucket`], [`StoreError::InTheWay`].
    pub fn publish(
        &self,
        mut temp: Temp,
        (bucket, key): (&str, &str),
        condition: &Condition,
        etag: &str,
        described: &Described,
    ) -> Result<Attributes, StoreError> {
        let bucket_dir = self.bucket(bucket)?;
        let parts = key::components(key)?;
        let target = key::file(&bucket_dir, key)?;
        // Last-Modified is the store's own time, not the file system's: all engines go by one clock.
        temp.file.set_modified(self.now()).map_err(StoreError::io("date", &temp.path))?;
        let attributes = attributes::set(&temp.file, &temp.path, etag, described)?;
        temp.file.sync_all().map_err(StoreError::io("sync", &temp.path))?;

        let _lock = self.lock(bucket, key)?;
        match condition {
            Condition::None | Condition::Absent => {}
            Condition::Present => self.head(bucket, key).map(drop)?,
            Condition::Matches(expected) => {
                if self.head(bucket, key)?.etag != *expected {
                    return Err(StoreError::PreconditionFailed("If-Match"));
                }
            }
        }
        let exclusive = *condition == Condition::Absent;
        for _ in 0..PRUNE_RACES {
            self.make_parents(&bucket_dir, bucket, key, &parts)?;
            // A link leaves the temporary name, which goes when `temp` is dropped.
            let published = if exclusive { fs::hard_link(&temp.path, &target) } else { temp.rename(&target) };
            match published {
                Ok(()) => return Ok(attributes),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {} // pruned: make the directories again
                Err(e) if target.is_dir() => {
                    remove_empty_tree(&target);
                    if target.is_dir() {
                        tracing::debug!(error = %e, key, "a directory stands where the object should go");
                        return Err(StoreError::InTheWay(key.to_owned()));
                    }
                }
                Err(e) if exclusive && e.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::PreconditionFailed("If-None-Match"));
                }
                Err(e) => return Err(StoreError::io("publish", target)(e)),
            }
        }
        Err(StoreError::Io {
            what: "publish",
            path: target,
            source: io::Error::other("its directory vanishes as often as it is made"),
        })
    }

    /// Copies an object's bytes to another key: a new file, so that source and copy never share changes.
    ///
    /// # Errors
    /// [`StoreError::NoSuchKey`] when the source is missing; those of [`Store::publish`].
    pub fn copy(
        &self,
        source: (&str, &str),
        target: (&str, &str),
        condition: &Condition,
        described: Option<Described>,
        allowed: impl FnOnce(&Attributes) -> Result<(), StoreError>,
    ) -> Result<Attributes, StoreError> {
        let (mut from, attributes) = self.open_object(source.0, source.1)?;
        allowed(&attributes)?;
        let mut temp = self.temp()?;
        let copied = io::copy(&mut from, &mut temp.file).map_err(StoreError::io("copy to", &temp.path))?;
        if copied != attributes.size {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the source changed while it was copied");
            return Err(StoreError::Io { what: "copy to", path: temp.path.clone(), source });
        }
        let described = described.unwrap_or(attributes.described);
        self.publish(temp, target, condition, &attributes.etag, &described)
    }

    /// Removes an object; one that is not there is fine, as in S3.
    ///
    /// # Errors
    /// With `if_match`: [`StoreError::NoSuchKey`], [`StoreError::PreconditionFailed`].
    pub fn delete(&self, bucket: &str, key: &str, if_match: Option<&Condition>) -> Result<(), StoreError> {
        let bucket_dir = self.bucket(bucket)?;
        let path = key::file(&bucket_dir, key)?;
        let _lock = self.lock(bucket, key)?;
        match if_match {
            Some(Condition::Matches(expected)) if self.head(bucket, key)?.etag != *expected => {
                return Err(StoreError::PreconditionFailed("If-Match"));
            }
            Some(Condition::Present) => self.head(bucket, key).map(drop)?,
            _ => {}
        }
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if is_missing(&e) => return Ok(()),
            Err(_) if path.is_dir() => return Ok(()), // `a` where only `a/b` is
            Err(e) => return Err(StoreError::io("remove", path)(e)),
        }
        let mut parent = path.parent();
        while let Some(dir) = parent.filter(|dir| *dir != bucket_dir) {
            if fs::remove_dir(dir).is_err() {
                break; // not empty
            }
            parent = dir.parent();
        }
        Ok(())
    }

    fn make_parents(&self, bucket_dir: &Path, bucket: &str, key: &str, parts: &[&str]) -> Result<(), StoreError> {
        let mut dir = bucket_dir.to_path_buf();
        let parents = parts.split_last().map_or(&[][..], |(_, parents)| parents);
        // A parent that a delete prunes between two steps is made again by the caller's loop.
        for part in parents {
            dir.push(part);
            match fs::create_dir(&dir) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    if dir.is_file() {
                        return Err(StoreError::InTheWay(key.to_owned()));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return if bucket_dir.is_dir() { Ok(()) } else { Err(StoreError::NoSuchBucket(bucket.to_owned())) };
                }
                Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(StoreError::InTheWay(key.to_owned())),
                Err(e) => return Err(StoreError::io("make", dir)(e)),
            }
        }
        if parents.is_empty() && !bucket_dir.is_dir() {
            return Err(StoreError::NoSuchBucket(bucket.to_owned()));
        }
        Ok(())
    }

    /// Keeps other writers of this key out until the file is dropped, in this process and in others.
    fn lock(&self, bucket: &str, key: &str) -> Result<File, StoreError> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((bucket, key));
        let path = self.locks.join(format!("{:02}", hash % LOCKS));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                file.lock().map_err(StoreError::io("lock", &path))?;
                Ok(file)
            }
            Err(TryLockError::Error(e)) => Err(StoreError::io("lock", &path)(e)),
        }
    }
}

/// "There is no such file", also when a parent of it is a file.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Removes `dir` and the directories below it as far as they hold no file: what a killed writer or deleter left.
fn remove_empty_tree(dir: &Path) {
    if fs::remove_dir(dir).is_ok() {
        return;
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_tree(&entry.path());
        } else {
            return; // a file: this directory stays
        }
    }
    let _ = fs::remove_dir(dir);
}
