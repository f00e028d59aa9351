//! Resources that exist in a model before the first call.

use std::net::Ipv4Addr;

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
    /// Within a block of the VPC.
    pub cidr: Ipv4Net,
    /// A /64 within a block of the VPC.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// Whether a new ENI gets an IPv6 address without a request for one.
    pub assign_ipv6_address_on_creation: bool,
    /// Single addresses or ranges that other resources of the VPC use.
    pub used: Vec<Ipv4Net>,
    /// Its tags.
    pub tags: Tags,
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
    /// The primary address of the primary ENI. EC2 chooses it if absent.
    pub primary_address: Option<Ipv4Addr>,
    /// The security groups of the primary ENI. If empty, the VPC's default group.
    pub groups: Vec<SecurityGroupId>,
    /// Its tags.
    pub tags: Tags,
}
