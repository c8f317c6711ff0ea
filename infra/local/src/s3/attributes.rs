//! What is known of an object besides its bytes, kept in an extended attribute of its file.
//!
//! The attribute lives and dies with the inode, so it needs no second write to agree with the first: it is set on the
//! temporary file before the file gets its name. It says which size and modification time it speaks of; a file that
//! somebody changed or copied in by hand is found out and read again.
//!
//! The ETag is always the MD5 of the content, also after a multipart upload (AWS makes that one opaque). So it can be
//! computed at any time and the attribute is a cache. On a file system without extended attributes ETags are computed
//! at each use, the content type is forgotten, and user metadata is refused.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};

use super::error::StoreError;

const NAME: &str = "user.recount.object";

/// What a client says of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// `Content-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `x-amz-meta-*`, names in lower case without the prefix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// An object's attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Lower-case hex MD5 of the content, without quotes.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// The file's modification time.
    pub modified: SystemTime,
    /// What the client said of it.
    pub described: Described,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    etag: String,
    size: u64,
    modified_ns: u128,
    #[serde(flatten)]
    described: Described,
}

fn modified(metadata: &Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// The attributes of an open object; computed from the content where they are not at hand. Moves the file's cursor
/// only when it computes, and then back to the start.
///
/// # Errors
/// When the file cannot be read.
pub fn of(file: &mut File, path: &Path) -> Result<Attributes, StoreError> {
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    let (size, modified) = (metadata.len(), modified(&metadata));
    let stored = read(file).filter(|stored| stored.size == size && stored.modified_ns == nanoseconds(modified));
    if let Some(Stored { etag, described, .. }) = stored {
        return Ok(Attributes { etag, size, modified, described });
    }
    let etag = md5(file).map_err(StoreError::io("read", path))?;
    let described = Described::default();
    let stored = Stored { etag: etag.clone(), size, modified_ns: nanoseconds(modified), described: described.clone() };
    let _ = write(file, &stored); // a cache; the next reader computes again
    Ok(Attributes { etag, size, modified, described })
}

/// Writes the attributes of a file that is complete and has no name yet.
///
/// # Errors
/// [`StoreError::NoMetadata`] when there is user metadata and no way to keep it.
pub fn set(file: &File, path: &Path, etag: &str, described: &Described) -> Result<Attributes, StoreError> {
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    let attributes = Attributes {
        etag: etag.to_owned(),
        size: metadata.len(),
        modified: modified(&metadata),
        described: described.clone(),
    };
    let stored = Stored {
        etag: attributes.etag.clone(),
        size: attributes.size,
        modified_ns: nanoseconds(attributes.modified),
        described: described.clone(),
    };
    match write(file, &stored) {
        Ok(()) => Ok(attributes),
        Err(_) if described.metadata.is_empty() => Ok(attributes),
        Err(_) => Err(StoreError::NoMetadata),
    }
}

fn read(file: &File) -> Option<Stored> {
    // 2 KiB of user metadata is what AWS allows; escaped as JSON it fits into 16 KiB.
    let mut buffer = vec![0u8; 16 << 10];
    let length = fgetxattr(file, NAME, buffer.as_mut_slice()).ok()?;
    serde_json::from_slice(buffer.get(..length)?).ok()
}

fn write(file: &File, stored: &Stored) -> io::Result<()> {
    let json = serde_json::to_vec(stored)?;
    Ok(fsetxattr(file, NAME, &json, XattrFlags::empty())?)
}

/// Hex MD5 of the whole file; leaves the cursor at the start.
pub(super) fn md5(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Md5::new();
    let mut buffer = vec![0u8; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(hex(hash.finalize().as_ref()))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}
