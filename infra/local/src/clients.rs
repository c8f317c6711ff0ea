//! The SDK's clients, as the parts take them.

use aws_config::SdkConfig;

/// One client of each service.
#[derive(Debug, Clone)]
pub struct Clients {
    /// DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Kinesis.
    pub kinesis: aws_sdk_kinesis::Client,
    /// S3, with buckets in the path.
    pub s3: aws_sdk_s3::Client,
}

impl Clients {
    /// Clients by one configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            dynamodb: aws_sdk_dynamodb::Client::new(config),
            kinesis: aws_sdk_kinesis::Client::new(config),
            s3: crate::client::s3(config),
        }
    }
}
