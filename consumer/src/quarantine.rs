//! Records that can never be counted, written to S3 with their raw bytes.
//!
//! The name comes from the record's position and the put is conditional (`If-None-Match: *`): whoever comes second, a
//! redelivery or the compactor, finds it done.

use aws_sdk_s3::primitives::ByteStream;
use recount_schemas::Settings;
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::quarantine::{Quarantined, object_key};

use crate::retry::{Caller, Class, Meter};
use crate::tuning::Tuning;

/// What a put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// It was written now.
    Created,
    /// It was there before.
    Exists,
}

/// A record could not be written to quarantine.
#[derive(Debug, thiserror::Error)]
#[error("writing s3://{bucket}/{key} failed: {detail}")]
pub struct QuarantineError {
    /// The bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// The last answer.
    pub detail: String,
}

/// The quarantine in the archive's bucket.
#[derive(Debug, Clone)]
pub struct Quarantine {
    s3: aws_sdk_s3::Client,
    bucket: String,
    prefix: String,
    host: SharedHost,
    tuning: Tuning,
}

impl Quarantine {
    /// In the bucket, and under the prefix of the set, that `settings` names.
    pub fn new(s3: aws_sdk_s3::Client, settings: &Settings, host: SharedHost) -> Self {
        Self { s3, bucket: settings.bucket.clone(), prefix: settings.prefix(), host, tuning: Tuning::default() }
    }

    /// Writes a record, unless it is there.
    pub async fn put(&self, record: &Quarantined) -> Result<PutOutcome, QuarantineError> {
        self.put_metered(record, Deadline::NONE, &Meter::default()).await
    }

    /// As [`Quarantine::put`], within a deadline, and with retries told to `meter`.
    pub async fn put_metered(
        &self,
        record: &Quarantined,
        deadline: Deadline,
        meter: &Meter,
    ) -> Result<PutOutcome, QuarantineError> {
        let caller = Caller { host: self.host.as_ref(), tuning: &self.tuning, deadline, meter };
        let key = format!("{}{}", self.prefix, object_key(&record.shard_id, &record.sequence_number));
        let failed = |detail: String| QuarantineError { bucket: self.bucket.clone(), key: key.clone(), detail };
        let body = bytes::Bytes::from(serde_json::to_vec(record).map_err(|error| failed(error.to_string()))?);
        let put = || {
            self.s3
                .put_object()
                .bucket(&self.bucket)
                .key(&key)
                .if_none_match("*")
                .content_type("application/json")
                .body(ByteStream::from(body.clone()))
                .send()
        };
        match caller.call(put).await {
            Ok(_) => Ok(PutOutcome::Created),
            Err(failure) if failure.class() == Class::Refused => Ok(PutOutcome::Exists),
            Err(failure) => Err(failed(failure.to_string())),
        }
    }
}
