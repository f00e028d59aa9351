//! What a topology puts into a model before any client calls.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::id::{InstanceId, SecurityGroupId, SubnetId, VpcId};
use crate::response::Tags;

/// A VPC. Gets a default security group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VpcSeed {
    /// Made up if absent.
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
    /// Made up if absent.
    pub id: Option<SubnetId>,
    /// Of this VPC.
    pub vpc: VpcId,
    /// For example `us-east-1a`.
    pub availability_zone: String,
    /// Within a block of the VPC.
    pub cidr: Ipv4Net,
    /// A /64 within a block of the VPC.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// Whether a new ENI gets an IPv6 address unasked.
    pub assign_ipv6_address_on_creation: bool,
    /// What something else in the VPC already uses: single addresses or whole ranges.
    pub used: Vec<Ipv4Net>,
    /// Its tags.
    pub tags: Tags,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroupSeed {
    /// Made up if absent.
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
    /// Made up if absent.
    pub id: Option<InstanceId>,
    /// For example `m5.large`.
    pub instance_type: String,
    /// Of the primary ENI.
    pub subnet: SubnetId,
    /// Of the primary ENI; EC2's choice if absent.
    pub primary_address: Option<Ipv4Addr>,
    /// Of the primary ENI; the VPC's default group if empty.
    pub groups: Vec<SecurityGroupId>,
    /// Its tags.
    pub tags: Tags,
}
