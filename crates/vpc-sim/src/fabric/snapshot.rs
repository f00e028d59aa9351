//! The state of a VPC that the kernel must match: attached ENIs and the addresses delivered to
//! them.
//!
//! Plain data. It must not know the kernel, nor where the data come from.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::netns::NetnsName;

/// The state of a VPC at one time. Several VPCs are one network here, so their addresses must
/// differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VpcSnapshot {
    /// The VPC's blocks of both families. Packets to unassigned addresses in them vanish without an
    /// ICMP error, as in a VPC.
    pub cidrs: BTreeSet<IpNet>,
    /// Instances with real devices. No two share a namespace.
    pub instances: Vec<Instance>,
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
    /// Device index; 0 on card 0 is the primary ENI.
    pub device_index: u16,
    /// Primary private IPv4 address.
    pub primary: Ipv4Addr,
    /// The subnet's IPv4 block, which contains `primary`.
    pub subnet: Ipv4Net,
    /// Addresses delivered in addition to `primary`: secondary addresses (/32), IPv6 addresses
    /// (/128) and prefixes (/28, /80).
    pub assigned: BTreeSet<IpNet>,
    /// Whether the subnet has an IPv6 block, so that the router advertises itself there.
    pub in_ipv6_subnet: bool,
    /// Whether its packets must have one of its addresses as their source.
    pub source_dest_check: bool,
}

impl AttachedEni {
    /// Whether it is the instance's primary ENI.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.network_card == 0 && self.device_index == 0
    }

    /// The VPC router's address in the subnet: base + 1.
    #[must_use]
    pub fn router(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet.network().to_bits() | 1)
    }
}
