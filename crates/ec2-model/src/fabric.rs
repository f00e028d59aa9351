//! The network that the model wants now: the ENIs and addresses of each instance.
//!
//! A server that builds devices and routes compares this with the kernel. The model itself knows no
//! kernel.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mac::MacAddr;
use serde::Serialize;

use crate::id::{EniId, InstanceId, SubnetId, VpcId};

/// The whole network. Instances ascend by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fabric {
    /// The instances that are pending or running.
    pub instances: Vec<FabricInstance>,
    /// All VPCs, by id.
    pub vpcs: Vec<FabricVpc>,
}

/// One VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FabricVpc {
    /// Its id.
    pub id: VpcId,
    /// All blocks of the VPC, primary first.
    pub cidrs: Vec<IpNet>,
    /// Its subnets, by id.
    pub subnets: Vec<FabricSubnet>,
}

/// One subnet, with the routes that lead out of its VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FabricSubnet {
    /// Its id.
    pub id: SubnetId,
    /// Its blocks, IPv4 first.
    pub cidrs: Vec<IpNet>,
    /// The routes by destination. A route that leads nowhere is left out.
    pub routes: BTreeMap<IpNet, FabricRoute>,
}

/// The target of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FabricRoute {
    /// To the outside. IPv4 needs a public address.
    InternetGateway,
    /// To the outside, by IPv4 only.
    NatGateway {
        /// The source address that the outside sees.
        public: Ipv4Addr,
    },
    /// To another VPC.
    Peering,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FabricInstance {
    /// Its id.
    pub id: InstanceId,
    /// All blocks of the VPC, primary first.
    pub vpc_id: VpcId,
    /// All blocks of the VPC, primary first.
    pub vpc_cidrs: Vec<IpNet>,
    /// The attached ENIs, whose devices are there, by network card, then device index.
    pub enis: Vec<FabricEni>,
}

/// One attached ENI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FabricEni {
    /// Its id.
    pub id: EniId,
    /// MAC address of the device.
    pub mac: MacAddr,
    /// Device index on its card.
    pub device_index: u16,
    /// Network card.
    pub network_card: u16,
    /// Whether the instance booted from it.
    pub is_primary: bool,
    /// Its subnet.
    pub subnet_id: SubnetId,
    /// IPv4 block of the subnet, unless the subnet is IPv6 only. The gateway is its second address.
    pub subnet_cidr: Option<Ipv4Net>,
    /// IPv6 block of the subnet.
    pub subnet_ipv6_cidr: Option<Ipv6Net>,
    /// The primary address. `None` in an IPv6-only subnet.
    pub primary: Option<Ipv4Addr>,
    /// Public addresses by the private address that they stand for.
    pub public: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Secondary addresses.
    pub secondaries: Vec<Ipv4Addr>,
    /// /28 prefixes.
    pub prefixes: Vec<Ipv4Net>,
    /// IPv6 addresses.
    pub ipv6_addresses: Vec<Ipv6Addr>,
    /// /80 prefixes.
    pub ipv6_prefixes: Vec<Ipv6Net>,
    /// Whether each packet must have an address of this ENI as its source or destination.
    pub source_dest_check: bool,
}
