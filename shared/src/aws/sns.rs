//! SNS: how a person is told.

use async_trait::async_trait;
use aws_sdk_sns::Client;

use super::{AwsError, failed};

/// The call of the core.
#[async_trait]
pub trait SnsApi: Send + Sync {
    /// Publishes a message. SNS takes a subject of under 100 ASCII characters without line breaks.
    async fn publish(&self, topic: &str, subject: &str, body: &str) -> Result<(), AwsError>;
}

/// The real service.
#[derive(Debug, Clone)]
pub struct Sns(Client);

impl Sns {
    /// A client.
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Self(Client::new(config))
    }
}

#[async_trait]
impl SnsApi for Sns {
    async fn publish(&self, topic: &str, subject: &str, body: &str) -> Result<(), AwsError> {
        let done = self.0.publish().topic_arn(topic).subject(subject).message(body).send().await;
        done.map(|_| ()).map_err(|e| failed("sns:Publish", &e))
    }
}
