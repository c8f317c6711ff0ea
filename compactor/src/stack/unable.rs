//! What `find` does, in a build without the feature `aws`: it says so.

use aws_config::SdkConfig;

use super::{InUse, Stack, StackError};

/// Nobody can be asked.
pub async fn stack(_: &SdkConfig, name: &str) -> Result<Stack, StackError> {
    Err(StackError::Unable(name.to_owned()))
}

/// Nobody can be asked.
pub async fn definition(_: &SdkConfig, stack: &Stack) -> Result<InUse, StackError> {
    Err(StackError::Unable(stack.name.clone()))
}
