//! Multipart uploads: parts are files beside the objects until the completion joins them into one.
//!
//! An upload survives a restart, and stays until it is completed or aborted: nothing sweeps it. It takes no part in conditions until it completes, as in S3. The joined object's
//! ETag is the MD5 of its content (see [`super::attributes`]).

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};

use super::attributes::{self, Attributes, Described, hex};
use super::error::StoreError;
use super::key;
use super::store::{Condition, Store, Temp};

/// Highest part number (S3 User Guide, "Multipart upload limits").
const MAX_PARTS: i32 = 10_000;

/// Least size in bytes of every part but the last (same page).
const MIN_PART_BYTES: u64 = 5 << 20;

const ABOUT: &str = "upload.json";

#[derive(Debug, Serialize, Deserialize)]
struct Upload {
    bucket: String,
    key: String,
    described: Described,
}

impl Store {
    /// Begins an upload and returns its ID.
    ///
    /// # Errors
    /// When bucket or key are not fit.
    pub fn create_upload(&self, bucket: &str, key: &str, described: Described) -> Result<String, StoreError> {
        key::file(&self.bucket(bucket)?, key)?;
        let id = format!("{:016x}{:016x}", self.random(), self.random());
        let dir = self.uploads.join(&id);
        fs::create_dir(&dir).map_err(StoreError::io("make", &dir))?;
        let upload = Upload { bucket: bucket.to_owned(), key: key.to_owned(), described };
        let about = dir.join(ABOUT);
        let json = serde_json::to_vec(&upload).map_err(io::Error::from).map_err(StoreError::io("write", &about))?;
        fs::write(&about, json).map_err(StoreError::io("write", about))?;
        Ok(id)
    }

    /// Keeps a part; one of the same number is replaced.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUpload`], [`StoreError::InvalidArgument`] for a number outside 1 to 10,000.
    pub fn put_part(
        &self,
        (bucket, key, id): (&str, &str, &str),
        number: i32,
        mut temp: Temp,
        etag: &str,
    ) -> Result<(), StoreError> {
        if !(1..=MAX_PARTS).contains(&number) {
            return Err(StoreError::InvalidArgument(format!("part number {number} is not in 1 to {MAX_PARTS}")));
        }
        let (dir, _) = self.upload(bucket, key, id)?;
        attributes::set(&temp.file, temp.path(), etag, &Described::default())?;
        temp.file.sync_all().map_err(StoreError::io("sync", temp.path()))?;
        let path = part_path(&dir, number);
        temp.rename(&path).map_err(StoreError::io("publish", path))
    }

    /// Keeps `bytes` of an open object from `start` on as a part; gives the part's ETag.
    ///
    /// # Errors
    /// Those of [`Store::put_part`].
    pub fn copy_part(
        &self,
        upload: (&str, &str, &str),
        number: i32,
        (source, start, bytes): (&mut File, u64, u64),
    ) -> Result<String, StoreError> {
        let mut temp = self.temp()?;
        source
            .seek(SeekFrom::Start(start))
            .and_then(|_| io::copy(&mut source.take(bytes), &mut temp.file))
            .map_err(StoreError::io("copy to", temp.path()))?;
        let etag = attributes::md5(&mut temp.file).map_err(StoreError::io("read", temp.path()))?;
        self.put_part(upload, number, temp, &etag)?;
        Ok(etag)
    }

    /// Parts in order of their numbers.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUpload`].
    pub fn parts(&self, bucket: &str, key: &str, id: &str) -> Result<Vec<(i32, Attributes)>, StoreError> {
        let (dir, _) = self.upload(bucket, key, id)?;
        let mut parts = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let path = entry.path();
            let mut file = File::open(&path).map_err(StoreError::io("open", &path))?;
            parts.push((number, attributes::of(&mut file, &path)?));
        }
        parts.sort_by_key(|(number, _)| *number);
        Ok(parts)
    }

    /// Joins the named parts into the object, if the condition holds.
    ///
    /// # Errors
    /// [`StoreError::InvalidPart`], [`StoreError::InvalidPartOrder`], [`StoreError::PartTooSmall`], and those of
    /// [`Store::publish`]. The upload then stays as it was.
    pub fn complete_upload(
        &self,
        (bucket, key, id): (&str, &str, &str),
        parts: &[(i32, Option<String>)],
        condition: &Condition,
    ) -> Result<Attributes, StoreError> {
        let (dir, upload) = self.upload(bucket, key, id)?;
        if parts.is_empty() {
            return Err(StoreError::InvalidArgument("the completion names no part".to_owned()));
        }
        if !parts.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(StoreError::InvalidPartOrder);
        }
        let mut temp = self.temp()?;
        let mut hash = Md5::new();
        let mut buffer = vec![0u8; 1 << 20];
        for (index, (number, etag)) in parts.iter().enumerate() {
            let path = part_path(&dir, *number);
            let mut file = File::open(&path).map_err(|_| StoreError::InvalidPart(*number))?;
            let attributes = attributes::of(&mut file, &path)?;
            if etag.as_ref().is_some_and(|etag| *etag != attributes.etag) {
                return Err(StoreError::InvalidPart(*number));
            }
            if attributes.size < MIN_PART_BYTES && index + 1 < parts.len() {
                return Err(StoreError::PartTooSmall(*number));
            }
            loop {
                let read = file.read(&mut buffer).map_err(StoreError::io("read", &path))?;
                let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
                hash.update(bytes);
                temp.file.write_all(bytes).map_err(StoreError::io("write", temp.path()))?;
            }
        }
        let etag = hex(hash.finalize().as_ref());
        let attributes = self.publish(temp, (bucket, key), condition, &etag, &upload.described)?;
        fs::remove_dir_all(&dir).map_err(StoreError::io("remove", dir))?;
        Ok(attributes)
    }

    /// Drops an upload and its parts.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUpload`].
    pub fn abort_upload(&self, bucket: &str, key: &str, id: &str) -> Result<(), StoreError> {
        let (dir, _) = self.upload(bucket, key, id)?;
        fs::remove_dir_all(&dir).map_err(StoreError::io("remove", dir))
    }

    fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<(PathBuf, Upload), StoreError> {
        self.bucket(bucket)?;
        let missing = || StoreError::NoSuchUpload(id.to_owned());
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let dir = self.uploads.join(id);
        let json = fs::read(dir.join(ABOUT)).map_err(|_| missing())?;
        let upload: Upload = serde_json::from_slice(&json).map_err(|_| missing())?;
        if upload.bucket == bucket && upload.key == key { Ok((dir, upload)) } else { Err(missing()) }
    }
}

fn part_path(dir: &Path, number: i32) -> PathBuf {
    dir.join(format!("{number:05}"))
}
