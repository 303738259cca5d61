//! Systems Manager: which instances answer, the commands sent to them, and the settings kept as parameters.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{CommandInvocation, InstanceInformationStringFilter};
use jiff::Timestamp;

use super::{AwsError, AwsErrorKind, failed, odd};
use crate::id::RunId;

/// The calls of the core.
#[async_trait]
pub trait SsmApi: Send + Sync {
    /// Whether the instance's SSM agent is registered and answers.
    async fn online(&self, instance: &str) -> Result<bool, AwsError>;
    /// Sends the command of a run; its id. The run's name becomes the command's comment.
    async fn send(&self, order: &Order) -> Result<String, AwsError>;
    /// The commands sent to an instance by this document, newest first.
    async fn commands(&self, instance: &str, document: &str) -> Result<Vec<Command>, AwsError>;
    /// Asks for a command to be cancelled; AWS does not promise that it is.
    async fn cancel(&self, command: &str, instance: &str) -> Result<(), AwsError>;
    /// The last lines that a command printed to standard error.
    async fn error_output(&self, command: &str, instance: &str) -> Result<String, AwsError>;
    /// A parameter's text, decrypted.
    async fn parameter(&self, name: &str) -> Result<String, AwsError>;
}

/// A command to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// SSM document.
    pub document: String,
    /// The one instance that does it.
    pub instance: String,
    /// Name of the target.
    pub target: String,
    /// The run.
    pub run: RunId,
    /// How long the command may run on the instance (the document's step time-out).
    pub execution: Duration,
    /// How long it may take to reach the instance (SSM's `TimeoutSeconds`: at least 30 s).
    pub delivery: Duration,
}

/// A command that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Command id.
    pub id: String,
    /// Its comment: the run's name.
    pub comment: String,
    /// How it stands.
    pub status: CommandStatus,
    /// SSM's own word for it, such as `DeliveryTimedOut`.
    pub detail: String,
    /// When it was sent.
    pub requested_at: Timestamp,
}

/// How a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandStatus {
    /// Not delivered, or running.
    Open,
    /// Exit code 0.
    Success,
    /// Failed, timed out, cancelled or never delivered.
    Failed,
}

/// The real service.
#[derive(Debug, Clone)]
pub struct Ssm(Client);

impl Ssm {
    /// A client.
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Self(Client::new(config))
    }
}

#[async_trait]
impl SsmApi for Ssm {
    async fn online(&self, instance: &str) -> Result<bool, AwsError> {
        let call = "ssm:DescribeInstanceInformation";
        let filter = InstanceInformationStringFilter::builder().key("InstanceIds").values(instance).build();
        let filter = filter.map_err(|e| odd(call, &e.to_string()))?;
        let answer = self.0.describe_instance_information().filters(filter).send().await;
        match answer.map_err(|e| failed(call, &e)) {
            Ok(answer) => Ok(answer
                .instance_information_list()
                .iter()
                .any(|i| i.instance_id() == Some(instance) && i.ping_status().is_some_and(|s| s.as_str() == "Online"))),
            // An instance that SSM has never heard of.
            Err(e) if e.code.contains("InvalidInstanceId") => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn send(&self, order: &Order) -> Result<String, AwsError> {
        let call = "ssm:SendCommand";
        let parameters = HashMap::from([
            ("Target".to_owned(), vec![order.target.clone()]),
            ("Run".to_owned(), vec![order.run.to_string()]),
            ("TimeoutSeconds".to_owned(), vec![order.execution.as_secs().to_string()]),
        ]);
        let delivery = i32::try_from(order.delivery.as_secs().clamp(30, 2_592_000)).unwrap_or(30);
        let sent = self.0.send_command().document_name(&order.document).instance_ids(&order.instance);
        let sent =
            sent.comment(order.run.as_str()).timeout_seconds(delivery).set_parameters(Some(parameters)).send().await;
        let sent = sent.map_err(|e| failed(call, &e))?;
        sent.command().and_then(|c| c.command_id()).map(Into::into).ok_or_else(|| odd(call, "no command id"))
    }

    async fn commands(&self, instance: &str, document: &str) -> Result<Vec<Command>, AwsError> {
        let mut pages = self.0.list_command_invocations().instance_id(instance).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed("ssm:ListCommandInvocations", &e))?;
            found
                .extend(page.command_invocations().iter().filter(|c| c.document_name() == Some(document)).map(command));
        }
        found.sort_by_key(|c| std::cmp::Reverse(c.requested_at));
        Ok(found)
    }

    async fn cancel(&self, command: &str, instance: &str) -> Result<(), AwsError> {
        let done = self.0.cancel_command().command_id(command).instance_ids(instance).send().await;
        done.map(|_| ()).map_err(|e| failed("ssm:CancelCommand", &e))
    }

    async fn error_output(&self, command: &str, instance: &str) -> Result<String, AwsError> {
        let answer = self.0.get_command_invocation().command_id(command).instance_id(instance).send().await;
        let answer = answer.map_err(|e| failed("ssm:GetCommandInvocation", &e))?;
        let text = answer.standard_error_content().unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().filter(|l| !l.trim().is_empty()).take(8).collect();
        Ok(last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    async fn parameter(&self, name: &str) -> Result<String, AwsError> {
        let call = "ssm:GetParameter";
        let answer = self.0.get_parameter().name(name).with_decryption(true).send().await;
        let answer = answer.map_err(|e| failed(call, &e)).map_err(|e| {
            if e.kind != AwsErrorKind::NotFound {
                return e;
            }
            AwsError {
                message: format!(
                    "there is no SSM parameter {name}; deploy the target's stack, or name a settings file"
                ),
                ..e
            }
        })?;
        answer.parameter().and_then(|p| p.value()).map(Into::into).ok_or_else(|| odd(call, "no value"))
    }
}

fn command(found: &CommandInvocation) -> Command {
    let status = match found.status().map_or("", |s| s.as_str()) {
        "Success" => CommandStatus::Success,
        "Pending" | "InProgress" | "Delayed" | "Cancelling" => CommandStatus::Open,
        _ => CommandStatus::Failed,
    };
    let requested = found.requested_date_time().and_then(|t| Timestamp::new(t.secs(), 0).ok());
    Command {
        id: found.command_id().unwrap_or_default().into(),
        comment: found.comment().unwrap_or_default().into(),
        status,
        detail: found.status_details().unwrap_or_default().into(),
        requested_at: requested.unwrap_or(Timestamp::UNIX_EPOCH),
    }
}
