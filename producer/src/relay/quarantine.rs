//! Where a record goes that is too large for the stream: an object in S3 with its bytes, in the shape and under the prefix
//! that the consumer and the compactor use for theirs.
//!
//! Such a record has no place in the Kinesis stream, so its object is named by its place in the DynamoDB stream: as shard,
//! `relay-`, a hash of the stream's ARN, `-` and a hash of the record's text; then its sequence number there.
//!
//! The ARN ends in the time at which the stream was enabled, so a re-created table, which may repeat numbers, has another. The
//! text stands in for the shard, which a Lambda event does not name: nothing promises that two shards of a stream have no
//! number in common, and the second record would be taken for the first, which is there already. Should Lambda ever write
//! one record in two ways, it would be kept twice: that loses nothing.

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::position::RELAY_PREFIX;
use recount_schemas::quarantine::{FORMAT, Quarantined, object_key};
use recount_schemas::{QuarantineCode, QuarantineReason, ShardId};

use super::event::Record;
use crate::stream::Outgoing;

/// Why a record could not be quarantined.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// S3 refused the object or did not answer.
    #[error("could not put the quarantined record s3://{bucket}/{key}")]
    Put {
        /// The bucket.
        bucket: String,
        /// The object.
        key: String,
        /// What S3 or the way to it said.
        #[source]
        source: Box<SdkError<PutObjectError>>,
    },
    /// The object could not be made.
    #[error("could not write a quarantined record as JSON")]
    Json(#[from] serde_json::Error),
    /// The name made for the shard is none.
    #[error(transparent)]
    Shard(#[from] recount_schemas::position::NotAShardId),
}

/// The relay's part of the quarantine.
#[derive(Debug, Clone)]
pub struct Quarantine {
    s3: aws_sdk_s3::Client,
    bucket: String,
    stream: String,
}

impl Quarantine {
    /// In `bucket`, for records that were on their way to `stream`.
    pub fn new(s3: aws_sdk_s3::Client, bucket: String, stream: String) -> Self {
        Self { s3, bucket, stream }
    }

    /// Keeps a record that has more than `limit` bytes. `Ok` also if it is there already.
    pub async fn put_too_large(&self, record: &Record<'_>, limit: usize, now_us: i64) -> Result<(), QuarantineError> {
        let shard = shard_of(&record.source_arn, record.text)?;
        let key = object_key(&shard, &record.sequence);
        let detail =
            format!("{} bytes with its partition key; the stream takes at most {limit} a record", record.bytes());
        let object = Quarantined {
            format: FORMAT,
            stream: self.stream.clone(),
            shard_id: shard,
            sequence_number: record.sequence.clone(),
            partition_key: record.partition_key.clone(),
            arrived_us: now_us,
            reason: QuarantineReason::new(QuarantineCode::TooLarge, detail),
            data: STANDARD.encode(record.text),
            raw: false,
        };
        let body = ByteStream::from(serde_json::to_vec(&object)?);
        let put = self.s3.put_object().bucket(&self.bucket).key(&key).if_none_match("*").body(body);
        match put.content_type("application/json").send().await {
            Ok(_) => Ok(()),
            // The same record, quarantined by an invocation before this one.
            Err(error) if error.raw_response().is_some_and(|answer| answer.status().as_u16() == 412) => Ok(()),
            Err(error) => Err(QuarantineError::Put { bucket: self.bucket.clone(), key, source: Box::new(error) }),
        }
    }
}

fn shard_of(source_arn: &str, text: &str) -> Result<ShardId, recount_schemas::position::NotAShardId> {
    let hash = |text: &str, digits| -> String {
        blake3::hash(text.as_bytes()).to_hex().as_str().chars().take(digits).collect()
    };
    format!("{RELAY_PREFIX}{}-{}", hash(source_arn, 16), hash(text, 32)).parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_stream_and_each_record_has_a_shard_of_its_own() {
        let a = shard_of("arn:a", "{}").unwrap();
        assert_ne!(a, shard_of("arn:b", "{}").unwrap());
        assert_ne!(a, shard_of("arn:a", "{} ").unwrap());
        assert_eq!(a, shard_of("arn:a", "{}").unwrap());
        assert!(a.as_str().starts_with(RELAY_PREFIX));
        assert_eq!(shard_of("", "").unwrap().as_str().len(), RELAY_PREFIX.len() + 16 + 1 + 32);
    }
}
