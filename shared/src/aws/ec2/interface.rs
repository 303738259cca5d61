//! Network interfaces and subnets, as plain data.

use std::net::Ipv4Addr;

use aws_sdk_ec2::types;

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its id.
    pub id: String,
    /// Its primary private address.
    pub ip: String,
    /// The zone it can be attached in.
    pub zone: String,
    /// Present while it is attached, being attached or being detached.
    pub attachment: Option<Attachment>,
}

/// The attachment of an interface to an instance. Its id is new with every attachment, so that a late call about an old one does
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its id.
    pub id: String,
    /// The instance; `None` where the interface belongs to a service of AWS.
    pub instance: Option<String>,
    /// Place on the instance.
    pub device_index: u32,
    /// How far it is.
    pub state: AttachmentState,
    /// Whether the interface is deleted together with the instance.
    pub delete_on_termination: bool,
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttachmentState {
    /// `attaching`
    Attaching,
    /// `attached`
    Attached,
    /// `detaching`
    Detaching,
}

/// One subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// Its block, as AWS writes it.
    pub block: String,
    network: u32,
    mask: u32,
}

impl Subnet {
    /// A subnet; `None` when `block` is no IPv4 block such as `10.0.1.0/24`.
    pub fn new(id: &str, block: &str) -> Option<Self> {
        let (network, length) = block.split_once('/')?;
        let length = length.parse::<u32>().ok().filter(|l| (1..=32).contains(l))?;
        let (network, mask) = (network.parse::<Ipv4Addr>().ok()?.to_bits(), u32::MAX << (32 - length));
        Some(Self { id: id.into(), block: block.into(), network: network & mask, mask })
    }

    /// Whether an instance of the subnet can have the address: AWS keeps the first four and the last one for itself.
    pub fn can_have(&self, address: Ipv4Addr) -> bool {
        let (place, last) = (address.to_bits() & !self.mask, !self.mask);
        address.to_bits() & self.mask == self.network && place > 3 && place < last
    }
}

impl From<&types::NetworkInterface> for Interface {
    fn from(found: &types::NetworkInterface) -> Self {
        Self {
            id: found.network_interface_id().unwrap_or_default().into(),
            ip: found.private_ip_address().unwrap_or_default().into(),
            zone: found.availability_zone().unwrap_or_default().into(),
            attachment: found.attachment().and_then(attachment),
        }
    }
}

fn attachment(found: &types::NetworkInterfaceAttachment) -> Option<Attachment> {
    let state = match found.status().map_or("", |s| s.as_str()) {
        "detached" => return None,
        "attaching" => AttachmentState::Attaching,
        "detaching" => AttachmentState::Detaching,
        _ => AttachmentState::Attached,
    };
    Some(Attachment {
        id: found.attachment_id()?.into(),
        instance: found.instance_id().filter(|i| !i.is_empty()).map(Into::into),
        device_index: found.device_index().and_then(|i| u32::try_from(i).ok()).unwrap_or_default(),
        state,
        delete_on_termination: found.delete_on_termination().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_knows_which_addresses_its_instances_can_have() {
        let subnet = Subnet::new("subnet-1", "10.0.1.0/24").expect("a block");
        for (address, wanted) in [
            ("10.0.1.50", true),
            ("10.0.1.4", true),
            ("10.0.1.254", true),
            ("10.0.1.0", false),
            ("10.0.1.3", false),
            ("10.0.1.255", false),
            ("10.0.2.50", false),
        ] {
            assert_eq!(subnet.can_have(address.parse().expect("an address")), wanted, "{address}");
        }
        for bad in ["10.0.1.0", "10.0.1.0/33", "10.0.1.0/0", "10.0.1/24", "fd00::/64"] {
            assert_eq!(Subnet::new("subnet-1", bad), None, "{bad}");
        }
    }
}
