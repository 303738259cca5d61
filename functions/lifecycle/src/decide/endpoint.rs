//! The address: who gets it, who loses it, and by which step. It moves last, and never away from an instance in service.
//!
//! | kind | moves within | steps |
//! |---|---|---|
//! | Elastic IP | the region | associate, which takes it from whoever has it |
//! | network interface | its zone | detach, wait, attach, wait; EC2 takes its time for both |
//! | private address | its subnet | assign, which takes it from whoever has it |

use std::net::Ipv4Addr;

use jiff::SignedDuration;
use perennial_shared::alert::Kind;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::ec2::{Address, Attachment, AttachmentState, Interface};

use super::{Action, Case};
use crate::world::{EndpointView, InterfaceView, Member};

/// A guest lets go of an interface within seconds. One that has not by then does not answer; force can leave its metadata stale
/// and its device index blocked, so it is the last resort.
const FORCE_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// One step of a move. Each may be repeated: what was done meanwhile is no error, and the next look shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Allocate an Elastic IP.
    Allocate {
        /// Tag key.
        key: String,
        /// Tag value.
        value: String,
    },
    /// Move the Elastic IP here.
    Associate {
        /// Allocation id.
        allocation: String,
        /// Network interface that gets it.
        interface: String,
    },
    /// Take the Elastic IP away.
    Disassociate {
        /// Association id.
        association: String,
    },
    /// Attach the free network interface here.
    Attach {
        /// Interface id.
        interface: String,
        /// Place on the instance.
        device_index: u32,
    },
    /// Make the attached interface outlive its instance.
    Keep {
        /// Interface id.
        interface: String,
        /// Attachment id.
        attachment: String,
    },
    /// Take the network interface away.
    Detach {
        /// Interface id.
        interface: String,
        /// Attachment id.
        attachment: String,
        /// Whether the guest is not asked any more.
        force: bool,
    },
    /// Move the private address here.
    Assign {
        /// Network interface that gets it.
        interface: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// Take the private address away.
    Unassign {
        /// Network interface that loses it.
        interface: String,
        /// The address.
        address: Ipv4Addr,
    },
}

/// What is left to do until the address is where it should be.
pub(crate) enum Way {
    /// Nothing.
    Done,
    /// EC2 is at it.
    Wait,
    /// This.
    Next(Action),
}

impl<'a> Case<'a> {
    /// What brings the address to `member`, which owns the target.
    pub(crate) fn bring_endpoint(self, member: &Member) -> Way {
        let Some(endpoint) = &self.world.endpoint else { return Way::Done };
        if let Some(rival) = self.in_service_with(endpoint, member) {
            let text = format!("{} owns the data, {} holds the address", member.id, rival.id);
            return Way::Next(Action::Tell(self.alert(Kind::TwoInstances, rival).with([text])));
        }
        if let Some(why) = self.out_of_reach(member) {
            return Way::Next(Action::Tell(self.alert(Kind::AddressOutOfReach, member).with([why])));
        }
        match endpoint {
            EndpointView::ElasticIp(address) => associate(address, member),
            EndpointView::NetworkInterface(view) => self.bring_interface(view, member),
            EndpointView::PrivateIp { address, on } => self.assign(*address, on.as_ref(), member),
            EndpointView::MayAllocate { key, value } => {
                step(member, Step::Allocate { key: key.clone(), value: value.clone() })
            }
            EndpointView::Wrong(why) => self.wrong(member, why.clone()),
        }
    }

    /// What takes the address away from `member`; done only when clients cannot reach it there any more.
    pub(crate) fn release_endpoint(self, member: &Member) -> Way {
        let Some(endpoint) = &self.world.endpoint else { return Way::Done };
        if endpoint.holder() != Some(&member.id) {
            return Way::Done;
        }
        match endpoint {
            EndpointView::ElasticIp(Address { association: Some(association), .. }) => {
                step(member, Step::Disassociate { association: association.clone() })
            }
            EndpointView::NetworkInterface(view) => match &view.interface.attachment {
                Some(attachment) => self.detach(view, attachment, member, &member.id),
                None => Way::Done,
            },
            EndpointView::PrivateIp { address, on: Some(on) } if on.ip != address.to_string() => {
                step(member, Step::Unassign { interface: on.id.clone(), address: *address })
            }
            EndpointView::PrivateIp { address, on: Some(on) } => self.wrong(member, taken(*address, on)),
            _ => Way::Done,
        }
    }

    /// Why `member` can never have the address where it was launched. Trying again does not help, and replacing it might not either.
    pub(crate) fn out_of_reach(self, member: &Member) -> Option<String> {
        match self.world.endpoint.as_ref()? {
            EndpointView::NetworkInterface(view) => {
                let (zone, here) = (&view.interface.zone, member.zone.as_ref()?);
                (zone != here).then(|| {
                    format!(
                        "{} is in zone {here}, network interface {} is in {zone}: give group {} only subnets of {zone}, \
                         then terminate {}",
                        member.id, view.interface.id, self.group.group, member.id
                    )
                })
            }
            EndpointView::PrivateIp { address, .. } => {
                let subnet = member.subnet.as_ref().filter(|s| !s.can_have(*address))?;
                Some(format!(
                    "{} is in subnet {} ({}), whose instances cannot have {address}: give group {} only the subnet of \
                     {address}, then terminate {}",
                    member.id, subnet.id, subnet.block, self.group.group, member.id
                ))
            }
            _ => None,
        }
    }

