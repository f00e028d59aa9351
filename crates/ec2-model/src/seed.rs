//! Resources that exist in a model before the first call.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::id::{InstanceId, SecurityGroupId, SubnetId, VpcId};
use crate::response::Tags;

/// A VPC. It gets a default security group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VpcSeed {
    /// Generated if absent.
    pub id: Option<VpcId>,
    /// At least one; the first is the primary.
    pub cidrs: Vec<Ipv4Net>,
    /// A /44 to /60.
    pub ipv6_cidrs: Vec<Ipv6Net>,
    /// Its tags.
    pub tags: Tags,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSeed {
    /// Generated if absent.
    pub id: Option<SubnetId>,
    /// Of this VPC.
    pub vpc: VpcId,
    /// For example `us-east-1a`.
    pub availability_zone: String,
    /// Within a block of the VPC. The subnet is IPv6 only if absent.
    pub cidr: Option<Ipv4Net>,
    /// A /64 within a block of the VPC.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// Whether a new ENI gets an IPv6 address without a request for one.
    pub assign_ipv6_address_on_creation: bool,
    /// Whether a new instance gets a public address.
    pub map_public_ip_on_launch: bool,
    /// Single addresses or ranges that other resources of the VPC use.
    pub used: Vec<Ipv4Net>,
    /// Its tags.
    pub tags: Tags,
}

impl SubnetSeed {
    /// A subnet without blocks, options and tags.
    #[must_use]
    pub fn in_zone(vpc: VpcId, availability_zone: impl Into<String>) -> Self {
        Self {
            id: None,
            vpc,
            availability_zone: availability_zone.into(),
            cidr: None,
            ipv6_cidr: None,
            assign_ipv6_address_on_creation: false,
            map_public_ip_on_launch: false,
            used: Vec::new(),
            tags: Tags::new(),
        }
    }
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroupSeed {
    /// Generated if absent.
    pub id: Option<SecurityGroupId>,
    /// Of this VPC.
    pub vpc: VpcId,
    /// Unique in its VPC.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Its tags.
    pub tags: Tags,
}

/// A running instance with its primary ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSeed {
    /// Generated if absent.
    pub id: Option<InstanceId>,
    /// For example `m5.large`.
    pub instance_type: String,
    /// The subnet of the primary ENI.
    pub subnet: SubnetId,
    /// Device index of the primary ENI. It is 0 except on some managed instances, such as those of
    /// SageMaker HyperPod.
    pub device_index: u16,
    /// The primary address of the primary ENI. EC2 chooses it if absent.
    pub primary_address: Option<Ipv4Addr>,
    /// An IPv6 address of the primary ENI. The subnet's settings decide if absent.
    pub ipv6_address: Option<Ipv6Addr>,
    /// An Elastic IP address for the primary address.
    pub public_address: Option<Ipv4Addr>,
    /// The security groups of the primary ENI. If empty, the VPC's default group.
    pub groups: Vec<SecurityGroupId>,
    /// Its tags.
    pub tags: Tags,
}

impl InstanceSeed {
    /// An instance whose id and addresses EC2 chooses.
    #[must_use]
    pub fn in_subnet(instance_type: impl Into<String>, subnet: SubnetId) -> Self {
        Self {
            id: None,
            instance_type: instance_type.into(),
            subnet,
            device_index: 0,
            primary_address: None,
            ipv6_address: None,
            public_address: None,
            groups: Vec::new(),
            tags: Tags::new(),
        }
    }
}
