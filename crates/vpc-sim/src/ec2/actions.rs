//! A reader for each request and a renderer for each answer, one file per group of actions.
//!
//! Names on the wire are those of the EC2 service model. Nothing is decided here: types refuse bad
//! single values, the model refuses the rest.

mod acls;
mod addresses;
mod instances;
mod interfaces;
mod ipam;
mod public;
mod routes;
mod subnets;
mod tags;
mod vpcs;

use ec2_model::ApiError;
use ec2_model::request::{
    Action, AllocateAddress, AssignIpv6Addresses, AssignPrivateIpAddresses, AssociateAddress,
    AssociateVpcCidrBlock, AttachNetworkInterface, CreateNetworkInterface, CreateSubnet,
    CreateSubnetCidrReservation, CreateTags, CreateVpc, DeleteNetworkInterface, DeleteSubnet,
    DeleteSubnetCidrReservation, DeleteTags, DeleteVpc, DescribeAvailabilityZones,
    DescribeInstanceTypes, DescribeInstances, DescribeNetworkAcls, DescribeNetworkInterfaces,
    DescribeRouteTables, DescribeSecurityGroups, DescribeSubnets, DescribeTags,
    DescribeVpcAttribute, DescribeVpcs, DetachNetworkInterface, DisassociateAddress,
    DisassociateVpcCidrBlock, Filter, FromPool, GetSubnetCidrReservations, Listing,
    ModifyNetworkInterfaceAttribute, ModifySubnetAttribute, ModifyVpcAttribute, Request,
    RunInstances, Tag, TagSpecification, TerminateInstances, UnassignIpv6Addresses,
    UnassignPrivateIpAddresses,
};
use ec2_model::response::{Page, Response, Tags};

use super::params::Params;
use super::xml::Xml;

/// A request that can be read from its parameters.
trait Read: Sized {
    /// Takes its parameters from `params`. Parameters left there are refused later.
    fn read(params: &mut Params) -> Result<Self, ApiError>;
}

/// Reads the request for `action`, including all its parameters.
///
/// # Errors
/// `MissingParameter`, `UnknownParameter`, or the error of a bad single value.
pub(super) fn read(action: Action, params: &mut Params) -> Result<Request, ApiError> {
    match action {
        Action::DescribeInstances => whole::<DescribeInstances>(params),
        Action::DescribeInstanceTypes => whole::<DescribeInstanceTypes>(params),
        Action::DescribeSubnets => whole::<DescribeSubnets>(params),
        Action::DescribeVpcs => whole::<DescribeVpcs>(params),
        Action::DescribeSecurityGroups => whole::<DescribeSecurityGroups>(params),
        Action::DescribeAvailabilityZones => whole::<DescribeAvailabilityZones>(params),
        Action::CreateNetworkInterface => whole::<CreateNetworkInterface>(params),
        Action::AttachNetworkInterface => whole::<AttachNetworkInterface>(params),
        Action::ModifyNetworkInterfaceAttribute => whole::<ModifyNetworkInterfaceAttribute>(params),
        Action::DetachNetworkInterface => whole::<DetachNetworkInterface>(params),
        Action::DeleteNetworkInterface => whole::<DeleteNetworkInterface>(params),
        Action::DescribeNetworkInterfaces => whole::<DescribeNetworkInterfaces>(params),
        Action::AssignPrivateIpAddresses => whole::<AssignPrivateIpAddresses>(params),
        Action::UnassignPrivateIpAddresses => whole::<UnassignPrivateIpAddresses>(params),
        Action::AssignIpv6Addresses => whole::<AssignIpv6Addresses>(params),
        Action::UnassignIpv6Addresses => whole::<UnassignIpv6Addresses>(params),
        Action::CreateTags => whole::<CreateTags>(params),
        Action::DeleteTags => whole::<DeleteTags>(params),
        Action::DescribeTags => whole::<DescribeTags>(params),
        Action::CreateSubnetCidrReservation => whole::<CreateSubnetCidrReservation>(params),
        Action::GetSubnetCidrReservations => whole::<GetSubnetCidrReservations>(params),
        Action::DeleteSubnetCidrReservation => whole::<DeleteSubnetCidrReservation>(params),
        Action::CreateVpc => whole::<CreateVpc>(params),
        Action::CreateSubnet => whole::<CreateSubnet>(params),
        Action::AssociateVpcCidrBlock => whole::<AssociateVpcCidrBlock>(params),
        Action::RunInstances => whole::<RunInstances>(params),
        Action::TerminateInstances => whole::<TerminateInstances>(params),
        Action::DescribeRouteTables => whole::<DescribeRouteTables>(params),
        Action::AllocateAddress => whole::<AllocateAddress>(params),
        Action::AssociateAddress => whole::<AssociateAddress>(params),
        Action::DisassociateAddress => whole::<DisassociateAddress>(params),
        Action::DeleteVpc => whole::<DeleteVpc>(params),
        Action::DeleteSubnet => whole::<DeleteSubnet>(params),
        Action::DisassociateVpcCidrBlock => whole::<DisassociateVpcCidrBlock>(params),
        Action::DescribeVpcAttribute => whole::<DescribeVpcAttribute>(params),
        Action::ModifyVpcAttribute => whole::<ModifyVpcAttribute>(params),
        Action::ModifySubnetAttribute => whole::<ModifySubnetAttribute>(params),
        Action::DescribeNetworkAcls => whole::<DescribeNetworkAcls>(params),
        Action::Plan(action) => ipam::read(action, params),
    }
}

