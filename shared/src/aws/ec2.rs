//! EC2: whether an instance runs, and who holds the address: an Elastic IP, a network interface, a secondary private address.

mod interface;

use std::net::Ipv4Addr;

use async_trait::async_trait;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{DomainType, Filter, NetworkInterfaceAttachmentChanges, ResourceType, Tag, TagSpecification};
pub use interface::{Attachment, AttachmentState, Interface, Subnet};
use jiff::Timestamp;

use super::{AwsError, AwsErrorKind, failed, odd};
use crate::settings::{ElasticIp, WhichInterface};

/// The calls of the core.
#[async_trait]
pub trait Ec2Api: Send + Sync {
    /// Those of `ids` that EC2 still knows.
    async fn instances(&self, ids: &[String]) -> Result<Vec<Instance>, AwsError>;
    /// The addresses that the settings mean: none, one, or (by tag) mistakenly several.
    async fn addresses(&self, which: &ElasticIp) -> Result<Vec<Address>, AwsError>;
    /// Allocates an address with a tag.
    async fn allocate(&self, key: &str, value: &str) -> Result<Address, AwsError>;
    /// Associates an address with a network interface. Without `may_move` an address that is associated elsewhere is refused.
    async fn associate(&self, allocation: &str, interface: &str, may_move: bool) -> Result<(), AwsError>;
    /// Ends an association. One that is gone is [`AwsErrorKind::NotFound`].
    async fn disassociate(&self, association: &str) -> Result<(), AwsError>;
    /// The network interfaces that the settings mean: none, one, or (by tag) mistakenly several.
    async fn interfaces(&self, which: &WhichInterface) -> Result<Vec<Interface>, AwsError>;
    /// The interface of that VPC that has a private address, as its primary or as a secondary one.
    async fn interface_with(&self, vpc: &str, address: Ipv4Addr) -> Result<Option<Interface>, AwsError>;
    /// Begins to attach an interface. Not idempotent: one that is attached already, even there, is refused with [`IN_USE`].
    async fn attach(&self, interface: &str, instance: &str, device_index: u32) -> Result<(), AwsError>;
    /// Begins to detach an interface; without `force` the guest must let go of it. An attachment that is gone is
    /// [`AwsErrorKind::NotFound`].
    async fn detach(&self, attachment: &str, force: bool) -> Result<(), AwsError>;
    /// Makes an attached interface outlive its instance.
    async fn keep(&self, interface: &str, attachment: &str) -> Result<(), AwsError>;
    /// Gives an interface a secondary private address, taking it from whoever has it.
    async fn assign(&self, interface: &str, address: Ipv4Addr) -> Result<(), AwsError>;
    /// Takes a secondary private address away. One that the interface does not have is [`AwsErrorKind::NotFound`].
    async fn unassign(&self, interface: &str, address: Ipv4Addr) -> Result<(), AwsError>;
    /// A subnet.
    async fn subnet(&self, id: &str) -> Result<Subnet, AwsError>;
}

/// Error code: the network interface is attached already.
pub const IN_USE: &str = "InvalidNetworkInterface.InUse";

/// Error code: the instance or the attachment is on its way to another state.
pub const INCORRECT_STATE: &str = "IncorrectState";

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Instance id.
    pub id: String,
    /// Whether it is `pending` or `running`: only then can it still do something.
    pub alive: bool,
    /// Whether it is `running`.
    pub running: bool,
    /// Its interface with device index 0. Addresses are associated with an interface, because association by instance is
    /// refused for an instance that has more than one.
    pub interface: Option<String>,
    /// Its availability zone.
    pub zone: Option<String>,
    /// Its VPC; a terminated instance has none.
    pub vpc: Option<String>,
    /// The subnet of `interface`.
    pub subnet: Option<String>,
    /// When it was launched.
    pub launched_at: Option<Timestamp>,
}

/// One Elastic IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Allocation id.
    pub allocation: String,
    /// The address clients use.
    pub ip: String,
    /// Present while associated.
    pub association: Option<String>,
    /// Instance that holds it.
    pub holder: Option<String>,
}

