//! EC2's answers, converted to the inventory's types. It trusts no field to be present or valid.

use std::fmt::Display;
use std::str::FromStr;

use address_space::inventory::{
    Attachment, Instance, Interface, Peering, Place, PublicAddress, Reservation, ReservationKind,
    Subnet, Tags, Vpc,
};
use aws_sdk_ec2::types::{
    Address, Instance as SdkInstance, NetworkInterface, NetworkInterfaceAssociation,
    NetworkInterfaceAttachment, SubnetCidrBlockStateCode, SubnetCidrReservation,
    SubnetCidrReservationType, Tag, VpcCidrBlockStateCode, VpcPeeringConnection,
};
use ipam::id::{EniId, InstanceId};
use ipnet::IpNet;

/// A field of an answer that is missing or invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct BadField {
    name: &'static str,
    problem: String,
}

fn need<T>(name: &'static str, value: Option<T>) -> Result<T, BadField> {
    value.ok_or_else(|| BadField { name, problem: "missing".to_owned() })
}

pub(crate) fn id<'a, T>(name: &'static str, value: Option<&'a str>) -> Result<T, BadField>
where
    T: TryFrom<&'a str, Error: Display>,
{
    T::try_from(need(name, value)?).map_err(|error| BadField { name, problem: error.to_string() })
}

pub(crate) fn parse<T: FromStr<Err: Display>>(
    name: &'static str,
    value: Option<&str>,
) -> Result<T, BadField> {
    let text = need(name, value)?;
    text.parse().map_err(|error| BadField { name, problem: format!("{text:?}: {error}") })
}

pub(crate) fn owned(name: &'static str, value: Option<&str>) -> Result<String, BadField> {
    need(name, value).map(str::to_owned)
}

pub(crate) fn tags(tags: &[Tag]) -> Tags {
    let pair =
        |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    tags.iter().filter_map(pair).collect()
}

fn place(owner: Option<&str>, region: &str) -> Result<Place, BadField> {
    Ok(Place { account: owned("ownerId", owner)?, region: region.to_owned() })
}

pub(crate) fn vpc(vpc: &aws_sdk_ec2::types::Vpc, region: &str) -> Result<Vpc, BadField> {
    let is_there = |state: Option<&VpcCidrBlockStateCode>| {
        matches!(
            state,
            Some(VpcCidrBlockStateCode::Associated | VpcCidrBlockStateCode::Associating)
        )
    };
    let primary = vpc.cidr_block();
    let v4 = vpc.cidr_block_association_set().iter();
    let v4 = v4.filter(|one| is_there(one.cidr_block_state().and_then(|state| state.state())));
    let v6 = vpc.ipv6_cidr_block_association_set().iter();
    let v6 = v6.filter(|one| is_there(one.ipv6_cidr_block_state().and_then(|state| state.state())));
    let texts = primary.into_iter().chain(v4.filter_map(|one| one.cidr_block()));
    let texts = texts.chain(v6.filter_map(|one| one.ipv6_cidr_block()));
    let mut cidrs: Vec<IpNet> = vec![];
    for text in texts {
        let cidr = parse("cidrBlock", Some(text))?;
        if !cidrs.contains(&cidr) {
            cidrs.push(cidr);
        }
    }
    Ok(Vpc {
        id: id("vpcId", vpc.vpc_id())?,
        place: place(vpc.owner_id(), region)?,
        cidrs,
        is_default: vpc.is_default().unwrap_or_default(),
        tags: tags(vpc.tags()),
    })
}

pub(crate) fn subnet(
    subnet: &aws_sdk_ec2::types::Subnet,
    region: &str,
) -> Result<Subnet, BadField> {
    let v6 = subnet.ipv6_cidr_block_association_set().iter().find(|one| {
        let state = one.ipv6_cidr_block_state().and_then(|state| state.state());
        state == Some(&SubnetCidrBlockStateCode::Associated)
    });
    let v6 = v6.and_then(|one| one.ipv6_cidr_block());
    // Empty for a subnet of IPv6 alone.
    let v4 = subnet.cidr_block().filter(|text| !text.is_empty());
    let free = subnet.available_ip_address_count().and_then(|count| u32::try_from(count).ok());
    Ok(Subnet {
        id: id("subnetId", subnet.subnet_id())?,
        vpc: id("vpcId", subnet.vpc_id())?,
        place: place(subnet.owner_id(), region)?,
        zone: owned("availabilityZone", subnet.availability_zone())?,
        cidr: v4.map(|text| parse("cidrBlock", Some(text))).transpose()?,
        ipv6_cidr: v6.map(|text| parse("ipv6CidrBlock", Some(text))).transpose()?,
        free_addresses: free,
        reservations: vec![],
        tags: tags(subnet.tags()),
    })
}

