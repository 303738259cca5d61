//! Moving the address. A step returns when EC2 shows its result, or when it takes longer than a function should wait: the next look
//! sees what is on its way.
//!
//! A refusal is told to a person at once, because the same step would be refused again.

use perennial_shared::alert::{self, Alert, Kind};
use perennial_shared::aws::ec2::{AttachmentState, IN_USE, INCORRECT_STATE};
use perennial_shared::aws::{AwsError, AwsErrorKind};
use perennial_shared::settings::WhichInterface;

use super::{ActError, Actor, gone_is_done};
use crate::decide::endpoint::Step;
use crate::world::Detaching;

/// EC2 needs a few seconds to attach or detach.
const LOOKS: u32 = 15;

/// What EC2 says when the world moved on since it was looked at: somebody else was first, EC2 is still at it, the instance died.
const MOVED_ON: [&str; 5] =
    [IN_USE, INCORRECT_STATE, "IncorrectInstanceState", "InvalidInstanceID", "InvalidNetworkInterfaceID.NotFound"];

impl Actor<'_> {
    pub(super) async fn endpoint(self, instance: &str, step: &Step) -> Result<(), ActError> {
        match self.step(instance, step).await {
            Err(ActError::Aws(e)) if matches!(e.kind, AwsErrorKind::Refused | AwsErrorKind::Denied) => {
                let place = format!("instance {instance} of group {}", self.group.group);
                let alert = Alert::new(Kind::EndpointFailed, &self.target.name, &place, self.now).once_for(instance);
                let alert = alert.with([e.to_string()]);
                if let Err(untold) = alert::send(&alert, self.topic, self.sns, self.services.repository).await {
                    tracing::error!(error = %untold, "nobody could be told");
                }
                Err(e.into())
            }
            other => other,
        }
    }

    async fn step(self, instance: &str, step: &Step) -> Result<(), ActError> {
        let ec2 = self.services.ec2;
        match step {
            Step::Allocate { key, value } => drop(ec2.allocate(key, value).await?),
            Step::Associate { allocation, interface } => {
                looked_too_early(ec2.associate(allocation, interface, true).await)?;
            }
            Step::Disassociate { association } => gone_is_done(ec2.disassociate(association).await)?,
            Step::Attach { interface, device_index } => {
                looked_too_early(ec2.attach(interface, instance, *device_index).await)?;
                self.until_settled(interface).await?;
            }
            Step::Keep { interface, attachment } => gone_is_done(ec2.keep(interface, attachment).await)?,
            Step::Detach { interface, attachment, force } => {
                self.detach(instance, interface, attachment, *force).await?;
                self.until_settled(interface).await?;
            }
            Step::Assign { interface, address } => looked_too_early(ec2.assign(interface, *address).await)?,
            Step::Unassign { interface, address } => gone_is_done(ec2.unassign(interface, *address).await)?,
        }
        Ok(())
    }

    /// The record comes first: it says since when the guest has had time, whoever goes on from here.
    async fn detach(self, instance: &str, interface: &str, attachment: &str, force: bool) -> Result<(), ActError> {
        let record = Detaching { interface: interface.into(), instance: instance.into(), at: self.now };
        self.services.repository.create_record(&Detaching::key(attachment), &record).await?;
        if force {
            tracing::warn!(interface, attachment, "the guest did not let go of the interface; it is taken by force");
        }
        looked_too_early(gone_is_done(self.services.ec2.detach(attachment, force).await))?;
        Ok(())
    }

    /// Looks until nothing is on its way any more.
    async fn until_settled(self, interface: &str) -> Result<(), ActError> {
        let which = WhichInterface::Id(interface.into());
        for _ in 0..LOOKS {
            let found = self.services.ec2.interfaces(&which).await?;
            let state = found.first().and_then(|i| i.attachment.as_ref()).map(|a| a.state);
            if !matches!(state, Some(AttachmentState::Attaching | AttachmentState::Detaching)) {
                break;
            }
            tokio::time::sleep(self.services.pause).await;
        }
        Ok(())
    }
}

/// An error of [`MOVED_ON`] is none: the next look shows how it is now.
fn looked_too_early(done: Result<(), AwsError>) -> Result<(), AwsError> {
    match done {
        Err(e) if MOVED_ON.contains(&&*e.code) => {
            tracing::info!(error = %e, "the world moved on");
            Ok(())
        }
        other => other,
    }
}
