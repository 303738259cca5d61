//! EC2 of the fake: the rules of Elastic IPs, of network interfaces and of secondary private addresses.

use std::net::Ipv4Addr;

use async_trait::async_trait;

use super::{FakeAws, Machine, OTHER_ZONE, State, ZONE, error, reply};
use crate::aws::ec2::{
    Address, Attachment, AttachmentState, Ec2Api, IN_USE, INCORRECT_STATE, Instance, Interface, Subnet,
};
use crate::aws::{AwsError, AwsErrorKind};
use crate::settings::{ElasticIp, WhichInterface};

#[async_trait]
impl Ec2Api for FakeAws {
    async fn instances(&self, ids: &[String]) -> Result<Vec<Instance>, AwsError> {
        let state = self.call("ec2:DescribeInstances")?;
        let known = ids.iter().filter_map(|id| Some((id, state.machines.get(id)?)));
        let found = known.map(|(id, m)| Instance {
            id: id.clone(),
            alive: m.running,
            running: m.running,
            interface: m.exists().then(|| format!("eni-{id}")),
            zone: Some(m.zone.into()),
            vpc: m.exists().then(|| "vpc-1".into()),
            subnet: m.exists().then(|| subnet_in(m.zone).id),
            launched_at: Some(m.launched_at),
        });
        Ok(found.collect())
    }

    async fn addresses(&self, which: &ElasticIp) -> Result<Vec<Address>, AwsError> {
        let state = self.call("ec2:DescribeAddresses")?;
        let wanted = |(address, tag): &&(Address, (String, String))| match which {
            ElasticIp::Allocation(id) => address.allocation == *id,
            ElasticIp::Tag { key, value, .. } => tag.0 == *key && tag.1 == *value,
        };
        Ok(state.addresses.iter().filter(wanted).map(|(a, _)| a.clone()).collect())
    }

    async fn allocate(&self, key: &str, value: &str) -> Result<Address, AwsError> {
        let mut state = self.call("ec2:AllocateAddress")?;
        let allocation = format!("eipalloc-{:08}", state.addresses.len());
        let address = Address { allocation, ip: "127.0.77.1".into(), association: None, holder: None };
        state.addresses.push((address.clone(), (key.into(), value.into())));
        Ok(address)
    }

    async fn associate(&self, allocation: &str, interface: &str, may_move: bool) -> Result<(), AwsError> {
        let call = "ec2:AssociateAddress";
        let mut state = self.call(call)?;
        let instance = interface.trim_start_matches("eni-").to_owned();
        if !state.machines.get(&instance).is_some_and(Machine::exists) {
            let text = format!("The instance '{instance}' is not in a valid state for this operation.");
            return Err(error(call, AwsErrorKind::Refused, "InvalidInstanceID", text));
        }
        let found = state.addresses.iter_mut().find(|(a, _)| a.allocation == allocation);
        let (address, _) = found.ok_or_else(|| {
            error(call, AwsErrorKind::NotFound, "InvalidAllocationID.NotFound", format!("{allocation} does not exist"))
        })?;
        if address.holder.as_ref().is_some_and(|h| *h != instance) && !may_move {
            let text = format!("resource {allocation} is already associated");
            return Err(error(call, AwsErrorKind::Refused, "Resource.AlreadyAssociated", text));
        }
        address.association = Some(format!("eipassoc-{instance}"));
        address.holder = Some(instance);
        reply(&mut state, call, ())
    }

    async fn disassociate(&self, association: &str) -> Result<(), AwsError> {
        let call = "ec2:DisassociateAddress";
        let mut state = self.call(call)?;
        let found = state.addresses.iter_mut().find(|(a, _)| a.association.as_deref() == Some(association));
        let (address, _) = found.ok_or_else(|| {
            error(
                call,
                AwsErrorKind::NotFound,
                "InvalidAssociationID.NotFound",
                format!("{association} does not exist"),
            )
        })?;
        (address.association, address.holder) = (None, None);
        reply(&mut state, call, ())
    }