    /// Another instance that has the address and serves.
    fn in_service_with(self, endpoint: &EndpointView, member: &Member) -> Option<&'a Member> {
        let holder = self.member(endpoint.holder()?)?;
        (holder.id != member.id && holder.state == LifecycleState::InService && holder.alive).then_some(holder)
    }

    fn bring_interface(self, view: &InterfaceView, member: &Member) -> Way {
        let interface = &view.interface;
        let Some(attachment) = &interface.attachment else {
            let attach = Step::Attach { interface: interface.id.clone(), device_index: view.device_index };
            return if member.running { step(member, attach) } else { Way::Wait };
        };
        match attachment.instance.as_deref() {
            Some(holder) if holder == member.id => self.settle_interface(view, attachment, member),
            Some(holder) => self.detach(view, attachment, member, holder),
            None => self.wrong(member, format!("network interface {} belongs to a service of AWS", interface.id)),
        }
    }

    /// It is on the right instance: also at the right place, for good, and to stay when the instance ends?
    fn settle_interface(self, view: &InterfaceView, attachment: &Attachment, member: &Member) -> Way {
        let interface = &view.interface.id;
        match attachment.state {
            AttachmentState::Attaching | AttachmentState::Detaching => Way::Wait,
            AttachmentState::Attached if attachment.device_index != view.device_index => {
                let (is, wanted) = (attachment.device_index, view.device_index);
                let why = format!("{interface} is attached to {} at device index {is}, not {wanted}", member.id);
                self.wrong(member, format!("{why}: detach it, or set endpoint.device_index: {is}"))
            }
            AttachmentState::Attached if attachment.delete_on_termination => {
                step(member, Step::Keep { interface: interface.clone(), attachment: attachment.id.clone() })
            }
            AttachmentState::Attached => Way::Done,
        }
    }

    /// Takes the interface from `holder` on behalf of `member`: asks first, and forces only what does not serve.
    fn detach(self, view: &InterfaceView, attachment: &Attachment, member: &Member, holder: &str) -> Way {
        let interface = &view.interface.id;
        if attachment.device_index == 0 {
            let why = format!("{interface} is the primary interface of {holder}, which cannot be detached");
            return self.wrong(member, format!("{why}: take it out of the launch template, then terminate {holder}"));
        }
        let detach = |force| Step::Detach { interface: interface.clone(), attachment: attachment.id.clone(), force };
        let serves = match self.member(holder) {
            Some(holder) => holder.alive && holder.state == LifecycleState::InService,
            None => view.holder_alive, // it left the group, or never was in it: nobody knows what it does
        };
        match (attachment.state, view.detaching_since) {
            (AttachmentState::Attaching, _) => Way::Wait,
            (AttachmentState::Attached, _) | (AttachmentState::Detaching, None) => step(member, detach(false)),
            (AttachmentState::Detaching, Some(since)) if self.world.now.duration_since(since) < FORCE_AFTER => {
                Way::Wait
            }
            (AttachmentState::Detaching, Some(_)) if serves => {
                let why =
                    format!("{holder}, which is not of group {}, does not let go of {interface}", self.group.group);
                self.wrong(member, format!("{why}: stop it, or detach the interface by force"))
            }
            (AttachmentState::Detaching, Some(_)) => step(member, detach(true)),
        }
    }

    fn assign(self, address: Ipv4Addr, on: Option<&Interface>, member: &Member) -> Way {
        let Some(interface) = member.interface.clone() else { return Way::Wait };
        match on {
            Some(on) if on.ip == address.to_string() => self.wrong(member, taken(address, on)),
            Some(on) if on.id == interface => Way::Done,
            _ => step(member, Step::Assign { interface, address }),
        }
    }

    fn wrong(self, member: &Member, why: String) -> Way {
        Way::Next(Action::Tell(self.alert(Kind::EndpointFailed, member).with([why])))
    }
}

fn associate(address: &Address, member: &Member) -> Way {
    match &member.interface {
        _ if address.holder.as_ref() == Some(&member.id) => Way::Done,
        Some(interface) => {
            step(member, Step::Associate { allocation: address.allocation.clone(), interface: interface.clone() })
        }
        None => Way::Wait,
    }
}

fn step(member: &Member, step: Step) -> Way {
    Way::Next(Action::Endpoint { instance: member.id.clone(), step })
}

/// AWS gave the address away while nobody had it.
fn taken(address: Ipv4Addr, on: &Interface) -> String {
    let holder = on.attachment.as_ref().and_then(|a| a.instance.as_deref()).unwrap_or("no instance");
    format!(
        "{address} is the primary address of network interface {} ({holder}), which cannot give it up: end that one, and \
         reserve the address in its subnet, so that AWS gives it to nobody else",
        on.id
    )
}
