//! S3 on a directory.
//!
//! `s3s` speaks the protocol; behind it is a store of our own, because the archive rests on what few stores on a file
//! system give: a put under `If-None-Match: *` that exactly one writer wins, and readers that never see half an object.
//!
//! * [`store`]: objects as files, and what makes each write atomic. Read this one first.
//! * [`key`]: which file a key is.
//! * [`attributes`]: ETag, content type and user metadata, in an extended attribute of the file.
//! * [`list`]: keys in order, rolled up, in pages.
//! * [`multipart`]: uploads in parts.
//! * [`read`]: conditions, ranges and bodies of GET.
//! * [`receive`], [`chunked`]: bodies of PUT, their coding and checksums.
//! * [`api`]: the operations, as `s3s` wants them.
//! * [`unsign`]: signatures are taken off unread: any credentials do.
//! * [`error`]: what can go wrong.
//!
//! Left out: versions, ACLs, tags, encryption, lifecycle, listing of uploads. They answer `NotImplemented`. A disk full or an unreadable file answers `InternalError`, which SDKs retry.

pub mod api;
pub mod attributes;
pub mod chunked;
pub mod error;
pub mod key;
pub mod list;
pub mod multipart;
pub mod read;
pub mod receive;
pub mod store;
pub mod unsign;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use recount_schemas::host::SharedHost;
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::io::BlockingWork;
pub use error::StoreError;
pub use store::Store;

/// The S3 service of the objects below `dir`. It takes requests that went through [`unsign::unsign`].
///
/// # Errors
/// When the directory cannot be made or read.
pub fn open(dir: &Path, host: SharedHost, work: BlockingWork) -> Result<S3Service, StoreError> {
    let store = Arc::new(Store::open(dir, host)?);
    Ok(S3ServiceBuilder::new(api::Api { store, work }).build())
}