    async fn interfaces(&self, which: &WhichInterface) -> Result<Vec<Interface>, AwsError> {
        let mut state = self.call("ec2:DescribeNetworkInterfaces")?;
        state.look();
        let wanted = |(interface, tag): &&(Interface, (String, String))| match which {
            WhichInterface::Id(id) => interface.id == *id,
            WhichInterface::Tag { key, value } => tag.0 == *key && tag.1 == *value,
        };
        Ok(state.interfaces.iter().filter(wanted).map(|(i, _)| i.clone()).collect())
    }

    async fn interface_with(&self, _vpc: &str, address: Ipv4Addr) -> Result<Option<Interface>, AwsError> {
        let state = self.call("ec2:DescribeNetworkInterfaces")?;
        let Some(id) = state.private.get(&address) else { return Ok(None) };
        let instance = id.trim_start_matches("eni-");
        let attachment = Attachment {
            id: format!("eni-attach-{instance}"),
            instance: Some(instance.into()),
            device_index: 0,
            state: AttachmentState::Attached,
            delete_on_termination: true,
        };
        let zone = state.machines.get(instance).map_or(ZONE, |m| m.zone).into();
        Ok(Some(Interface { id: id.clone(), ip: "10.0.1.4".into(), zone, attachment: Some(attachment) }))
    }

    async fn attach(&self, interface: &str, instance: &str, device_index: u32) -> Result<(), AwsError> {
        let call = "ec2:AttachNetworkInterface";
        let mut state = self.call(call)?;
        let (exists, zone) = state.machines.get(instance).map_or((false, ZONE), |m| (m.exists(), m.zone));
        let (slow, number) = (state.slow, state.attachments);
        let found = state.interface(call, interface)?;
        if found.attachment.is_some() {
            return Err(refused(call, IN_USE, format!("Interface: [{interface}] in use.")));
        }
        if found.zone != zone {
            let text = format!("You may not attach a network interface to an instance in {zone}.");
            return Err(refused(call, "InvalidParameterCombination", text));
        }
        if !exists {
            let text = format!("Instance '{instance}' is not 'running' or 'stopped'.");
            return Err(refused(call, INCORRECT_STATE, text));
        }
        found.attachment = Some(Attachment {
            id: format!("eni-attach-{number}"),
            instance: Some(instance.into()),
            device_index,
            state: if slow == 0 { AttachmentState::Attached } else { AttachmentState::Attaching },
            delete_on_termination: false,
        });
        (state.attachments, state.looks) = (number + 1, slow);
        reply(&mut state, call, ())
    }

    async fn detach(&self, attachment: &str, force: bool) -> Result<(), AwsError> {
        let call = "ec2:DetachNetworkInterface";
        let mut state = self.call(call)?;
        let (slow, hangs) = (state.slow, state.deaf && !force);
        let found = state.attached(call, attachment)?;
        let going = found.attachment.as_ref().is_some_and(|a| a.state == AttachmentState::Detaching);
        if going && !force {
            return Err(refused(call, INCORRECT_STATE, format!("'{attachment}' is not 'attached'.")));
        }
        if let Some(attachment) = &mut found.attachment {
            attachment.state = AttachmentState::Detaching;
        }
        if slow == 0 && !hangs {
            found.attachment = None;
        }
        if !going {
            state.looks = slow;
        }
        if force {
            state.forced.push(attachment.into());
        }
        reply(&mut state, call, ())
    }

    async fn keep(&self, interface: &str, attachment: &str) -> Result<(), AwsError> {
        let call = "ec2:ModifyNetworkInterfaceAttribute";
        let mut state = self.call(call)?;
        let found = state.attached(call, attachment)?;
        if found.id != interface {
            let text = format!("'{attachment}' is not an attachment of '{interface}'.");
            return Err(refused(call, "InvalidAttachmentID.NotFound", text));
        }
        if let Some(attachment) = &mut found.attachment {
            attachment.delete_on_termination = false;
        }
        reply(&mut state, call, ())
    }

