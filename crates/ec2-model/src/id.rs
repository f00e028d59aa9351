//! EC2's resource ids and resource types.
//!
//! Parsing checks the form of an id. Only the model knows whether the resource exists.

use std::fmt;
use std::str::FromStr;

use address_plan::TaggableId;
use ec2_api::id;

use crate::error::ApiError;

id!(
    /// A VPC.
    VpcId, "vpc", "InvalidVpcID.Malformed"
);
id!(
    /// A subnet.
    SubnetId, "subnet", "InvalidSubnetID.Malformed"
);
id!(
    /// A security group.
    SecurityGroupId, "sg", "InvalidGroupId.Malformed"
);
id!(
    /// A network interface.
    EniId, "eni", "InvalidNetworkInterfaceId.Malformed"
);
id!(
    /// The attachment of one network interface to one instance.
    AttachmentId, "eni-attach", "InvalidNetworkInterfaceAttachmentId.Malformed"
);
id!(
    /// An instance.
    InstanceId, "i", "InvalidInstanceID.Malformed"
);
id!(
    /// The group of instances that one RunInstances call started.
    ReservationId, "r", "InvalidReservationID.Malformed"
);
id!(
    /// A subnet CIDR reservation.
    CidrReservationId, "scr", "InvalidSubnetCidrReservationID.Malformed"
);
id!(
    /// The association of a CIDR block with a VPC.
    VpcCidrAssociationId, "vpc-cidr-assoc", "InvalidVpcCidrBlockAssociationID.Malformed"
);
id!(
    /// The association of an IPv6 CIDR block with a subnet.
    SubnetCidrAssociationId, "subnet-cidr-assoc", "InvalidSubnetCidrBlockAssociationID.Malformed"
);

id!(
    /// An Elastic IP address.
    AllocationId, "eipalloc", "InvalidAllocationID.Malformed"
);
id!(
    /// The association of a public address with a private one.
    AddressAssociationId, "eipassoc", "InvalidAssociationID.Malformed"
);
id!(
    /// A route table.
    RouteTableId, "rtb", "InvalidRouteTableId.Malformed"
);
id!(
    /// The association of a route table with a subnet, or with its VPC.
    RouteTableAssociationId, "rtbassoc", "InvalidRouteTableAssociationId.Malformed"
);
id!(
    /// The internet gateway of a VPC.
    InternetGatewayId, "igw", "InvalidInternetGatewayId.Malformed"
);
id!(
    /// A NAT gateway.
    NatGatewayId, "nat", "InvalidNatGatewayID.Malformed"
);
id!(
    /// A peering connection of two VPCs.
    PeeringId, "pcx", "InvalidVpcPeeringConnectionId.Malformed"
);

id!(
    /// The default network ACL of a VPC.
    NetworkAclId, "acl", "InvalidNetworkAclID.Malformed"
);
id!(
    /// The association of a network ACL with a subnet.
    NetworkAclAssociationId, "aclassoc", "InvalidNetworkAclAssociationId.Malformed"
);

/// The kinds of resources that calls tag at creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `instance`
    Instance,
    /// `network-interface`
    NetworkInterface,
    /// `security-group`
    SecurityGroup,
    /// `subnet`
    Subnet,
    /// `subnet-cidr-reservation`
    SubnetCidrReservation,
    /// `vpc`
    Vpc,
}

impl ResourceType {
    const ALL: [Self; 6] = [
        Self::Instance,
        Self::NetworkInterface,
        Self::SecurityGroup,
        Self::Subnet,
        Self::SubnetCidrReservation,
        Self::Vpc,
    ];

    /// EC2's name of the kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::NetworkInterface => "network-interface",
            Self::SecurityGroup => "security-group",
            Self::Subnet => "subnet",
            Self::SubnetCidrReservation => "subnet-cidr-reservation",
            Self::Vpc => "vpc",
        }
    }
}

impl FromStr for ResourceType {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let why = "not a valid taggable resource type for this operation.";
            ApiError::parameter_value(format!("'{text}' is {why}"))
        })
    }
}

