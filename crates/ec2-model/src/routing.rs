//! Where the packets of a subnet may go: its route table.
//!
//! A subnet without routes of its own has the VPC's main table, which has the local routes alone.

use serde::{Deserialize, Serialize};

use crate::id::{PeeringId, SubnetId, VpcId};

/// The target of a route to seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteVia {
    /// The VPC's internet gateway.
    InternetGateway,
    /// The NAT gateway in this subnet.
    NatGateway(SubnetId),
    /// The peering with the VPC that has the destination.
    Peering,
}

/// The target of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    InternetGateway,
    NatGateway(SubnetId),
    Peering(VpcId),
}

/// The peering of two VPCs. Both give the same id.
pub(crate) fn peering_id(a: &VpcId, b: &VpcId) -> PeeringId {
    let digits = |id: &VpcId| {
        let text = id.as_str().trim_start_matches("vpc-");
        u128::from_str_radix(text, 16).expect("an id has hexadecimal digits")
    };
    PeeringId::from_number(digits(a) ^ digits(b))
}
