//! `endpoint`: which kind of address, and which one.
//!
//! A key that belongs to another kind is refused like an unknown one: it would be ignored, and somebody relies on it.

use std::net::Ipv4Addr;

use serde::Deserialize;

use super::parse::{Check, SettingsError};

/// The stable address that clients use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An Elastic IP: public, moves anywhere in the region.
    ElasticIp(ElasticIp),
    /// A network interface with its fixed private address: moves within its zone.
    NetworkInterface(NetworkInterface),
    /// A secondary private address on the instance's primary interface: moves within its subnet.
    PrivateIp(Ipv4Addr),
}

/// Which Elastic IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElasticIp {
    /// By allocation id.
    Allocation(String),
    /// By tag; one is allocated and tagged when none has it and `allocate` is set.
    Tag {
        /// Tag key.
        key: String,
        /// Tag value.
        value: String,
        /// Whether one may be allocated.
        allocate: bool,
    },
}

/// Which network interface, and where it is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInterface {
    /// Which one.
    pub which: WhichInterface,
    /// Device index on the instance; never 0, which is the instance's own interface.
    pub device_index: u32,
}

/// Which network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichInterface {
    /// By id.
    Id(String),
    /// By tag.
    Tag {
        /// Tag key.
        key: String,
        /// Tag value.
        value: String,
    },
}

