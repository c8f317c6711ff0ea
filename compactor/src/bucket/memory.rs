//! A bucket in memory for the protocol's tests: atomic operations, and faults that S3 is allowed to have.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{BucketError, Copied, Listed, Meta, Objects, Put, Tag};

/// What happens to the next operation that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is done and answered.
    None,
    /// It is done, and its answer is lost.
    AnswerLost,
    /// It is not done, and the caller cannot know.
    RequestLost,
    /// It is not done now, and the caller cannot know; it is when the test lets it land.
    Late,
}

/// Decides the fault of each write, by its action and key; it may also panic, which stands for a crash there.
pub(crate) type Faults = dyn FnMut(&'static str, &str) -> Fault + Send;

/// Is told the key of each object of which bytes are read, and how many.
pub(crate) type Reads = dyn FnMut(&str, u64) + Send;

type Late = Box<dyn FnOnce(&Memory) + Send>;

/// A bucket in memory. Clones share the contents; each has its own faults.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    /// When each was last written, in whole seconds as S3 says it; never, without a clock.
    modified: Arc<Mutex<BTreeMap<String, i64>>>,
    clock: Option<Arc<crate::testing::TestHost>>,
    /// Requests that have not landed yet.
    late: Arc<Mutex<Vec<Late>>>,
    faults: Arc<Mutex<Box<Faults>>>,
    reads: Arc<Mutex<Box<Reads>>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let faults: Box<Faults> = Box::new(|_, _| Fault::None);
        let reads: Box<Reads> = Box::new(|_, _| {});
        let (objects, modified, late) = Default::default();
        let (faults, reads) = (Arc::new(Mutex::new(faults)), Arc::new(Mutex::new(reads)));
        Self { objects, modified, clock: None, late, faults, reads }
    }

    /// One that knows when its objects were written.
    pub(crate) fn with_clock(clock: Arc<crate::testing::TestHost>) -> Self {
        Self { clock: Some(clock), ..Self::new() }
    }

    fn meta(&self, key: &str, bytes: &Bytes) -> Meta {
        let modified_ms = self.modified.lock().unwrap().get(key).copied().unwrap_or(0);
        Meta { bytes: bytes.len() as u64, modified_ms }
    }

    /// The same contents seen by another caller, with faults of its own.
    pub(crate) fn with_faults(&self, faults: impl FnMut(&'static str, &str) -> Fault + Send + 'static) -> Self {
        Self { faults: Arc::new(Mutex::new(Box::new(faults))), ..self.clone() }
    }

    /// The same contents seen by a caller whose reads are heard of.
    pub(crate) fn with_reads(&self, reads: impl FnMut(&str, u64) + Send + 'static) -> Self {
        Self { reads: Arc::new(Mutex::new(Box::new(reads))), ..self.clone() }
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub(crate) fn bytes(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().unwrap().get(key).cloned()
    }

    /// Lets the late request land that is `nth`, if there is one.
    pub(crate) fn land(&self, nth: usize) -> bool {
        let late = {
            let mut late = self.late.lock().unwrap();
            (nth < late.len()).then(|| late.swap_remove(nth))
        };
        late.map(|late| late(self)).is_some()
    }

    fn write_now<T>(&self, key: &str, write: impl FnOnce(&mut BTreeMap<String, Bytes>) -> (T, bool)) -> T {
        let (answer, is_new) = write(&mut self.objects.lock().unwrap());
        if let Some(clock) = self.clock.as_ref().filter(|_| is_new) {
            let now_ms = recount_schemas::host::Host::now_ms(&**clock);
            self.modified.lock().unwrap().insert(key.to_owned(), now_ms.div_euclid(1_000) * 1_000);
        }
        answer
    }

    /// Lets other tasks in, asks for the fault, does the write unless the request is lost. `write` is given the objects and
    /// the key; it also says whether the object is a new one.
    async fn write<T: 'static>(
        &self,
        action: &'static str,
        key: &str,
        write: impl FnOnce(&mut BTreeMap<String, Bytes>, &str) -> (T, bool) + Send + 'static,
    ) -> Result<T, BucketError> {
        crate::testing::pause().await;
        let fault = (self.faults.lock().unwrap())(action, key);
        let unsure = || BucketError::Unsure { action, bucket: "memory".into(), key: key.into(), why: "a fault".into() };
        match fault {
            Fault::RequestLost => Err(unsure()),
            Fault::Late => {
                let key = key.to_owned();
                let late: Late = Box::new(move |memory| {
                    memory.write_now(&key, |objects| write(objects, &key));
                });
                self.late.lock().unwrap().push(late);
                Err(unsure())
            }
            Fault::None | Fault::AnswerLost => {
                let answer = self.write_now(key, |objects| write(objects, key));
                crate::testing::pause().await;
                if fault == Fault::AnswerLost { Err(unsure()) } else { Ok(answer) }
            }
        }
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

    async fn get_tagged(&self, key: &str, most: u64) -> Result<Option<(Bytes, Tag)>, BucketError> {
        Ok(self.get(key, most).await?.map(|bytes| (bytes.clone(), tag(&bytes))))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        crate::testing::pause().await;
        (self.reads.lock().unwrap())(key, range.end.saturating_sub(range.start));
        let bytes = self.bytes(key);
        let bytes = bytes.ok_or_else(|| BucketError::Missing { bucket: "memory".into(), key: key.into() })?;
        if range.end > bytes.len() as u64 {
            return Err(BucketError::Short { bucket: "memory".into(), key: key.into(), range });
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), BucketError> {
        self.write("put", key, |objects, key| (drop(objects.insert(key.to_owned(), bytes)), true)).await
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put, BucketError> {
        self.write("put_if_absent", key, |objects, key| {
            if objects.contains_key(key) {
                return (Put::Exists, false);
            }
            objects.insert(key.to_owned(), bytes);
            (Put::Created, true)
        })
        .await
    }

    async fn put_if_tagged(&self, key: &str, bytes: Bytes, was: &Tag) -> Result<Put, BucketError> {
        let was = was.clone();
        self.write("put_if_tagged", key, move |objects, key| {
            if objects.get(key).map(tag) != Some(was) {
                return (Put::Exists, false);
            }
            objects.insert(key.to_owned(), bytes);
            (Put::Created, true)
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<Option<Meta>, BucketError> {
        crate::testing::pause().await;
        Ok(self.bytes(key).map(|bytes| self.meta(key, &bytes)))
    }

    async fn list_page(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, BucketError> {
        crate::testing::pause().await;
        let objects = self.objects.lock().unwrap();
        let page = objects.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|a| key.as_str() > a));
        let listed = |(key, bytes): (&String, &Bytes)| Listed { key: key.clone(), meta: self.meta(key, bytes) };
        Ok(page.take(3).map(listed).collect())
    }

    async fn copy(&self, from: &str, to: &str) -> Result<Copied, BucketError> {
        let from = from.to_owned();
        self.write("copy", to, move |objects, to| match objects.get(&from).cloned() {
            Some(bytes) => {
                objects.insert(to.to_owned(), bytes);
                (Copied::Done, true)
            }
            None => (Copied::NoSource, false),
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.write("delete", key, |objects, key| (drop(objects.remove(key)), false)).await
    }
}

fn tag(bytes: &Bytes) -> Tag {
    Tag(crate::log::Digest::of(bytes).to_string())
}