pub(crate) fn reservation(one: &SubnetCidrReservation) -> Result<Reservation, BadField> {
    let kind = match one.reservation_type() {
        Some(SubnetCidrReservationType::Prefix) => ReservationKind::Prefix,
        // A kind of tomorrow keeps its range from others too.
        _ => ReservationKind::Explicit,
    };
    Ok(Reservation { cidr: parse("cidr", one.cidr())?, kind })
}

pub(crate) fn interface(eni: &NetworkInterface) -> Result<Interface, BadField> {
    let mut addresses = vec![];
    let v4 = eni.private_ip_addresses().iter();
    // The primary one first.
    let mut v4: Vec<_> =
        v4.map(|one| (one.primary() != Some(true), one.private_ip_address())).collect();
    v4.sort_by_key(|(is_secondary, _)| *is_secondary);
    for text in v4.into_iter().filter_map(|(_, text)| text) {
        addresses.push(parse("privateIpAddress", Some(text))?);
    }
    for text in eni.ipv6_addresses().iter().filter_map(|one| one.ipv6_address()) {
        addresses.push(parse("ipv6Address", Some(text))?);
    }
    let v4 = eni.ipv4_prefixes().iter().filter_map(|one| one.ipv4_prefix());
    let v6 = eni.ipv6_prefixes().iter().filter_map(|one| one.ipv6_prefix());
    let prefixes = v4.chain(v6).map(|text| parse("prefix", Some(text)));
    Ok(Interface {
        id: id("networkInterfaceId", eni.network_interface_id())?,
        subnet: id("subnetId", eni.subnet_id())?,
        kind: eni.interface_type().map_or("interface", |kind| kind.as_str()).to_owned(),
        description: eni.description().unwrap_or_default().to_owned(),
        attachment: eni.attachment().map(attachment).transpose()?,
        addresses,
        prefixes: prefixes.collect::<Result<_, _>>()?,
        tags: tags(eni.tag_set()),
    })
}

fn attachment(attachment: &NetworkInterfaceAttachment) -> Result<Attachment, BadField> {
    // AWS attaches interfaces of services to instances of its own, which have no id here.
    let instance = attachment.instance_id();
    let index = need("deviceIndex", attachment.device_index())?;
    Ok(Attachment {
        instance: instance.map(|text| id::<InstanceId>("instanceId", Some(text))).transpose()?,
        device_index: u32::try_from(index).unwrap_or(u32::MAX),
    })
}

/// The public addresses that an interface has.
pub(crate) fn public_of_interface(
    eni: &NetworkInterface,
    region: &str,
) -> Result<Vec<PublicAddress>, BadField> {
    let own = place(eni.owner_id(), region)?;
    let interface: EniId = id("networkInterfaceId", eni.network_interface_id())?;
    let each = eni.private_ip_addresses().iter().filter_map(|one| one.association());
    let texts = each.chain(eni.association()).filter_map(NetworkInterfaceAssociation::public_ip);
    let mut found: Vec<PublicAddress> = vec![];
    for text in texts {
        let address = parse("publicIp", Some(text))?;
        if found.iter().all(|one| one.address != address) {
            let interface = Some(interface.clone());
            found.push(PublicAddress { address, place: own.clone(), interface });
        }
    }
    Ok(found)
}

/// `None` for an address that is no public IPv4 address, such as one of an Outpost.
pub(crate) fn public_address(
    address: &Address,
    place: &Place,
) -> Result<Option<PublicAddress>, BadField> {
    let Some(text) = address.public_ip() else { return Ok(None) };
    let interface = address.network_interface_id().filter(|text| !text.is_empty());
    Ok(Some(PublicAddress {
        address: parse("publicIp", Some(text))?,
        place: place.clone(),
        interface: interface.map(|text| id("networkInterfaceId", Some(text))).transpose()?,
    }))
}

pub(crate) fn instance(instance: &&SdkInstance) -> Result<Instance, BadField> {
    Ok(Instance {
        id: id("instanceId", instance.instance_id())?,
        instance_type: instance.instance_type().map_or("", |kind| kind.as_str()).to_owned(),
        private_dns_name: instance.private_dns_name().unwrap_or_default().to_owned(),
        tags: tags(instance.tags()),
    })
}

pub(crate) fn peering(peering: &VpcPeeringConnection) -> Result<Peering, BadField> {
    let requester = peering.requester_vpc_info().and_then(|side| side.vpc_id());
    let accepter = peering.accepter_vpc_info().and_then(|side| side.vpc_id());
    Ok(Peering {
        id: owned("vpcPeeringConnectionId", peering.vpc_peering_connection_id())?,
        vpcs: [id("requesterVpcInfo", requester)?, id("accepterVpcInfo", accepter)?],
    })
}