/// The id of a taggable resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceId {
    /// An instance.
    Instance(InstanceId),
    /// A network interface.
    NetworkInterface(EniId),
    /// A security group.
    SecurityGroup(SecurityGroupId),
    /// A subnet.
    Subnet(SubnetId),
    /// A subnet CIDR reservation.
    SubnetCidrReservation(CidrReservationId),
    /// A VPC.
    Vpc(VpcId),
    /// An object of Amazon VPC IPAM.
    Plan(TaggableId),
}

impl ResourceId {
    /// `resourceType`
    #[must_use]
    pub const fn resource_type(&self) -> &'static str {
        match self {
            Self::Instance(_) => ResourceType::Instance.as_str(),
            Self::NetworkInterface(_) => ResourceType::NetworkInterface.as_str(),
            Self::SecurityGroup(_) => ResourceType::SecurityGroup.as_str(),
            Self::Subnet(_) => ResourceType::Subnet.as_str(),
            Self::SubnetCidrReservation(_) => ResourceType::SubnetCidrReservation.as_str(),
            Self::Vpc(_) => ResourceType::Vpc.as_str(),
            Self::Plan(id) => id.resource_type(),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Instance(id) => id.as_str(),
            Self::NetworkInterface(id) => id.as_str(),
            Self::SecurityGroup(id) => id.as_str(),
            Self::Subnet(id) => id.as_str(),
            Self::SubnetCidrReservation(id) => id.as_str(),
            Self::Vpc(id) => id.as_str(),
            Self::Plan(id) => id.as_str(),
        }
    }
}

impl FromStr for ResourceId {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let prefix = text.rsplit_once('-').map_or(text, |(prefix, _)| prefix);
        match prefix {
            InstanceId::PREFIX => text.parse().map(Self::Instance),
            EniId::PREFIX => text.parse().map(Self::NetworkInterface),
            SecurityGroupId::PREFIX => text.parse().map(Self::SecurityGroup),
            SubnetId::PREFIX => text.parse().map(Self::Subnet),
            CidrReservationId::PREFIX => text.parse().map(Self::SubnetCidrReservation),
            VpcId::PREFIX => text.parse().map(Self::Vpc),
            _ => text.parse().map(Self::Plan),
        }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_parsing_checks_form() {
        let check = |text: &str, expect: Result<(), &str>| {
            let got = text.parse::<EniId>().map(|_| ()).map_err(|error| error.code);
            assert_eq!(got, expect.map_err(str::to_owned), "{text}");
        };
        check("eni-0a1b2c3d4e5f60718", Ok(()));
        check("eni-0a1b2c3d", Ok(()));
        check("eni-0a1b2c3d4e5f6071", Err("InvalidNetworkInterfaceId.Malformed"));
        check("eni-0A1B2C3D4E5F60718", Err("InvalidNetworkInterfaceId.Malformed"));
        check("subnet-0a1b2c3d4e5f60718", Err("InvalidNetworkInterfaceId.Malformed"));
        check("", Err("InvalidNetworkInterfaceId.Malformed"));
        assert_eq!(EniId::from_number(0x1f).as_str(), "eni-0000000000000001f");
    }

    #[test]
    fn resource_id_kind_follows_from_prefix() {
        let check = |text: &str, expect: Result<&str, &str>| {
            let got = text.parse::<ResourceId>().map(|id| id.resource_type());
            let got = got.map_err(|error| error.code);
            assert_eq!(got, expect.map_err(str::to_owned), "{text}");
        };
        check("i-0a1b2c3d", Ok("instance"));
        check("scr-0a1b2c3d", Ok("subnet-cidr-reservation"));
        check("ipam-pool-0a1b2c3d", Ok("ipam-pool"));
        check("ipam-foo", Err("InvalidIpamId.Malformed"));
        check("vpc-foo", Err("InvalidVpcID.Malformed"));
        check("igw-0a1b2c3d", Err("InvalidID"));
        check("rubbish", Err("InvalidID"));
    }
}