const KINDS: [&str; 3] = ["elastic_ip", "network_interface", "private_ip"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndpoint {
    kind: String,
    allocation_id: Option<String>,
    network_interface_id: Option<String>,
    tag: Option<RawTag>,
    allocate: Option<bool>,
    device_index: Option<u32>,
    address: Option<String>,
    interface: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTag {
    key: String,
    value: String,
}

impl RawEndpoint {
    pub(super) fn check(self, check: &Check) -> Result<Endpoint, SettingsError> {
        check.that(KINDS.contains(&&*self.kind), "endpoint.kind", &format!("one of: {}", KINDS.join(", ")))?;
        self.only_keys_of_its_kind(check)?;
        match self.kind.as_str() {
            "elastic_ip" => self.elastic_ip(check).map(Endpoint::ElasticIp),
            "network_interface" => self.network_interface(check).map(Endpoint::NetworkInterface),
            _ => self.private_ip(check).map(Endpoint::PrivateIp),
        }
    }

    fn only_keys_of_its_kind(&self, check: &Check) -> Result<(), SettingsError> {
        let rows: [(&str, bool, &[&str]); 7] = [
            ("allocation_id", self.allocation_id.is_some(), &["elastic_ip"]),
            ("network_interface_id", self.network_interface_id.is_some(), &["network_interface"]),
            ("tag", self.tag.is_some(), &["elastic_ip", "network_interface"]),
            ("allocate", self.allocate.is_some(), &["elastic_ip"]),
            ("device_index", self.device_index.is_some(), &["network_interface"]),
            ("address", self.address.is_some(), &["private_ip"]),
            ("interface", self.interface.is_some(), &["private_ip"]),
        ];
        for (key, given, kinds) in rows {
            let fits = !given || kinds.contains(&self.kind.as_str());
            check.that(fits, &format!("endpoint.{key}"), &format!("it goes only with kind: {}", kinds.join(" or ")))?;
        }
        Ok(())
    }

    fn elastic_ip(self, check: &Check) -> Result<ElasticIp, SettingsError> {
        let allocate = self.allocate.unwrap_or_default();
        match (self.allocation_id, self.tag) {
            (Some(id), None) => {
                check.that(id.starts_with("eipalloc-"), "endpoint.allocation_id", "an allocation id: eipalloc-…")?;
                check.that(
                    !allocate,
                    "endpoint.allocate",
                    "false with allocation_id: only a tag can be given to a new address",
                )?;
                Ok(ElasticIp::Allocation(id))
            }
            (None, Some(tag)) => Ok(ElasticIp::Tag { key: tag.key, value: tag.value, allocate }),
            _ => Err(check.error("endpoint", "exactly one of: allocation_id, tag {key, value}")),
        }
    }

    fn network_interface(self, check: &Check) -> Result<NetworkInterface, SettingsError> {
        let device_index = self.device_index.unwrap_or(1);
        check.that(
            (1..=31).contains(&device_index),
            "endpoint.device_index",
            "1 to 31; 0 is the instance's own interface, which cannot move",
        )?;
        let which = match (self.network_interface_id, self.tag) {
            (Some(id), None) => {
                let key = "endpoint.network_interface_id";
                check.that(id.starts_with("eni-"), key, "the id of a network interface: eni-…")?;
                WhichInterface::Id(id)
            }
            (None, Some(tag)) => WhichInterface::Tag { key: tag.key, value: tag.value },
            _ => return Err(check.error("endpoint", "exactly one of: network_interface_id, tag {key, value}")),
        };
        Ok(NetworkInterface { which, device_index })
    }

    fn private_ip(self, check: &Check) -> Result<Ipv4Addr, SettingsError> {
        let interface = self.interface.as_deref().unwrap_or("primary");
        check.that(interface == "primary", "endpoint.interface", "one of: primary")?;
        let address = self.address.as_deref().and_then(|a| a.parse::<Ipv4Addr>().ok());
        address.filter(|a| usable(*a)).ok_or_else(|| {
            check.error("endpoint.address", "a private IPv4 address of the group's subnet, such as 10.0.1.50")
        })
    }
}

/// A VPC may use public ranges too, so only what no instance can have is refused.
fn usable(address: Ipv4Addr) -> bool {
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    fn endpoint(text: &str) -> Result<Endpoint, String> {
        let text = format!("{{name: t, engine: weaviate, repository: 'file:///b', endpoint: {{{text}}}}}");
        parse("t.yaml", &text).map(|t| t.endpoint.expect("an endpoint")).map_err(|e| e.to_string())
    }

    #[test]
    fn every_kind_can_be_set() {
        let tag = || ("Name".to_owned(), "docs".to_owned());
        let rows = [
            (
                "kind: elastic_ip, allocation_id: eipalloc-1",
                Endpoint::ElasticIp(ElasticIp::Allocation("eipalloc-1".into())),
            ),
            (
                "kind: elastic_ip, tag: {key: Name, value: docs}, allocate: true",
                Endpoint::ElasticIp(ElasticIp::Tag { key: tag().0, value: tag().1, allocate: true }),
            ),
            (
                "kind: network_interface, network_interface_id: eni-1",
                Endpoint::NetworkInterface(NetworkInterface {
                    which: WhichInterface::Id("eni-1".into()),
                    device_index: 1,
                }),
            ),
            (
                "kind: network_interface, tag: {key: Name, value: docs}, device_index: 2",
                Endpoint::NetworkInterface(NetworkInterface {
                    which: WhichInterface::Tag { key: tag().0, value: tag().1 },
                    device_index: 2,
                }),
            ),
            ("kind: private_ip, address: 10.0.1.50", Endpoint::PrivateIp(Ipv4Addr::new(10, 0, 1, 50))),
            (
                "kind: private_ip, address: 10.0.1.50, interface: primary",
                Endpoint::PrivateIp(Ipv4Addr::new(10, 0, 1, 50)),
            ),
        ];
        for (text, wanted) in rows {
            assert_eq!(endpoint(text), Ok(wanted), "{text}");
        }
    }

    /// One bad value a row: the section, the key named, and a word of what is allowed.
    #[test]
    fn a_bad_value_is_named_with_its_key() {
        let rows = [
            ("kind: floating_ip", "endpoint.kind", "one of: elastic_ip, network_interface, private_ip"),
            ("kind: ip", "endpoint.kind", "one of: elastic_ip"),
            ("kind: elastic_ip", "endpoint", "exactly one of: allocation_id"),
            ("kind: elastic_ip, allocation_id: eni-1", "endpoint.allocation_id", "eipalloc-"),
            ("kind: elastic_ip, allocation_id: eipalloc-1, allocate: true", "endpoint.allocate", "only a tag"),
            (
                "kind: elastic_ip, allocation_id: eipalloc-1, device_index: 1",
                "endpoint.device_index",
                "network_interface",
            ),
            ("kind: network_interface", "endpoint", "exactly one of: network_interface_id"),
            ("kind: network_interface, network_interface_id: eipalloc-1", "endpoint.network_interface_id", "eni-"),
            (
                "kind: network_interface, network_interface_id: eni-1, tag: {key: a, value: b}",
                "endpoint",
                "exactly one",
            ),
            (
                "kind: network_interface, network_interface_id: eni-1, device_index: 0",
                "endpoint.device_index",
                "1 to 31",
            ),
            ("kind: network_interface, network_interface_id: eni-1, device_index: -1", "endpoint.device_index", "u32"),
            ("kind: network_interface, network_interface_id: eni-1, allocate: true", "endpoint.allocate", "elastic_ip"),
            ("kind: private_ip", "endpoint.address", "private IPv4 address"),
            ("kind: private_ip, address: 10.0.1.256", "endpoint.address", "private IPv4 address"),
            ("kind: private_ip, address: 127.0.0.1", "endpoint.address", "private IPv4 address"),
            ("kind: private_ip, address: 10.0.1.50, interface: eth1", "endpoint.interface", "one of: primary"),
            (
                "kind: private_ip, address: 10.0.1.50, tag: {key: a, value: b}",
                "endpoint.tag",
                "elastic_ip or network_interface",
            ),
            ("kind: private_ip, adress: 10.0.1.50", "endpoint.adress", "unknown field"),
        ];
        for (text, key, allowed) in rows {
            let error = endpoint(text).expect_err(text);
            assert!(error.starts_with(&format!("t.yaml: {key}: ")), "{text}: {error}");
            assert!(error.contains(allowed), "{text}: {error}");
        }
    }
}
