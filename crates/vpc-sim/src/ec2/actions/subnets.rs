//! Subnets and their CIDR reservations on the wire.

use ec2_model::ApiError;
use ec2_model::request::{
    Action, CreateSubnet, CreateSubnetCidrReservation, DeleteSubnet, DeleteSubnetCidrReservation,
    DescribeSubnets, GetSubnetCidrReservations, ModifySubnetAttribute,
};
use ec2_model::response::{Page, Subnet, SubnetCidrReservation};
use ipnet::IpNet;

use super::{Params, Read, Xml, dry_run, from_pool, listing, tag_set, tag_specifications};

impl Read for DescribeSubnets {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            subnet_ids: params.list("SubnetId")?,
            listing: listing(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for CreateSubnet {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            vpc_id: params.required_as("VpcId")?,
            cidr_block: params.address("CidrBlock")?,
            ipv4_pool: from_pool(params, "Ipv4")?,
            ipv6_cidr_block: params.address("Ipv6CidrBlock")?,
            ipv6_pool: from_pool(params, "Ipv6")?,
            ipv6_native: params.flag("Ipv6Native")?.unwrap_or_default(),
            availability_zone: params.text("AvailabilityZone"),
            availability_zone_id: params.text("AvailabilityZoneId"),
            tag_specifications: tag_specifications(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for DeleteSubnet {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { subnet_id: params.required_as("SubnetId")?, dry_run: dry_run(params)? })
    }
}

impl Read for ModifySubnetAttribute {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            subnet_id: params.required_as("SubnetId")?,
            assign_ipv6_address_on_creation: params.flag("AssignIpv6AddressOnCreation.Value")?,
            map_public_ip_on_launch: params.flag("MapPublicIpOnLaunch.Value")?,
        })
    }
}

impl Read for CreateSubnetCidrReservation {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            subnet_id: params.required_as("SubnetId")?,
            cidr: params.required_address("Cidr")?,
            reservation_type: params.required_as("ReservationType")?,
            description: params.text("Description").unwrap_or_default(),
            tag_specifications: tag_specifications(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for GetSubnetCidrReservations {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            subnet_id: params.required_as("SubnetId")?,
            listing: listing(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for DeleteSubnetCidrReservation {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            reservation_id: params.required_as("SubnetCidrReservationId")?,
            dry_run: dry_run(params)?,
        })
    }
}

pub(super) fn subnet(xml: &mut Xml, subnet: &Subnet) {
    xml.text("subnetId", &subnet.id);
    xml.text("subnetArn", &subnet.arn);
    xml.text("state", "available");
    xml.text("ownerId", &subnet.owner_id);
    xml.text("vpcId", &subnet.vpc_id);
    xml.optional("cidrBlock", subnet.cidr_block);
    xml.set("ipv6CidrBlockAssociationSet", &subnet.ipv6, |xml, association| {
        xml.text("associationId", &association.association_id);
        xml.text("ipv6CidrBlock", association.cidr);
        xml.node("ipv6CidrBlockState", |xml| xml.text("state", "associated"));
    });
    xml.text("availableIpAddressCount", subnet.available_ip_address_count);
    xml.text("availabilityZone", &subnet.availability_zone);
    xml.text("availabilityZoneId", &subnet.availability_zone_id);
    xml.text("assignIpv6AddressOnCreation", subnet.assign_ipv6_address_on_creation);
    let is_ipv6_only = subnet.cidr_block.is_none();
    xml.text("ipv6Native", is_ipv6_only);
    xml.text("mapPublicIpOnLaunch", subnet.map_public_ip_on_launch);
    for what_is_not_simulated in ["defaultForAz", "enableDns64"] {
        xml.text(what_is_not_simulated, false);
    }
    xml.node("privateDnsNameOptionsOnLaunch", |xml| {
        xml.text("hostnameType", if is_ipv6_only { "resource-name" } else { "ip-name" });
        xml.text("enableResourceNameDnsARecord", false);
        xml.text("enableResourceNameDnsAAAARecord", false);
    });
    tag_set(xml, &subnet.tags);
}

/// The answer of CreateSubnetCidrReservation and of DeleteSubnetCidrReservation.
pub(super) fn one_reservation(xml: &mut Xml, action: Action, one: &SubnetCidrReservation) {
    let deleted = action == Action::DeleteSubnetCidrReservation;
    let name = if deleted { "deletedSubnetCidrReservation" } else { "subnetCidrReservation" };
    xml.node(name, |xml| reservation(xml, one));
}

pub(super) fn reservations(xml: &mut Xml, page: &Page<SubnetCidrReservation>) {
    let (ipv4, ipv6): (Vec<_>, Vec<_>) =
        page.items.iter().partition(|one| matches!(one.cidr, IpNet::V4(_)));
    xml.set("subnetIpv4CidrReservationSet", ipv4, reservation);
    xml.set("subnetIpv6CidrReservationSet", ipv6, reservation);
    xml.optional("nextToken", page.next_token.as_ref());
}

fn reservation(xml: &mut Xml, reservation: &SubnetCidrReservation) {
    xml.text("subnetCidrReservationId", &reservation.id);
    xml.text("subnetId", &reservation.subnet_id);
    xml.text("cidr", reservation.cidr);
    xml.text("reservationType", reservation.reservation_type.as_str());
    xml.text("ownerId", &reservation.owner_id);
    xml.text("description", &reservation.description);
    tag_set(xml, &reservation.tags);
}
