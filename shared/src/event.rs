//! The AWS events that wake the functions, by the fields that are used.
//!
//! An event is only ever a nudge: it can be lost, late, doubled or out of order, so nothing is concluded from it that cannot be
//! read from the services. Only its kind and the names in it are taken. A kind nobody knows is [`Event::Unknown`], not an error,
//! because a rule may be wider than this code. Shapes: <https://docs.aws.amazon.com/eventbridge/latest/ref/events.html>.

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// One event from EventBridge, EventBridge Scheduler or SQS.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A lifecycle action waits, launch or terminate.
    Lifecycle(Lifecycle),
    /// A command changed its status on one instance.
    Command(Command),
    /// An instance is about to be reclaimed, or should be replaced soon.
    Warning {
        /// Instance id.
        instance: String,
        /// AWS's name for the event.
        what: String,
    },
    /// The group tells that a launch or termination succeeded or failed.
    Notice(Notice),
    /// A schedule fired.
    Schedule {
        /// `tick`, `backup` or `verify`.
        what: String,
        /// The instant for which it was scheduled.
        at: Option<Timestamp>,
    },
    /// An object was created in the bucket.
    ObjectCreated {
        /// Bucket.
        bucket: String,
        /// Full key.
        key: String,
    },
    /// Messages of a dead-letter queue.
    DeadLetters(Vec<DeadLetter>),
    /// Something else.
    Unknown {
        /// Its `detail-type`, if it has one.
        what: String,
    },
}

/// `EC2 Instance-launch Lifecycle Action` or `EC2 Instance-terminate Lifecycle Action`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lifecycle {
    /// Auto Scaling group.
    pub auto_scaling_group_name: String,
    /// Lifecycle hook.
    pub lifecycle_hook_name: String,
    /// Instance.
    #[serde(rename = "EC2InstanceId")]
    pub ec2_instance_id: String,
    /// `autoscaling:EC2_INSTANCE_LAUNCHING` or `autoscaling:EC2_INSTANCE_TERMINATING`.
    pub lifecycle_transition: String,
    /// `EC2`, `AutoScalingGroup` or `WarmPool`.
    #[serde(default)]
    pub origin: String,
    /// `EC2`, `AutoScalingGroup` or `WarmPool`.
    #[serde(default)]
    pub destination: String,
}

/// `EC2 Command Invocation Status-change Notification`. Its keys have hyphens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Command {
    /// Command id.
    pub command_id: String,
    /// SSM document.
    pub document_name: String,
    /// Instance; absent in the notification for a command as a whole.
    pub instance_id: Option<String>,
    /// Such as `Success`, `Failed`, `TimedOut`, `Cancelled`.
    pub status: String,
}

/// `EC2 Instance Launch Successful` and its three relatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// AWS's name for the event.
    pub what: String,
    /// Auto Scaling group.
    pub group: String,
    /// Instance.
    pub instance: String,
    /// Why the group did it, in its own words.
    pub cause: String,
    /// Details of a failure.
    pub message: String,
    /// The event's id, the same in every delivery.
    pub id: String,
    /// When it happened.
    pub at: Option<Timestamp>,
}

/// A message that a function or a rule could not get rid of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// SQS message id.
    pub id: String,
    /// What failed to take it, where the message says so.
    pub target: String,
    /// Why, where the message says so.
    pub why: String,
    /// The event itself, shortened.
    pub body: String,
}

/// An event that has a known kind and not the fields of that kind.
#[derive(Debug, thiserror::Error)]
#[error("an event of kind {kind:?} does not have the fields it should: {why}")]
pub struct BadEvent {
    /// The kind.
    pub kind: String,
    /// What is missing.
    pub why: String,
}

impl Event {
    /// Reads an event as Lambda hands it over.
    pub fn parse(value: &Value) -> Result<Self, BadEvent> {
        if value.get("Records").is_some() {
            let batch: SqsEvent = serde_json::from_value(value.clone())
                .map_err(|e| BadEvent { kind: "SQS messages".into(), why: e.to_string() })?;
            return Ok(Self::DeadLetters(batch.records.iter().map(DeadLetter::read).collect()));
        }
        if let Some(what) = value.get("schedule").and_then(Value::as_str) {
            let at = value.get("scheduled_time").and_then(Value::as_str).and_then(|t| t.parse().ok());
            return Ok(Self::Schedule { what: what.into(), at });
        }
        let kind = value.get("detail-type").and_then(Value::as_str).unwrap_or_default();
        let detail = value.get("detail").cloned().unwrap_or_default();
        let text = |name: &str| detail.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let bad = |why: String| BadEvent { kind: kind.into(), why };
        match kind {
            "EC2 Instance-launch Lifecycle Action" | "EC2 Instance-terminate Lifecycle Action" => {
                serde_json::from_value(detail).map(Self::Lifecycle).map_err(|e| bad(e.to_string()))
            }
            "EC2 Command Invocation Status-change Notification" | "EC2 Command Status-change Notification" => {
                serde_json::from_value(detail).map(Self::Command).map_err(|e| bad(e.to_string()))
            }
            "EC2 Spot Instance Interruption Warning" | "EC2 Instance Rebalance Recommendation" => {
                let instance = text("instance-id");
                if instance.is_empty() {
                    Err(bad("no instance-id".into()))
                } else {
                    Ok(Self::Warning { instance, what: kind.into() })
                }
            }
            "EC2 Instance Launch Successful"
            | "EC2 Instance Launch Unsuccessful"
            | "EC2 Instance Terminate Successful"
            | "EC2 Instance Terminate Unsuccessful" => Ok(Self::Notice(Notice {
                what: kind.into(),
                group: text("AutoScalingGroupName"),
                instance: text("EC2InstanceId"),
                cause: text("Cause"),
                message: text("StatusMessage"),
                id: value.get("id").and_then(Value::as_str).unwrap_or_default().into(),
                at: value.get("time").and_then(Value::as_str).and_then(|t| t.parse().ok()),
            })),
            "Object Created" => {
                let at = |path: &str| detail.pointer(path).and_then(Value::as_str).map(str::to_owned);
                let (bucket, key) = (at("/bucket/name"), at("/object/key"));
                let (Some(bucket), Some(key)) = (bucket, key) else {
                    return Err(bad("no bucket name or object key".into()));
                };
                Ok(Self::ObjectCreated { bucket, key })
            }
            other => Ok(Self::Unknown { what: other.into() }),
        }
    }
}

impl DeadLetter {
    /// Three shapes reach the queue: a failed asynchronous invocation, an event that a rule could not deliver (its reason is in the
    /// message attributes), and whatever else.
    fn read(message: &SqsMessage) -> Self {
        let body = message.body.clone().unwrap_or_default();
        let inner: Value = serde_json::from_str(&body).unwrap_or_default();
        let text = |path: &str| inner.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let attribute =
            |name: &str| message.message_attributes.get(name).and_then(|a| a.string_value.clone()).unwrap_or_default();
        let function = text("/requestContext/functionArn");
        let (target, why) = if function.is_empty() {
            let why = format!("{} {}", attribute("ERROR_CODE"), attribute("ERROR_MESSAGE"));
            (attribute("TARGET_ARN"), why.trim().to_owned())
        } else {
            (function, text("/responsePayload/errorMessage"))
        };
        let event = inner.get("requestPayload").unwrap_or(&inner);
        let shown = if event.is_null() { body } else { event.to_string() };
        let id = message.message_id.clone().unwrap_or_default();
        Self { id, target, why, body: shown.chars().take(600).collect() }
    }
}
