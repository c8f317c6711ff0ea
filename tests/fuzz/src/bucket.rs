//! A bucket that holds what a target puts into it, and is only read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use recount_compactor::bucket::{BucketError, Copied, Listed, Meta, Objects, Put, Tag};

/// Objects by name.
#[derive(Clone, Default, Debug)]
pub struct Fixed(pub Arc<BTreeMap<String, Bytes>>);

fn refused<T>(action: &'static str, key: &str) -> Result<T, BucketError> {
    Err(BucketError::Refused { action, bucket: "fixed".into(), key: key.into(), why: "it is only read".into() })
}

impl Objects for Fixed {
    async fn get(&self, key: &str, most: u64) -> Result<Option<Bytes>, BucketError> {
        match self.0.get(key) {
            Some(bytes) if bytes.len() as u64 > most => {
                Err(BucketError::TooLarge { bucket: "fixed".into(), key: key.into(), most })
            }
            found => Ok(found.cloned()),
        }
    }

    async fn get_tagged(&self, key: &str, _: u64) -> Result<Option<(Bytes, Tag)>, BucketError> {
        refused("get_tagged", key)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        let missing = || BucketError::Missing { bucket: "fixed".into(), key: key.into() };
        let bytes = self.0.get(key).ok_or_else(missing)?;
        if range.end > bytes.len() as u64 {
            return Err(BucketError::Short { bucket: "fixed".into(), key: key.into(), range });
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn put(&self, key: &str, _: Bytes) -> Result<(), BucketError> {
        refused("put", key)
    }

    async fn put_if_absent(&self, key: &str, _: Bytes) -> Result<Put, BucketError> {
        refused("put_if_absent", key)
    }

    async fn head(&self, key: &str) -> Result<Option<Meta>, BucketError> {
        Ok(self.0.get(key).map(|bytes| Meta { bytes: bytes.len() as u64, modified_ms: 0 }))
    }

    async fn list_page(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, BucketError> {
        let of_page = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let listed =
            self.0.iter().filter(|(key, _)| of_page(key)).take(3).map(|(key, bytes)| Listed {
                key: key.clone(),
                meta: Meta { bytes: bytes.len() as u64, modified_ms: 0 },
            });
        Ok(listed.collect())
    }

    async fn put_if_tagged(&self, key: &str, _: Bytes, _: &Tag) -> Result<Put, BucketError> {
        refused("put_if_tagged", key)
    }

    async fn copy(&self, _: &str, to: &str) -> Result<Copied, BucketError> {
        refused("copy", to)
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        refused("delete", key)
    }
}