/// The real service.
#[derive(Debug, Clone)]
pub struct Ec2(Client);

impl Ec2 {
    /// A client.
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Self(Client::new(config))
    }
}

#[async_trait]
impl Ec2Api for Ec2 {
    async fn instances(&self, ids: &[String]) -> Result<Vec<Instance>, AwsError> {
        if ids.is_empty() {
            return Ok(vec![]); // an empty list of ids would mean every instance of the account
        }
        // By filter, not by id: an id that EC2 has forgotten would fail the call for all the others.
        let filter = Filter::builder().name("instance-id").set_values(Some(ids.to_vec())).build();
        let answer = self.0.describe_instances().filters(filter).send().await;
        let answer = answer.map_err(|e| failed("ec2:DescribeInstances", &e))?;
        let found = answer.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances);
        Ok(found.map(instance).collect())
    }

    async fn addresses(&self, which: &ElasticIp) -> Result<Vec<Address>, AwsError> {
        let call = self.0.describe_addresses();
        let call = match which {
            ElasticIp::Allocation(id) => call.allocation_ids(id),
            ElasticIp::Tag { key, value, .. } => call.filters(filter(&format!("tag:{key}"), value)),
        };
        match call.send().await.map_err(|e| failed("ec2:DescribeAddresses", &e)) {
            Ok(answer) => Ok(answer.addresses().iter().map(address).collect()),
            Err(e) if e.kind == AwsErrorKind::NotFound => Ok(vec![]),
            Err(e) => Err(e),
        }
    }

    async fn allocate(&self, key: &str, value: &str) -> Result<Address, AwsError> {
        let call = "ec2:AllocateAddress";
        let tag = Tag::builder().key(key).value(value).build();
        let tags = TagSpecification::builder().resource_type(ResourceType::ElasticIp).tags(tag).build();
        let made = self.0.allocate_address().domain(DomainType::Vpc).tag_specifications(tags).send().await;
        let made = made.map_err(|e| failed(call, &e))?;
        let allocation = made.allocation_id().ok_or_else(|| odd(call, "no allocation id"))?.to_owned();
        Ok(Address { allocation, ip: made.public_ip().unwrap_or_default().into(), association: None, holder: None })
    }

    async fn associate(&self, allocation: &str, interface: &str, may_move: bool) -> Result<(), AwsError> {
        let call = self.0.associate_address().allocation_id(allocation).network_interface_id(interface);
        let done = call.allow_reassociation(may_move).send().await;
        done.map(|_| ()).map_err(|e| failed("ec2:AssociateAddress", &e))
    }

    async fn disassociate(&self, association: &str) -> Result<(), AwsError> {
        let done = self.0.disassociate_address().association_id(association).send().await;
        done.map(|_| ()).map_err(|e| failed("ec2:DisassociateAddress", &e))
    }

    async fn interfaces(&self, which: &WhichInterface) -> Result<Vec<Interface>, AwsError> {
        let call = self.0.describe_network_interfaces();
        let call = match which {
            WhichInterface::Id(id) => call.network_interface_ids(id),
            WhichInterface::Tag { key, value } => call.filters(filter(&format!("tag:{key}"), value)),
        };
        match call.send().await.map_err(|e| failed("ec2:DescribeNetworkInterfaces", &e)) {
            Ok(answer) => Ok(answer.network_interfaces().iter().map(Interface::from).collect()),
            Err(e) if e.kind == AwsErrorKind::NotFound => Ok(vec![]),
            Err(e) => Err(e),
        }
    }

    async fn interface_with(&self, vpc: &str, address: Ipv4Addr) -> Result<Option<Interface>, AwsError> {
        let call = self.0.describe_network_interfaces().filters(filter("vpc-id", vpc));
        let answer = call.filters(filter("addresses.private-ip-address", &address.to_string())).send().await;
        let answer = answer.map_err(|e| failed("ec2:DescribeNetworkInterfaces", &e))?;
        Ok(answer.network_interfaces().first().map(Interface::from))
    }

    async fn attach(&self, interface: &str, instance: &str, device_index: u32) -> Result<(), AwsError> {
        let call = self.0.attach_network_interface().network_interface_id(interface).instance_id(instance);
        let done = call.device_index(i32::try_from(device_index).unwrap_or(i32::MAX)).send().await;
        done.map(|_| ()).map_err(|e| failed("ec2:AttachNetworkInterface", &e))
    }

    async fn detach(&self, attachment: &str, force: bool) -> Result<(), AwsError> {
        let done = self.0.detach_network_interface().attachment_id(attachment).force(force).send().await;
        done.map(|_| ()).map_err(|e| failed("ec2:DetachNetworkInterface", &e))
    }

    async fn keep(&self, interface: &str, attachment: &str) -> Result<(), AwsError> {
        let changes = NetworkInterfaceAttachmentChanges::builder();
        let changes = changes.attachment_id(attachment).delete_on_termination(false).build();
        let call = self.0.modify_network_interface_attribute().network_interface_id(interface).attachment(changes);
        call.send().await.map(|_| ()).map_err(|e| failed("ec2:ModifyNetworkInterfaceAttribute", &e))
    }

    async fn assign(&self, interface: &str, address: Ipv4Addr) -> Result<(), AwsError> {
        let call = self.0.assign_private_ip_addresses().network_interface_id(interface);
        let done = call.private_ip_addresses(address.to_string()).allow_reassignment(true).send().await;
        done.map(|_| ()).map_err(|e| failed("ec2:AssignPrivateIpAddresses", &e))
    }

    async fn unassign(&self, interface: &str, address: Ipv4Addr) -> Result<(), AwsError> {
        let call = self.0.unassign_private_ip_addresses().network_interface_id(interface);
        let done = call.private_ip_addresses(address.to_string()).send().await;
        done.map(|_| ()).map_err(|e| not_assigned(failed("ec2:UnassignPrivateIpAddresses", &e)))
    }

    async fn subnet(&self, id: &str) -> Result<Subnet, AwsError> {
        let call = "ec2:DescribeSubnets";
        let answer = self.0.describe_subnets().subnet_ids(id).send().await.map_err(|e| failed(call, &e))?;
        let found = answer.subnets().first().ok_or_else(|| odd(call, "no subnet"))?;
        let block = found.cidr_block().ok_or_else(|| odd(call, "a subnet without a CIDR block"))?;
        Subnet::new(id, block).ok_or_else(|| odd(call, &format!("the CIDR block {block:?} cannot be read")))
    }
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// EC2 says `InvalidParameterValue` for an address that the interface does not have, as for everything else it refuses.
fn not_assigned(error: AwsError) -> AwsError {
    if error.message.contains("not assigned") {
        return AwsError { kind: AwsErrorKind::NotFound, ..error };
    }
    error
}

