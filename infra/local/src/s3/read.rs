//! Reading an object: the conditions of GET and HEAD, the range, and the body as a stream.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use s3s::dto::{ETagCondition, Range, StreamingBlob, Timestamp};
use s3s::{Body, StdError};

use super::attributes::Attributes;
use super::error::StoreError;
use crate::io::BlockingWork;

/// Bytes read at a time.
const READ_BYTES: u64 = 512 << 10;

/// The four conditions of a read.
#[derive(Debug, Default, Clone)]
pub struct Conditions {
    /// `If-Match`.
    pub if_match: Option<ETagCondition>,
    /// `If-None-Match`.
    pub if_none_match: Option<ETagCondition>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<Timestamp>,
}

impl Conditions {
    /// Whether the object may be read (S3 API, GetObject, "Overriding response header values" and RFC 9110 §13.2.2:
    /// an ETag condition makes the date condition beside it void).
    ///
    /// | condition | does not hold |
    /// | --- | --- |
    /// | `If-Match` | 412 |
    /// | `If-Unmodified-Since`, without `If-Match` | 412 |
    /// | `If-None-Match` | 304 |
    /// | `If-Modified-Since`, without `If-None-Match` | 304 |
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`], [`StoreError::NotModified`].
    pub fn check(&self, object: &Attributes) -> Result<(), StoreError> {
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == object.etag,
        };
        // HTTP dates have whole seconds.
        let modified = seconds(object.modified);
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !is(condition) => return Err(StoreError::PreconditionFailed("If-Match")),
            (None, Some(since)) if modified > date(since) => {
                return Err(StoreError::PreconditionFailed("If-Unmodified-Since"));
            }
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if is(condition) => Err(StoreError::NotModified),
            (None, Some(since)) if modified <= date(since) => Err(StoreError::NotModified),
            _ => Ok(()),
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn date(timestamp: &Timestamp) -> i64 {
    time::OffsetDateTime::from(timestamp.clone()).unix_timestamp()
}

/// The first byte and the number of bytes to send of an object of `size` bytes.
///
/// | range | of 10 bytes |
/// | --- | --- |
/// | none | 0, 10 |
/// | `bytes=2-4` | 2, 3 |
/// | `bytes=2-99` | 2, 8 |
/// | `bytes=7-` | 7, 3 |
/// | `bytes=-3`, `bytes=-99` | 7, 3; 0, 10 |
/// | `bytes=10-`, `bytes=-0` | 416 |
///
/// # Errors
/// [`StoreError::InvalidRange`].
pub fn slice(range: Option<&Range>, size: u64) -> Result<(u64, u64), StoreError> {
    let Some(range) = range else { return Ok((0, size)) };
    let asked = range.check(size).map_err(|_| StoreError::InvalidRange(size))?;
    if asked.is_empty() {
        return Err(StoreError::InvalidRange(size)); // a suffix of an empty object
    }
    Ok((asked.start, asked.end - asked.start))
}

/// `length` bytes of an open file from `start` on. A short body comes with the first read, before the answer begins.
///
/// # Errors
/// When the first read fails.
pub async fn body(file: File, start: u64, length: u64, work: BlockingWork) -> Result<StreamingBlob, StoreError> {
    let first = read(file, Some(start), length, work).await.map_err(StoreError::io("read", "the object"))?;
    let (file, bytes, left) = first;
    if left == 0 {
        return Ok(StreamingBlob::from(Body::from(bytes)));
    }
    let stream = stream::try_unfold((Some(bytes), Some(file), left), move |(ready, file, left)| async move {
        match (ready, file) {
            (Some(bytes), file) => Ok::<_, StdError>(Some((Frame::data(bytes), (None, file, left)))),
            (None, Some(file)) if left > 0 => {
                let (file, bytes, left) = read(file, None, left, work).await?;
                Ok(Some((Frame::data(bytes), (None, Some(file), left))))
            }
            _ => Ok(None),
        }
    });
    Ok(StreamingBlob::from(Body::http_body_unsync(StreamBody::new(stream))))
}

async fn read(mut file: File, seek: Option<u64>, left: u64, work: BlockingWork) -> std::io::Result<(File, Bytes, u64)> {
    work.run(move || {
        if let Some(start) = seek {
            file.seek(SeekFrom::Start(start))?;
        }
        let take = left.min(READ_BYTES);
        let mut buffer = vec![0u8; usize::try_from(take).unwrap_or(0)]; // at most READ_BYTES
        file.read_exact(&mut buffer)?;
        Ok((file, Bytes::from(buffer), left - take))
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        let table = [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=2-4", Some((2, 3))),
            ("bytes=2-99", Some((2, 8))),
            ("bytes=7-", Some((7, 3))),
            ("bytes=-3", Some((7, 3))),
            ("bytes=-99", Some((0, 10))),
            ("bytes=9-", Some((9, 1))),
            ("bytes=10-", None),
            ("bytes=10-11", None),
            ("bytes=-0", None),
        ];
        for (header, expected) in table {
            let range = Range::parse(header).unwrap();
            assert_eq!(slice(Some(&range), 10).ok(), expected, "{header}");
        }
        assert_eq!(slice(None, 10).unwrap(), (0, 10));
        assert_eq!(slice(None, 0).unwrap(), (0, 0));
        assert!(slice(Some(&Range::parse("bytes=-1").unwrap()), 0).is_err());
        assert!(slice(Some(&Range::parse("bytes=0-").unwrap()), 0).is_err());
    }

    #[test]
    fn read_conditions() {
        let object = Attributes {
            etag: "e1".to_owned(),
            size: 1,
            modified: UNIX_EPOCH + std::time::Duration::from_millis(10_500),
            described: Default::default(),
        };
        let etag = |text: &str| Some(ETagCondition::parse_http_header(text.as_bytes()).unwrap());
        let at = |seconds: u64| Some(Timestamp::from(UNIX_EPOCH + std::time::Duration::from_secs(seconds)));
        let verdict = |conditions: Conditions| match conditions.check(&object) {
            Ok(()) => 200,
            Err(StoreError::NotModified) => 304,
            Err(_) => 412,
        };
        let none = Conditions::default;
        let table = [
            (none(), 200),
            (Conditions { if_match: etag("\"e1\""), ..none() }, 200),
            (Conditions { if_match: etag("*"), ..none() }, 200),
            (Conditions { if_match: etag("\"e2\""), ..none() }, 412),
            (Conditions { if_none_match: etag("\"e1\""), ..none() }, 304),
            (Conditions { if_none_match: etag("*"), ..none() }, 304),
            (Conditions { if_none_match: etag("\"e2\""), ..none() }, 200),
            (Conditions { if_modified_since: at(10), ..none() }, 304),
            (Conditions { if_modified_since: at(9), ..none() }, 200),
            (Conditions { if_unmodified_since: at(10), ..none() }, 200),
            (Conditions { if_unmodified_since: at(9), ..none() }, 412),
            (Conditions { if_match: etag("\"e1\""), if_unmodified_since: at(9), ..none() }, 200),
            (Conditions { if_none_match: etag("\"e2\""), if_modified_since: at(10), ..none() }, 200),
        ];
        for (index, (conditions, expected)) in table.into_iter().enumerate() {
            assert_eq!(verdict(conditions), expected, "row {index}");
        }
    }
}
