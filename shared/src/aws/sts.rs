//! STS: who is calling, for `doctor`.

use aws_sdk_sts::Client;

use super::{AwsError, failed};

/// The ARN of the caller.
pub async fn caller(config: &aws_config::SdkConfig) -> Result<String, AwsError> {
    let answer = Client::new(config).get_caller_identity().send().await;
    let answer = answer.map_err(|e| failed("sts:GetCallerIdentity", &e))?;
    Ok(answer.arn().unwrap_or("(no ARN)").into())
}
