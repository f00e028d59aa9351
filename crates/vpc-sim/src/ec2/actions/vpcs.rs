//! VPCs, security groups and availability zones on the wire.

use ec2_model::ApiError;
use ec2_model::request::{
    AssociateVpcCidrBlock, CreateVpc, DeleteVpc, DescribeAvailabilityZones, DescribeSecurityGroups,
    DescribeVpcAttribute, DescribeVpcs, DisassociateVpcCidrBlock, ModifyVpcAttribute, VpcAttribute,
};
use ec2_model::response::{AvailabilityZone, SecurityGroup, Vpc, VpcCidrAssociation};
use ipnet::IpNet;

use super::{Params, Read, Xml, dry_run, filters, from_pool, listing, tag_set, tag_specifications};

impl Read for DescribeVpcs {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            vpc_ids: params.list("VpcId")?,
            listing: listing(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for CreateVpc {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        check_tenancy(params.text("InstanceTenancy"))?;
        Ok(Self {
            cidr_block: params.address("CidrBlock")?,
            ipv4_pool: from_pool(params, "Ipv4")?,
            amazon_provided_ipv6_cidr_block: amazon_provided_ipv6(params)?,
            ipv6_cidr_block: params.address("Ipv6CidrBlock")?,
            ipv6_pool: from_pool(params, "Ipv6")?,
            tag_specifications: tag_specifications(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for AssociateVpcCidrBlock {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            vpc_id: params.required_as("VpcId")?,
            cidr_block: params.address("CidrBlock")?,
            ipv4_pool: from_pool(params, "Ipv4")?,
            amazon_provided_ipv6_cidr_block: amazon_provided_ipv6(params)?,
            ipv6_cidr_block: params.address("Ipv6CidrBlock")?,
            ipv6_pool: from_pool(params, "Ipv6")?,
        })
    }
}

/// The model has no dedicated hosts.
fn check_tenancy(tenancy: Option<String>) -> Result<(), ApiError> {
    match tenancy.as_deref() {
        None | Some("default") => Ok(()),
        Some(other) => {
            Err(ApiError::invalid_value(other, "instanceTenancy", "It must be default."))
        }
    }
}

impl Read for DisassociateVpcCidrBlock {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { association_id: params.required_as("AssociationId")? })
    }
}

impl Read for DeleteVpc {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { vpc_id: params.required_as("VpcId")?, dry_run: dry_run(params)? })
    }
}

impl Read for DescribeVpcAttribute {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            vpc_id: params.required_as("VpcId")?,
            attribute: params.required_as("Attribute")?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for ModifyVpcAttribute {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let mut changes = Vec::new();
        for (name, attribute) in [
            ("EnableDnsSupport.Value", VpcAttribute::DnsSupport),
            ("EnableDnsHostnames.Value", VpcAttribute::DnsHostnames),
            ("EnableNetworkAddressUsageMetrics.Value", VpcAttribute::NetworkAddressUsageMetrics),
        ] {
            changes.extend(params.flag(name)?.map(|value| (attribute, value)));
        }
        Ok(Self { vpc_id: params.required_as("VpcId")?, changes })
    }
}

fn amazon_provided_ipv6(params: &mut Params) -> Result<bool, ApiError> {
    Ok(params.flag("AmazonProvidedIpv6CidrBlock")?.unwrap_or_default())
}

impl Read for DescribeSecurityGroups {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            group_ids: params.list("GroupId")?,
            group_names: params.texts("GroupName"),
            listing: listing(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for DescribeAvailabilityZones {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            zone_names: params.texts("ZoneName"),
            zone_ids: params.texts("ZoneId"),
            filters: filters(params)?,
            all_availability_zones: params.flag("AllAvailabilityZones")?.unwrap_or_default(),
            dry_run: dry_run(params)?,
        })
    }
}

pub(super) fn vpc(xml: &mut Xml, vpc: &Vpc) {
    xml.text("vpcId", &vpc.id);
    xml.text("ownerId", &vpc.owner_id);
    xml.text("state", "available");
    xml.text("cidrBlock", vpc.cidr_block);
    xml.text("dhcpOptionsId", "default");
    xml.text("instanceTenancy", "default");
    xml.text("isDefault", vpc.is_default);
    let (ipv4, ipv6): (Vec<_>, Vec<_>) =
        vpc.associations.iter().partition(|one| matches!(one.cidr, IpNet::V4(_)));
    xml.set("cidrBlockAssociationSet", ipv4, ipv4_association);
    xml.set("ipv6CidrBlockAssociationSet", ipv6, ipv6_association);
    tag_set(xml, &vpc.tags);
}

/// The answer of AssociateVpcCidrBlock and of DisassociateVpcCidrBlock.
pub(super) fn new_association(xml: &mut Xml, association: &VpcCidrAssociation) {
    match association.cidr {
        IpNet::V4(_) => {
            xml.node("cidrBlockAssociation", |xml| ipv4_association(xml, association));
        }
        IpNet::V6(_) => {
            xml.node("ipv6CidrBlockAssociation", |xml| ipv6_association(xml, association));
        }
    }
}

fn ipv4_association(xml: &mut Xml, association: &VpcCidrAssociation) {
    xml.text("associationId", &association.id);
    xml.text("cidrBlock", association.cidr);
    xml.node("cidrBlockState", |xml| xml.text("state", association.state.as_str()));
}

fn ipv6_association(xml: &mut Xml, association: &VpcCidrAssociation) {
    xml.text("associationId", &association.id);
    xml.text("ipv6CidrBlock", association.cidr);
    xml.node("ipv6CidrBlockState", |xml| xml.text("state", association.state.as_str()));
    xml.text("ipv6Pool", if association.pool.is_some() { "IPAM Managed" } else { "Amazon" });
}

pub(super) fn security_group(xml: &mut Xml, group: &SecurityGroup) {
    xml.text("groupId", &group.id);
    xml.text("groupName", &group.name);
    xml.text("groupDescription", &group.description);
    xml.text("ownerId", &group.owner_id);
    xml.text("vpcId", &group.vpc_id);
    xml.text("securityGroupArn", &group.arn);
    // The model has no rules: all traffic passes.
    xml.node("ipPermissions", |_none| {});
    xml.node("ipPermissionsEgress", |_none| {});
    tag_set(xml, &group.tags);
}

pub(super) fn availability_zone(xml: &mut Xml, zone: &AvailabilityZone) {
    xml.text("zoneName", &zone.name);
    xml.text("zoneId", &zone.id);
    xml.text("zoneState", "available");
    xml.text("zoneType", "availability-zone");
    xml.text("optInStatus", "opt-in-not-required");
    xml.text("regionName", &zone.region);
    xml.text("groupName", &zone.region);
    xml.text("networkBorderGroup", &zone.region);
    xml.node("messageSet", |_none| {});
}
