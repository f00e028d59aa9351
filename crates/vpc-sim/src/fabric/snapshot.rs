//! The picture that the kernel is to match: what is attached where, and what is delivered to it.
//!
//! Plain data. Must not know the kernel, nor how the picture came about.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::netns::NetnsName;

/// One VPC at one moment. Several are one network here: their addresses must differ, and nothing
/// keeps them apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VpcSnapshot {
    /// The VPC's blocks of both families. Packets to addresses in them that nobody has vanish
    /// without an ICMP error, as in a VPC.
    pub cidrs: BTreeSet<IpNet>,
    /// Instances with a body. No two share a namespace.
    pub instances: Vec<Instance>,
}

/// An instance and its attached ENIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its network namespace; made if there is none of that name.
    pub netns: NetnsName,
    /// In any order; ENIs that are still attaching or already detaching do not belong here.
    pub enis: Vec<AttachedEni>,
}

/// An ENI in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedEni {
    /// Such as `eni-0123456789abcdef0`, without blanks; part of the alias of the fabric's device.
    pub id: String,
    /// Of the device that the instance sees. Unique in the fabric.
    pub mac: [u8; 6],
    /// Network card, 0 on most instance types.
    pub network_card: u16,
    /// Device index; 0 on card 0 is the primary ENI.
    pub device_index: u16,
    /// Primary private IPv4 address.
    pub primary: Ipv4Addr,
    /// The subnet's IPv4 block, which `primary` is of.
    pub subnet: Ipv4Net,
    /// What is delivered beside `primary`: secondary addresses (/32), IPv6 addresses (/128) and
    /// prefixes (/28, /80).
    pub assigned: BTreeSet<IpNet>,
    /// Whether packets from it must have one of its addresses as their source.
    pub source_dest_check: bool,
}

impl AttachedEni {
    /// Whether it is the one that an instance has from its start.
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
