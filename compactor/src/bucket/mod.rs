//! The archive's bucket: a thin layer over the S3 client that speaks of meanings instead of status codes.
//!
//! - [`Objects`]: what the archive needs of a bucket. [`Bucket`] is the one implementation outside tests; the protocol's
//!   tests put their own behind it, with lost answers and requests that land late.
//! - [`error`]: what can go wrong.
//! - [`s3`]: the implementation over `aws-sdk-s3`.

pub mod error;
#[cfg(test)]
pub mod memory;
pub mod s3;

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;

pub use error::BucketError;
pub use s3::{Bucket, Listing};

/// What became of a put that must not replace anything, or nothing but what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now, and was not before.
    Created,
    /// Another object of that name was there: perhaps our own, from a request whose answer was lost. Only reading it tells.
    Exists,
}

/// Which content an object had when it was read: its ETag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(pub(crate) String);

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The target has the source's bytes.
    Done,
    /// There is no source.
    NoSource,
}

/// What an object is, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last written, ms since 1970, by the clock of S3 (whole seconds).
    pub modified_ms: i64,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub key: String,
    /// What it is.
    pub meta: Meta,
}

/// The operations on one bucket that the archive is made of.
///
/// S3 is strongly consistent: what a write's answer confirmed, every later read sees. An error of a write does not say
/// that nothing was written.
pub trait Objects: Clone + Send + Sync + Unpin + 'static {
    /// The whole object, unless it has more than `most` bytes (an error); `None` where there is none.
    fn get(&self, key: &str, most: u64) -> impl Future<Output = Result<Option<Bytes>, BucketError>> + Send;

    /// The whole object as [`get`](Self::get) gives it, and which content that is.
    fn get_tagged(
        &self,
        key: &str,
        most: u64,
    ) -> impl Future<Output = Result<Option<(Bytes, Tag)>, BucketError>> + Send;

    /// The bytes `range` of an object. It is an error if the object is missing or shorter.
    fn get_range(&self, key: &str, range: Range<u64>) -> impl Future<Output = Result<Bytes, BucketError>> + Send;

    /// Writes an object, whether there is one or not.
    fn put(&self, key: &str, bytes: Bytes) -> impl Future<Output = Result<(), BucketError>> + Send;

    /// Writes an object if there is none (`If-None-Match: *`).
    fn put_if_absent(&self, key: &str, bytes: Bytes) -> impl Future<Output = Result<Put, BucketError>> + Send;

    /// Writes an object if its content is still this one (`If-Match`).
    fn put_if_tagged(
        &self,
        key: &str,
        bytes: Bytes,
        tag: &Tag,
    ) -> impl Future<Output = Result<Put, BucketError>> + Send;

    /// What the object is; `None` where there is none.
    fn head(&self, key: &str) -> impl Future<Output = Result<Option<Meta>, BucketError>> + Send;

    /// One page of the names that begin with `prefix` and sort behind `after`; an empty page is the end.
    fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> impl Future<Output = Result<Vec<Listed>, BucketError>> + Send;

    /// Copies an object, replacing the target if there is one. At most 5 GiB (the limit of CopyObject).
    fn copy(&self, from: &str, to: &str) -> impl Future<Output = Result<Copied, BucketError>> + Send;

    /// Deletes an object; fine where there is none.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), BucketError>> + Send;
}
