//! Endpoints that take every request and never answer.

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use recount_consumer::handler::{AttemptTimeouts, Clients};
use recount_schemas::host::{Deadline, SharedHost, SystemHost};

use super::{ArchiveError, Archiver, Kinesis, Until};
use crate::bucket::memory::Memory;
use crate::bucket::{Bucket, BucketError};
use crate::rows::testing::definition;

const SOON: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_secs(3_600);

/// The endpoint's socket takes connections into its queue for as long as it lives; nobody reads from them.
fn silent(timeouts: AttemptTimeouts) -> (TcpListener, Clients) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(format!("http://{}", socket.local_addr().unwrap()))
        .build();
    let clients = Clients::within(&config, timeouts);
    (socket, clients)
}

/// Fails the test that would not end.
async fn ends<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it hangs")
}

#[tokio::test]
async fn a_request_without_an_answer_ends_with_its_attempt() {
    let host: SharedHost = SystemHost::shared();
    let (_socket, clients) = silent(AttemptTimeouts { request: SOON, object: SOON });
    let stream = Kinesis::new(clients.kinesis, "changes");
    let bucket = Bucket::new(clients.s3, "bucket", host.clone());
    let of_bucket = Archiver::new(bucket, stream.clone(), Arc::new(definition()), host.clone());
    let error = ends(of_bucket.run(Until::Tip, Deadline::NONE)).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Bucket(BucketError::Unsure { .. })), "{error}");
    let of_stream = Archiver::new(Memory::new(), stream, Arc::new(definition()), host);
    let error = ends(of_stream.run(Until::Tip, Deadline::NONE)).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Source(_)), "{error}");
}

#[tokio::test]
async fn a_run_does_not_wait_for_an_answer_beyond_its_deadline() {
    let host: SharedHost = SystemHost::shared();
    let (_socket, clients) = silent(AttemptTimeouts { request: LATE, object: LATE });
    let stream = Kinesis::new(clients.kinesis, "changes");
    let bucket = Bucket::new(clients.s3, "bucket", host.clone());
    let of_bucket = Archiver::new(bucket, stream.clone(), Arc::new(definition()), host.clone());
    let error = ends(of_bucket.run(Until::Tip, Deadline::after(&*host, SOON))).await.unwrap_err();
    assert!(matches!(error, ArchiveError::TimeIsUp), "{error}");
    // Where the log was read there is something to report.
    let objects = Memory::new();
    let of_stream = Archiver::new(objects.clone(), stream, Arc::new(definition()), host.clone());
    let report = ends(of_stream.run(Until::Tip, Deadline::after(&*host, SOON))).await.unwrap();
    assert!(!report.reached_tip);
    assert_eq!(objects.keys(""), Vec::<String>::new());
}
