//! The AWS clients: the SDK's own configuration, with a limit on every attempt. The SDK has none, and a request without an
//! answer would otherwise hold its records until the deadline, or for ever where there is none.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;

/// The table's requests are small: 25 items of some hundred bytes.
const DYNAMO: Duration = Duration::from_secs(5);
/// A PutRecords carries up to 5 MiB (see [`Limits`](crate::relay::outbox::Limits)), and the attempt includes sending them.
const KINESIS: Duration = Duration::from_secs(10);
/// A quarantined record is some megabytes in base64.
const S3: Duration = Duration::from_secs(20);

fn within(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(attempt).build()
}

/// For the source table.
pub fn dynamo(config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    let builder = aws_sdk_dynamodb::config::Builder::from(config).timeout_config(within(DYNAMO));
    aws_sdk_dynamodb::Client::from_conf(builder.build())
}

/// For the stream.
pub fn kinesis(config: &SdkConfig) -> aws_sdk_kinesis::Client {
    let builder = aws_sdk_kinesis::config::Builder::from(config).timeout_config(within(KINESIS));
    aws_sdk_kinesis::Client::from_conf(builder.build())
}

/// For the quarantine. A host name per bucket works on AWS only: another endpoint takes the bucket in the path. That there is
/// one shows in `config`, or else in `AWS_ENDPOINT_URL_S3`, of which `config` says nothing: `own_endpoint` is whether that
/// is set.
pub fn s3(config: &SdkConfig, own_endpoint: bool) -> aws_sdk_s3::Client {
    let path_style = own_endpoint || config.endpoint_url().is_some();
    let builder = aws_sdk_s3::config::Builder::from(config).timeout_config(within(S3)).force_path_style(path_style);
    aws_sdk_s3::Client::from_conf(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::serve;
    use aws_sdk_s3::presigning::PresigningConfig;

    #[tokio::test]
    async fn no_attempt_is_without_a_limit() {
        let (config, _) = serve(|_| (200, String::new())).await;
        let limits = [
            dynamo(&config).config().timeout_config().and_then(TimeoutConfig::operation_attempt_timeout),
            kinesis(&config).config().timeout_config().and_then(TimeoutConfig::operation_attempt_timeout),
            s3(&config, false).config().timeout_config().and_then(TimeoutConfig::operation_attempt_timeout),
        ];
        assert_eq!(limits, [Some(DYNAMO), Some(KINESIS), Some(S3)]);
    }

    #[tokio::test]
    async fn the_bucket_is_in_the_path_unless_the_endpoint_is_that_of_aws() {
        let (config, _) = serve(|_| (200, String::new())).await;
        let local = config.to_builder().endpoint_url("http://localhost:1").build();
        let mut aws = config.to_builder();
        aws.set_endpoint_url(None);
        let aws = aws.build();
        for (config, own_endpoint, expected) in [
            (&aws, false, "https://bucket.s3.us-east-1.amazonaws.com/key?"),
            (&aws, true, "https://s3.us-east-1.amazonaws.com/bucket/key?"),
            (&local, false, "http://localhost:1/bucket/key?"),
            (&local, true, "http://localhost:1/bucket/key?"),
        ] {
            let presigning = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
            let get = s3(config, own_endpoint).get_object().bucket("bucket").key("key");
            let request = get.presigned(presigning).await.unwrap();
            assert!(request.uri().starts_with(expected), "{}", request.uri());
        }
    }
}
