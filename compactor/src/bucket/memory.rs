//! A bucket in memory for the protocol's tests: atomic operations, and faults that S3 is allowed to have.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{BucketError, Copied, Listed, Meta, Objects, Put};

/// What happens to the next operation that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is done and answered.
    None,
    /// It is done, and its answer is lost.
    AnswerLost,
    /// It is not done, and the caller cannot know.
    RequestLost,
}

/// Decides the fault of each write, by its action and key; it may also panic, which stands for a crash there.
pub(crate) type Faults = dyn FnMut(&'static str, &str) -> Fault + Send;

/// A bucket in memory. Clones share the contents; each has its own faults.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    faults: Arc<Mutex<Box<Faults>>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { objects: Arc::default(), faults: Arc::new(Mutex::new(Box::new(|_, _| Fault::None))) }
    }

    /// The same contents seen by another caller, with faults of its own.
    pub(crate) fn with_faults(&self, faults: impl FnMut(&'static str, &str) -> Fault + Send + 'static) -> Self {
        Self { objects: self.objects.clone(), faults: Arc::new(Mutex::new(Box::new(faults))) }
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub(crate) fn bytes(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().unwrap().get(key).cloned()
    }

    /// Lets other tasks in, asks for the fault, does the write unless the request is lost.
    async fn write<T>(
        &self,
        action: &'static str,
        key: &str,
        write: impl FnOnce(&mut BTreeMap<String, Bytes>) -> T,
    ) -> Result<T, BucketError> {
        crate::testing::pause().await;
        let fault = (self.faults.lock().unwrap())(action, key);
        let unsure = || BucketError::Unsure { action, bucket: "memory".into(), key: key.into(), why: "a fault".into() };
        if fault == Fault::RequestLost {
            return Err(unsure());
        }
        let answer = write(&mut self.objects.lock().unwrap());
        crate::testing::pause().await;
        if fault == Fault::AnswerLost { Err(unsure()) } else { Ok(answer) }
    }
}

impl Objects for Memory {
    async fn get(&self, key: &str, most: u64) -> Result<Option<Bytes>, BucketError> {
        crate::testing::pause().await;
        match self.bytes(key) {
            Some(bytes) if bytes.len() as u64 > most => {
                Err(BucketError::TooLarge { bucket: "memory".into(), key: key.into(), most })
            }
            found => Ok(found),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        crate::testing::pause().await;
        let bytes = self.bytes(key);
        let bytes = bytes.ok_or_else(|| BucketError::Missing { bucket: "memory".into(), key: key.into() })?;
        if range.end > bytes.len() as u64 {
            return Err(BucketError::Short { bucket: "memory".into(), key: key.into(), range });
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), BucketError> {
        self.write("put", key, |objects| drop(objects.insert(key.to_owned(), bytes))).await
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put, BucketError> {
        self.write("put_if_absent", key, |objects| {
            if objects.contains_key(key) {
                return Put::Exists;
            }
            objects.insert(key.to_owned(), bytes);
            Put::Created
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<Option<Meta>, BucketError> {
        crate::testing::pause().await;
        Ok(self.bytes(key).map(|bytes| Meta { bytes: bytes.len() as u64, modified_ms: 0 }))
    }

    async fn list_page(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, BucketError> {
        crate::testing::pause().await;
        let objects = self.objects.lock().unwrap();
        let page = objects.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|a| key.as_str() > a));
        let listed = |(key, bytes): (&String, &Bytes)| Listed {
            key: key.clone(),
            meta: Meta { bytes: bytes.len() as u64, modified_ms: 0 },
        };
        Ok(page.take(3).map(listed).collect())
    }

    async fn copy(&self, from: &str, to: &str) -> Result<Copied, BucketError> {
        self.write("copy", to, |objects| match objects.get(from).cloned() {
            Some(bytes) => {
                objects.insert(to.to_owned(), bytes);
                Copied::Done
            }
            None => Copied::NoSource,
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.write("delete", key, |objects| drop(objects.remove(key))).await
    }
}
