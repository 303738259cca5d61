//! Auto Scaling: who is in the group, and the lifecycle actions that wait for us.

use async_trait::async_trait;
use aws_sdk_autoscaling::Client;

use super::{AwsError, AwsErrorKind, failed};

/// The calls of the core.
#[async_trait]
pub trait AutoScalingApi: Send + Sync {
    /// The group's members. A group that does not exist is [`AwsErrorKind::NotFound`].
    async fn members(&self, group: &str) -> Result<Vec<Member>, AwsError>;
    /// Restarts the time-out of a waiting lifecycle action.
    async fn heartbeat(&self, action: &LifecycleAction) -> Result<(), AwsError>;
    /// Ends a waiting lifecycle action. One that no longer waits is [`AwsErrorKind::NotFound`].
    async fn complete(&self, action: &LifecycleAction, result: LifecycleResult) -> Result<(), AwsError>;
}

/// A lifecycle action, by instance: a token goes stale and an event can be lost, the instance id does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleAction {
    /// Auto Scaling group.
    pub group: String,
    /// Lifecycle hook.
    pub hook: String,
    /// Instance that waits.
    pub instance: String,
}

/// How a lifecycle action ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LifecycleResult {
    /// The transition goes on.
    Continue,
    /// A launching instance is terminated and replaced; a terminating one is kept where the group's policy retains it.
    Abandon,
}

impl LifecycleResult {
    /// AWS's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }
}

/// One instance of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Instance id.
    pub instance: String,
    /// Its lifecycle state.
    pub state: LifecycleState,
}

/// The lifecycle states that a decision is made on; AWS adds others from time to time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LifecycleState {
    /// `Pending`
    Pending,
    /// `Pending:Wait`: a launch hook waits.
    PendingWait,
    /// `Pending:Proceed`
    PendingProceed,
    /// `InService`
    InService,
    /// `Terminating`
    Terminating,
    /// `Terminating:Wait`: a terminate hook waits.
    TerminatingWait,
    /// `Terminating:Proceed`
    TerminatingProceed,
    /// `Terminating:Retained`: kept for a person after its terminate hook was abandoned.
    TerminatingRetained,
    /// Anything else, such as a warm pool's states: none of our business.
    Other(String),
}

impl From<&str> for LifecycleState {
    fn from(text: &str) -> Self {
        match text {
            "Pending" => Self::Pending,
            "Pending:Wait" => Self::PendingWait,
            "Pending:Proceed" => Self::PendingProceed,
            "InService" => Self::InService,
            "Terminating" => Self::Terminating,
            "Terminating:Wait" => Self::TerminatingWait,
            "Terminating:Proceed" => Self::TerminatingProceed,
            "Terminating:Retained" => Self::TerminatingRetained,
            other => Self::Other(other.into()),
        }
    }
}

/// The real service.
#[derive(Debug, Clone)]
pub struct AutoScaling(Client);

impl AutoScaling {
    /// A client.
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Self(Client::new(config))
    }
}

#[async_trait]
impl AutoScalingApi for AutoScaling {
    async fn members(&self, group: &str) -> Result<Vec<Member>, AwsError> {
        let call = "autoscaling:DescribeAutoScalingGroups";
        let answer = self.0.describe_auto_scaling_groups().auto_scaling_group_names(group).send().await;
        let answer = answer.map_err(|e| failed(call, &e))?;
        let found = answer.auto_scaling_groups().first().ok_or_else(|| AwsError {
            call,
            kind: AwsErrorKind::NotFound,
            code: "NoSuchGroup".into(),
            message: format!("there is no Auto Scaling group {group:?}; check auto_scaling.group in the settings"),
        })?;
        let members = found.instances().iter().map(|i| Member {
            instance: i.instance_id().unwrap_or_default().into(),
            state: i.lifecycle_state().map_or("", |s| s.as_str()).into(),
        });
        Ok(members.collect())
    }

    async fn heartbeat(&self, action: &LifecycleAction) -> Result<(), AwsError> {
        let call = self.0.record_lifecycle_action_heartbeat();
        let call =
            call.auto_scaling_group_name(&action.group).lifecycle_hook_name(&action.hook).instance_id(&action.instance);
        let done = call.send().await;
        done.map(|_| ()).map_err(|e| no_action(failed("autoscaling:RecordLifecycleActionHeartbeat", &e)))
    }

    async fn complete(&self, action: &LifecycleAction, result: LifecycleResult) -> Result<(), AwsError> {
        let call = self.0.complete_lifecycle_action();
        let call =
            call.auto_scaling_group_name(&action.group).lifecycle_hook_name(&action.hook).instance_id(&action.instance);
        let done = call.lifecycle_action_result(result.word()).send().await;
        done.map(|_| ()).map_err(|e| no_action(failed("autoscaling:CompleteLifecycleAction", &e)))
    }
}

/// Auto Scaling says `ValidationError` for an action that no longer waits, as for everything else it refuses.
fn no_action(error: AwsError) -> AwsError {
    if error.message.contains("No active Lifecycle Action found") {
        return AwsError { kind: AwsErrorKind::NotFound, ..error };
    }
    error
}