fn whole<R: Read + Into<Request>>(params: &mut Params) -> Result<Request, ApiError> {
    let request = R::read(params)?;
    params.finish()?;
    Ok(request.into())
}

/// Writes the content of the answer's root element, except the request id.
pub(super) fn render(xml: &mut Xml, action: Action, response: &Response) {
    match response {
        Response::Done => xml.text("return", true),
        Response::Reservations(found) => {
            page(xml, "reservationSet", found, instances::reservation);
        }
        Response::InstanceTypes(found) => {
            page(xml, "instanceTypeSet", found, |xml, kind| instances::instance_type(xml, kind));
        }
        Response::Subnets(found) => page(xml, "subnetSet", found, subnets::subnet),
        Response::Vpcs(found) => page(xml, "vpcSet", found, vpcs::vpc),
        Response::SecurityGroups(found) => {
            page(xml, "securityGroupInfo", found, vpcs::security_group);
        }
        Response::AvailabilityZones(zones) => {
            xml.set("availabilityZoneInfo", zones, vpcs::availability_zone);
        }
        Response::Created { network_interface, client_token } => {
            xml.node("networkInterface", |xml| interfaces::interface(xml, network_interface));
            xml.optional("clientToken", client_token.as_ref());
        }
        Response::Attached { attachment_id, network_card_index } => {
            xml.text("attachmentId", attachment_id);
            xml.text("networkCardIndex", network_card_index);
        }
        Response::NetworkInterfaces(found) => {
            page(xml, "networkInterfaceSet", found, interfaces::interface);
        }
        Response::AssignedIpv4 { network_interface_id, addresses, prefixes } => {
            addresses::assigned_ipv4(xml, network_interface_id, addresses, prefixes);
        }
        Response::AssignedIpv6 { network_interface_id, addresses, prefixes } => {
            addresses::assigned_ipv6(xml, network_interface_id, addresses, prefixes);
        }
        Response::UnassignedIpv6 { network_interface_id, addresses, prefixes } => {
            addresses::unassigned_ipv6(xml, network_interface_id, addresses, prefixes);
        }
        Response::Tags(found) => page(xml, "tagSet", found, tags::tag_description),
        Response::CidrReservation(one) => subnets::one_reservation(xml, action, one),
        Response::CidrReservations(found) => subnets::reservations(xml, found),
        Response::VpcAttribute { vpc_id, attribute, value } => {
            xml.text("vpcId", vpc_id);
            xml.node(attribute.as_str(), |xml| xml.text("value", value));
        }
        Response::NetworkAcls(found) => page(xml, "networkAclSet", found, acls::network_acl),
        Response::Plan(response) => ipam::render(xml, action, response),
        Response::Vpc(vpc) => xml.node("vpc", |xml| vpcs::vpc(xml, vpc)),
        Response::Subnet(subnet) => xml.node("subnet", |xml| subnets::subnet(xml, subnet)),
        Response::CidrAssociated { vpc_id, association } => {
            xml.text("vpcId", vpc_id);
            vpcs::new_association(xml, association);
        }
        Response::RouteTables(found) => page(xml, "routeTableSet", found, routes::route_table),
        Response::Allocated { public_ip, allocation_id } => {
            public::allocated(xml, *public_ip, allocation_id);
        }
        Response::AddressAssociated(id) => {
            xml.text("return", true);
            xml.text("associationId", id);
        }
        Response::Started(reservation) => instances::reservation(xml, reservation),
        Response::StateChanges(changes) => {
            xml.set("instancesSet", changes, instances::state_change);
        }
    }
}

