//! One object, fetched once: hashed as it comes, and held where its rows can then be read from, in memory or in an unnamed
//! temporary file. So the bytes that were hashed are the bytes that are read as rows, and S3 is asked for each of them once.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use sha2::{Digest as _, Sha256};

use crate::bucket::{BucketError, Copied, Listed, Meta, Objects, Put, Tag};
use crate::log::Digest;

/// The most bytes of an object that is held in memory.
const IN_MEMORY: u64 = 32 << 20;
/// The bytes of one request.
const REQUEST: u64 = 8 << 20;
/// Requests at a time.
const AHEAD: usize = 2;

/// An object that was fetched. It answers for any name.
#[derive(Debug, Clone)]
pub struct Spool {
    bytes: u64,
    held: Arc<Held>,
}

#[derive(Debug)]
enum Held {
    Memory(Bytes),
    File(Mutex<File>),
}

/// An object could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The temporary file failed.
    #[error("holding an object in the temporary directory failed: {0}")]
    File(#[from] std::io::Error),
}

/// Fetches an object of so many bytes.
pub async fn fetch<O: Objects>(objects: &O, name: &str, bytes: u64) -> Result<(Spool, Digest), SpoolError> {
    let starts = (0..bytes).step_by(usize::try_from(REQUEST).unwrap_or(usize::MAX));
    let requests = starts.map(|start| objects.get_range(name, start..bytes.min(start + REQUEST)));
    let mut parts = futures::stream::iter(requests).buffered(AHEAD);
    let mut hasher = Sha256::new();
    let held = if bytes <= IN_MEMORY {
        let mut all = BytesMut::new();
        while let Some(part) = parts.next().await {
            let part = part?;
            hasher.update(&part);
            all.extend_from_slice(&part);
        }
        Held::Memory(all.freeze())
    } else {
        let mut file = tempfile::tempfile()?;
        while let Some(part) = parts.next().await {
            let part = part?;
            hasher.update(&part);
            file.write_all(&part)?;
        }
        Held::File(Mutex::new(file))
    };
    Ok((Spool { bytes, held: Arc::new(held) }, Digest::from(<[u8; 32]>::from(hasher.finalize()))))
}

impl Spool {
    fn read(&self, range: &Range<u64>) -> std::io::Result<Bytes> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(std::io::Error::other)?;
        match &*self.held {
            Held::Memory(bytes) => {
                let start = usize::try_from(range.start).map_err(std::io::Error::other)?;
                let end = start.checked_add(length).filter(|end| *end <= bytes.len());
                let end = end.ok_or_else(|| std::io::Error::other("beyond the end"))?;
                Ok(bytes.slice(start..end))
            }
            Held::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(range.start))?;
                let mut part = vec![0; length];
                file.read_exact(&mut part)?;
                Ok(part.into())
            }
        }
    }

    fn refused(action: &'static str, key: &str, why: impl ToString) -> BucketError {
        BucketError::Refused { action, bucket: "the temporary copy".into(), key: key.into(), why: why.to_string() }
    }
}

/// The reader of rows reads an object by ranges; that is all there is to a copy.
impl Objects for Spool {
    async fn get(&self, key: &str, _: u64) -> Result<Option<Bytes>, BucketError> {
        self.get_range(key, 0..self.bytes).await.map(Some)
    }

    async fn get_tagged(&self, key: &str, _: u64) -> Result<Option<(Bytes, Tag)>, BucketError> {
        Err(Self::refused("reading", key, "a copy has no ETag"))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        self.read(&range).map_err(|error| Self::refused("reading", key, error))
    }

    async fn head(&self, _: &str) -> Result<Option<Meta>, BucketError> {
        Ok(Some(Meta { bytes: self.bytes, modified_ms: 0 }))
    }

    async fn list_page(&self, _: &str, _: Option<&str>) -> Result<Vec<Listed>, BucketError> {
        Ok(Vec::new())
    }

    async fn put(&self, key: &str, _: Bytes) -> Result<(), BucketError> {
        Err(Self::refused("writing", key, "a copy is only read"))
    }

    async fn put_if_absent(&self, key: &str, _: Bytes) -> Result<Put, BucketError> {
        Err(Self::refused("writing", key, "a copy is only read"))
    }

    async fn put_if_tagged(&self, key: &str, _: Bytes, _: &Tag) -> Result<Put, BucketError> {
        Err(Self::refused("writing", key, "a copy is only read"))
    }

    async fn copy(&self, _: &str, to: &str) -> Result<Copied, BucketError> {
        Err(Self::refused("copying to", to, "a copy is only read"))
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        Err(Self::refused("deleting", key, "a copy is only read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::Memory;

    #[tokio::test]
    async fn what_was_fetched_is_what_was_hashed_in_memory_and_in_a_file() {
        for length in [0, 1, IN_MEMORY + REQUEST + 3] {
            let bytes: Bytes = (0..length).map(|i| (i * 31 % 251) as u8).collect::<Vec<u8>>().into();
            let objects = Memory::new();
            objects.put("x", bytes.clone()).await.unwrap();
            let (spool, digest) = fetch(&objects, "x", length).await.unwrap();
            assert_eq!(digest, Digest::of(&bytes));
            assert_eq!(matches!(&*spool.held, Held::File(_)), length > IN_MEMORY);
            for range in [0..length, length / 2..length, length / 3..length / 2] {
                let expected = bytes.slice(range.start as usize..range.end as usize);
                assert_eq!(spool.get_range("any", range).await.unwrap(), expected);
            }
            assert!(spool.get_range("x", 0..length + 1).await.is_err());
            assert!(spool.put("x", Bytes::new()).await.is_err() && spool.delete("x").await.is_err());
        }
    }

    #[tokio::test]
    async fn an_object_that_is_shorter_is_an_error() {
        let objects = Memory::new();
        objects.put("x", Bytes::from_static(b"abc")).await.unwrap();
        assert!(matches!(fetch(&objects, "x", 4).await, Err(SpoolError::Bucket(BucketError::Short { .. }))));
        assert!(matches!(fetch(&objects, "y", 4).await, Err(SpoolError::Bucket(BucketError::Missing { .. }))));
    }
}