    async fn assign(&self, interface: &str, address: Ipv4Addr) -> Result<(), AwsError> {
        let call = "ec2:AssignPrivateIpAddresses";
        let mut state = self.call(call)?;
        let machine = state.machines.get(interface.trim_start_matches("eni-")).filter(|m| m.exists());
        let machine = machine.ok_or_else(|| no_interface(call, interface))?;
        if !subnet_in(machine.zone).can_have(address) {
            let text = format!("Address {address} does not fall within the subnet's address range.");
            return Err(refused(call, "InvalidParameterValue", text));
        }
        state.private.insert(address, interface.into());
        reply(&mut state, call, ())
    }

    async fn unassign(&self, interface: &str, address: Ipv4Addr) -> Result<(), AwsError> {
        let call = "ec2:UnassignPrivateIpAddresses";
        let mut state = self.call(call)?;
        if state.private.get(&address).is_none_or(|i| i != interface) {
            let text = format!("Some of the specified addresses are not assigned to interface {interface}");
            return Err(error(call, AwsErrorKind::NotFound, "InvalidParameterValue", text));
        }
        state.private.remove(&address);
        reply(&mut state, call, ())
    }

    async fn subnet(&self, id: &str) -> Result<Subnet, AwsError> {
        let call = "ec2:DescribeSubnets";
        drop(self.call(call)?);
        let known = [ZONE, OTHER_ZONE].into_iter().map(subnet_in).find(|s| s.id == id);
        known.ok_or_else(|| error(call, AwsErrorKind::NotFound, "InvalidSubnetID.NotFound", id.into()))
    }
}

/// The one subnet of each zone.
fn subnet_in(zone: &str) -> Subnet {
    let (id, block) = if zone == ZONE { ("subnet-1", "10.0.1.0/24") } else { ("subnet-2", "10.0.2.0/24") };
    Subnet::new(id, block).expect("a block")
}

fn refused(call: &'static str, code: &str, message: String) -> AwsError {
    error(call, AwsErrorKind::of_code(code), code, message)
}

fn no_interface(call: &'static str, id: &str) -> AwsError {
    refused(call, "InvalidNetworkInterfaceID.NotFound", format!("The networkInterface ID '{id}' does not exist"))
}

impl State {
    fn interface(&mut self, call: &'static str, id: &str) -> Result<&mut Interface, AwsError> {
        let found = self.interfaces.iter_mut().map(|(i, _)| i).find(|i| i.id == id);
        found.ok_or_else(|| no_interface(call, id))
    }

    fn attached(&mut self, call: &'static str, attachment: &str) -> Result<&mut Interface, AwsError> {
        let has = |i: &&mut Interface| i.attachment.as_ref().is_some_and(|a| a.id == attachment);
        self.interfaces.iter_mut().map(|(i, _)| i).find(has).ok_or_else(|| {
            let text = format!("The network interface attachment ID '{attachment}' does not exist");
            refused(call, "InvalidAttachmentID.NotFound", text)
        })
    }

    /// What is on its way gets one look further. A deaf guest stops a detachment that was not forced.
    fn look(&mut self) {
        if self.looks > 0 {
            self.looks -= 1;
            return;
        }
        let (deaf, forced) = (self.deaf, self.forced.clone());
        for (interface, _) in &mut self.interfaces {
            match &mut interface.attachment {
                Some(a) if a.state == AttachmentState::Attaching => a.state = AttachmentState::Attached,
                Some(a) if a.state == AttachmentState::Detaching && (!deaf || forced.contains(&a.id)) => {
                    interface.attachment = None;
                }
                _ => {}
            }
        }
    }
}