fn page<T>(xml: &mut Xml, set: &str, page: &Page<T>, fill: impl FnMut(&mut Xml, &T)) {
    xml.set(set, &page.items, fill);
    xml.optional("nextToken", page.next_token.as_ref());
}

fn tag_set(xml: &mut Xml, tags: &Tags) {
    xml.set("tagSet", tags, |xml, (key, value)| {
        xml.text("key", key);
        xml.text("value", value);
    });
}

fn dry_run(params: &mut Params) -> Result<bool, ApiError> {
    Ok(params.flag("DryRun")?.unwrap_or_default())
}

fn include_managed_resources(params: &mut Params) -> Result<bool, ApiError> {
    Ok(params.flag("IncludeManagedResources")?.unwrap_or_default())
}

fn listing(params: &mut Params) -> Result<Listing, ApiError> {
    Ok(Listing {
        filters: filters(params)?,
        max_results: params.number("MaxResults")?,
        next_token: params.text("NextToken"),
    })
}

fn filters(params: &mut Params) -> Result<Vec<Filter>, ApiError> {
    params.items("Filter", |filter| {
        Ok(Filter { name: filter.required("Name")?, values: filter.texts("Value") })
    })
}

fn tags(params: &mut Params) -> Result<Vec<Tag>, ApiError> {
    params.items("Tag", |tag| Ok(Tag { key: tag.required("Key")?, value: tag.text("Value") }))
}

fn tag_specifications(params: &mut Params) -> Result<Vec<TagSpecification>, ApiError> {
    params.items("TagSpecification", |specification| {
        Ok(TagSpecification {
            resource_type: specification.required_as("ResourceType")?,
            tags: tags(specification)?,
        })
    })
}

/// `Ipv4IpamPoolId` and `Ipv4NetmaskLength`, or their IPv6 siblings.
fn from_pool(params: &mut Params, family: &str) -> Result<FromPool, ApiError> {
    Ok(FromPool {
        pool: params.parsed(&format!("{family}IpamPoolId"))?,
        netmask_length: params.number(&format!("{family}NetmaskLength"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_a_row_in_the_guide() {
        let guide = include_str!("../../../../docs/vpc-sim.md");
        let rows: Vec<&str> = guide.lines().filter(|line| line.starts_with("| `")).collect();
        for action in Action::all() {
            let name = format!("`{action}`");
            let first_cells = rows.iter().filter_map(|row| row.split('|').nth(1));
            let n_rows = first_cells.filter(|cell| cell.contains(&name)).count();
            assert_eq!(n_rows, 1, "docs/vpc-sim.md: rows of {action}");
        }
        for (kind, is_plan) in [("38 actions", false), ("34 of Amazon", true)] {
            let of_kind = Action::all().filter(|it| matches!(it, Action::Plan(_)) == is_plan);
            let n: usize = kind.split(' ').next().and_then(|n| n.parse().ok()).unwrap();
            assert_eq!((of_kind.count(), guide.contains(kind)), (n, true), "docs/vpc-sim.md");
        }
    }
}
