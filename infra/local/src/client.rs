//! SDK configuration for clients of local mode.

use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;

use crate::door::Door;
use crate::inproc::InProcess;

/// The one region.
pub const REGION: &str = "us-east-1";

fn loader(endpoint: &str) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new("test", "test", None, None, "local mode"))
        .endpoint_url(endpoint)
}

/// A configuration for the engines at `endpoint`, like `http://127.0.0.1:4566`.
pub async fn sdk_config(endpoint: &str) -> SdkConfig {
    loader(endpoint).load().await
}

/// A configuration that reaches the engines without a socket.
pub async fn in_process(door: &Door) -> SdkConfig {
    loader("http://127.0.0.1").http_client(InProcess::new(door.clone())).load().await
}

/// An S3 client with buckets in the path: local mode has no names under which a bucket could be a host.
pub fn s3(config: &SdkConfig) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(true).build())
}