fn instance(found: &aws_sdk_ec2::types::Instance) -> Instance {
    let state = found.state().and_then(|s| s.name()).map_or("", |n| n.as_str());
    let primary = found.network_interfaces().iter().find(|n| {
        n.attachment().and_then(aws_sdk_ec2::types::InstanceNetworkInterfaceAttachment::device_index) == Some(0)
    });
    Instance {
        id: found.instance_id().unwrap_or_default().into(),
        alive: matches!(state, "pending" | "running"),
        running: state == "running",
        interface: primary.and_then(|n| n.network_interface_id()).map(Into::into),
        zone: found.placement().and_then(|p| p.availability_zone()).map(Into::into),
        vpc: found.vpc_id().filter(|v| !v.is_empty()).map(Into::into),
        subnet: primary.and_then(|n| n.subnet_id()).map(Into::into),
        launched_at: found.launch_time().and_then(|t| Timestamp::new(t.secs(), 0).ok()),
    }
}

fn address(found: &aws_sdk_ec2::types::Address) -> Address {
    let text = |value: Option<&str>| value.filter(|t| !t.is_empty()).map(str::to_owned);
    Address {
        allocation: found.allocation_id().unwrap_or_default().into(),
        ip: found.public_ip().unwrap_or_default().into(),
        association: text(found.association_id()),
        holder: text(found.instance_id()),
    }
}
