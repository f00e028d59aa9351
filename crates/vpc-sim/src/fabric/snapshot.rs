//! The state of a VPC that the kernel must match: attached ENIs and the addresses delivered to
//! them.
//!
//! Plain data. It must not know the kernel, nor where the data come from.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::gateway::Routing;
use super::netns::NetnsName;

/// The state of all VPCs at one time. They share the fabric, so their addresses must differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VpcSnapshot {
    /// The VPC's blocks of both families. Packets to unassigned addresses in them vanish without an
    /// ICMP error, as in a VPC.
    pub cidrs: BTreeSet<IpNet>,
    /// Instances with real devices. No two share a namespace.
    pub instances: Vec<Instance>,
    /// What passes between VPCs and to the outside.
    pub routing: Routing,
}

/// An instance and its attached ENIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its network namespace, which is made if it does not exist.
    pub netns: NetnsName,
    /// Attached ENIs in any order, without those that are attaching or detaching.
    pub enis: Vec<AttachedEni>,
}

/// An attached ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedEni {
    /// For example `eni-0123456789abcdef0`, without blanks. The alias of the fabric's device
    /// contains it.
    pub id: String,
    /// MAC address of the instance's device. Unique in the fabric.
    pub mac: [u8; 6],
    /// Network card, 0 on most instance types.
    pub network_card: u16,
    /// Device index.
    pub device_index: u16,
    /// Whether the instance boots from it.
    pub is_primary: bool,
    /// Primary private IPv4 address, with the prefix length of its subnet. `None` in an IPv6-only
    /// subnet.
    pub ipv4: Option<Ipv4Net>,
    /// Addresses delivered in addition to `ipv4`: secondary addresses (/32), IPv6 addresses
    /// (/128) and prefixes (/28, /80).
    pub assigned: BTreeSet<IpNet>,
    /// Whether the subnet has an IPv6 block, so that the router advertises itself there.
    pub in_ipv6_subnet: bool,
    /// Whether its packets must have one of its addresses as their source.
    pub source_dest_check: bool,
}

impl AttachedEni {
    /// The VPC router's IPv4 address in the subnet.
    #[must_use]
    pub fn router(&self) -> Option<Ipv4Addr> {
        self.ipv4.map(router)
    }
}

/// The address of a VPC's router in a subnet: base + 1.
pub(super) fn router(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits() | 1)
}
