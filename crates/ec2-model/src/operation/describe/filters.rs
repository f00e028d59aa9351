//! The filters of each Describe operation, and the values that each compares.
//!
//! The model accepts filters on values that it never has, such as a public DNS name. They match
//! nothing.

use instance_types::{Hypervisor, InstanceType};
use ipnet::IpNet;

use super::Reserved;
use crate::filter::Filters;
use crate::response::{
    AddressAssociation, Attachment, AvailabilityZone, Instance, NetworkInterface, SecurityGroup,
    Subnet, Vpc,
};

fn one(value: impl ToString) -> Vec<String> {
    vec![value.to_string()]
}

fn each<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

fn on_attachment<V: ToString>(
    eni: &NetworkInterface,
    part: impl Fn(&Attachment) -> V,
) -> Vec<String> {
    each(eni.attachment.iter().map(part))
}

fn none<T>(_: &T) -> Vec<String> {
    Vec::new()
}

pub(super) const INTERFACES: Filters<NetworkInterface> = Filters {
    by_name: &[
        ("addresses.association.owner-id", |eni| associations(eni, |it| it.owner_id.clone())),
        ("addresses.association.public-ip", |eni| associations(eni, |it| it.public_ip)),
        ("addresses.primary", |eni| each(eni.private_ip_addresses.iter().map(|it| it.primary))),
        ("addresses.private-ip-address", private_addresses),
        ("association.allocation-id", |eni| of_primary(eni, |it| each(&it.allocation_id))),
        ("association.association-id", |eni| of_primary(eni, |it| one(&it.association_id))),
        ("association.ip-owner-id", |eni| of_primary(eni, |it| one(&it.owner_id))),
        ("association.public-dns-name", none),
        ("association.public-ip", |eni| of_primary(eni, |it| one(it.public_ip))),
        ("attachment.attach-time", |eni| on_attachment(eni, |it| it.attach_time)),
        ("attachment.attachment-id", |eni| on_attachment(eni, |it| it.id.clone())),
        ("attachment.delete-on-termination", |eni| {
            on_attachment(eni, |it| it.delete_on_termination)
        }),
        ("attachment.device-index", |eni| on_attachment(eni, |it| it.device_index)),
        ("attachment.instance-id", |eni| on_attachment(eni, |it| it.instance_id.clone())),
        ("attachment.instance-owner-id", |eni| {
            on_attachment(eni, |it| it.instance_owner_id.clone())
        }),
        ("attachment.status", |eni| on_attachment(eni, |it| it.status.as_str())),
        ("availability-zone", |eni| one(&eni.availability_zone)),
        ("availability-zone-id", |eni| one(&eni.availability_zone_id)),
        ("description", |eni| one(&eni.description)),
        ("group-id", |eni| each(eni.groups.iter().map(|group| &group.id))),
        ("group-name", |eni| each(eni.groups.iter().map(|group| &group.name))),
        ("interface-type", |eni| one(eni.interface_type.as_str())),
        ("ipv6-addresses.ipv6-address", |eni| each(&eni.ipv6_addresses)),
        ("mac-address", |eni| one(eni.mac_address)),
        ("network-interface-id", |eni| one(&eni.id)),
        ("operator.managed", |_| one(false)),
        ("operator.principal", none),
        ("owner-id", |eni| one(&eni.owner_id)),
        ("private-dns-name", |eni| each(&eni.private_dns_name)),
        ("private-ip-address", private_addresses),
        ("requester-id", |eni| one(&eni.requester_id)),
        ("requester-managed", |eni| one(eni.requester_managed)),
        ("source-dest-check", |eni| one(eni.source_dest_check)),
        ("status", |eni| one(eni.status.as_str())),
        ("subnet-id", |eni| one(&eni.subnet_id)),
        ("vpc-id", |eni| one(&eni.vpc_id)),
    ],
    tags: Some(|eni| &eni.tags),
};

/// One property of the public address of each private address.
fn associations<V: ToString>(
    eni: &NetworkInterface,
    part: impl Fn(&AddressAssociation) -> V,
) -> Vec<String> {
    each(eni.private_ip_addresses.iter().filter_map(|it| it.association.as_ref()).map(part))
}

/// Properties of the public address of the primary address.
fn of_primary(
    eni: &NetworkInterface,
    part: impl Fn(&AddressAssociation) -> Vec<String>,
) -> Vec<String> {
    eni.association().map(part).unwrap_or_default()
}

fn private_addresses(eni: &NetworkInterface) -> Vec<String> {
    each(eni.private_ip_addresses.iter().map(|it| it.address))
}

fn of_interfaces<V: ToString>(
    instance: &Instance,
    part: impl Fn(&NetworkInterface) -> Vec<V>,
) -> Vec<String> {
    each(instance.network_interfaces.iter().flat_map(part))
}

pub(super) const INSTANCES: Filters<Reserved> = Filters {
    by_name: &[
        ("architecture", |it| each(it.2.instance_type.architectures.first())),
        ("availability-zone", |it| one(&it.2.availability_zone)),
        ("client-token", |it| each(&it.2.client_token)),
        // DescribeInstances shows `xen` for Nitro instances too.
        ("hypervisor", |_| one("xen")),
        ("image-id", |it| one(&it.2.image_id)),
        ("instance-id", |it| one(&it.2.id)),
        ("instance-state-code", |it| one(it.2.state.code())),
        ("instance-state-name", |it| one(it.2.state.as_str())),
        ("instance-type", |it| one(it.2.instance_type.name)),
        ("instance.group-id", |it| each(it.2.groups.iter().map(|group| &group.id))),
        ("instance.group-name", |it| each(it.2.groups.iter().map(|group| &group.name))),
        ("ip-address", |it| each(it.2.public_ip_address)),
        ("launch-time", |it| one(it.2.launch_time)),
        ("network-interface.addresses.private-ip-address", |it| {
            of_interfaces(&it.2, private_addresses)
        }),
        ("network-interface.attachment.attachment-id", |it| {
            of_interfaces(&it.2, |eni| on_attachment(eni, |it| it.id.clone()))
        }),
        ("network-interface.network-interface-id", |it| {
            of_interfaces(&it.2, |eni| vec![eni.id.clone()])
        }),
        ("network-interface.subnet-id", |it| {
            of_interfaces(&it.2, |eni| vec![eni.subnet_id.clone()])
        }),
        ("network-interface.vpc-id", |it| of_interfaces(&it.2, |eni| vec![eni.vpc_id.clone()])),
        ("owner-id", |it| one(&it.1)),
        ("private-dns-name", |it| each(&it.2.private_dns_name)),
        ("private-ip-address", |it| each(it.2.private_ip_address)),
        ("reservation-id", |it| one(&it.0)),
        ("source-dest-check", |it| each(it.2.source_dest_check)),
        ("subnet-id", |it| one(&it.2.subnet_id)),
        ("vpc-id", |it| one(&it.2.vpc_id)),
    ],
    tags: Some(|it| &it.2.tags),
};

pub(super) const INSTANCE_TYPES: Filters<&'static InstanceType> = Filters {
    by_name: &[
        ("bare-metal", |it| one(it.bare_metal)),
        ("hypervisor", |it| match it.hypervisor {
            Hypervisor::Nitro => one("nitro"),
            Hypervisor::Xen => one("xen"),
            Hypervisor::Unknown => Vec::new(),
        }),
        ("instance-type", |it| one(it.name)),
        ("network-info.ipv4-addresses-per-interface", |it| one(it.ipv4_per_eni)),
        ("network-info.ipv6-addresses-per-interface", |it| each(it.ipv6_per_eni)),
        ("network-info.ipv6-supported", |it| each(it.ipv6_supported)),
        ("network-info.maximum-network-cards", |it| one(it.cards.len())),
        ("network-info.maximum-network-interfaces", |it| one(it.max_enis_all_cards())),
        ("processor-info.supported-architecture", |it| each(&it.architectures)),
        ("vcpu-info.default-vcpus", |it| each(it.vcpus)),
    ],
    tags: None,
};

pub(super) const SUBNETS: Filters<Subnet> = Filters {
    by_name: &[
        ("availability-zone", |it| one(&it.availability_zone)),
        ("availabilityZone", |it| one(&it.availability_zone)),
        ("availability-zone-id", |it| one(&it.availability_zone_id)),
        ("availabilityZoneId", |it| one(&it.availability_zone_id)),
        ("available-ip-address-count", |it| one(it.available_ip_address_count)),
        ("cidr", |it| each(it.cidr_block)),
        ("cidr-block", |it| each(it.cidr_block)),
        ("cidrBlock", |it| each(it.cidr_block)),
        ("default-for-az", |_| one(false)),
        ("ipv6-cidr-block-association.association-id", |it| {
            each(it.ipv6.iter().map(|ipv6| &ipv6.association_id))
        }),
        ("ipv6-cidr-block-association.ipv6-cidr-block", |it| {
            each(it.ipv6.iter().map(|ipv6| ipv6.cidr))
        }),
        ("ipv6-cidr-block-association.state", |it| each(it.ipv6.iter().map(|_| "associated"))),
        ("ipv6-native", |it| one(it.cidr_block.is_none())),
        ("map-public-ip-on-launch", |it| one(it.map_public_ip_on_launch)),
        ("owner-id", |it| one(&it.owner_id)),
        ("state", |_| one("available")),
        ("subnet-arn", |it| one(&it.arn)),
        ("subnet-id", |it| one(&it.id)),
        ("vpc-id", |it| one(&it.vpc_id)),
    ],
    tags: Some(|it| &it.tags),
};

/// One property of each block of one family.
fn of_blocks<V: ToString>(
    vpc: &Vpc,
    ipv4: bool,
    part: impl Fn(&crate::response::VpcCidrAssociation) -> V,
) -> Vec<String> {
    let family = |cidr: &IpNet| matches!(cidr, IpNet::V4(_)) == ipv4;
    each(vpc.associations.iter().filter(|it| family(&it.cidr)).map(part))
}

pub(super) const VPCS: Filters<Vpc> = Filters {
    by_name: &[
        ("cidr", |it| one(it.cidr_block)),
        ("cidr-block-association.association-id", |it| of_blocks(it, true, |b| b.id.clone())),
        ("cidr-block-association.cidr-block", |it| of_blocks(it, true, |b| b.cidr)),
        ("cidr-block-association.state", |it| of_blocks(it, true, |b| b.state.as_str())),
        ("ipv6-cidr-block-association.association-id", |it| of_blocks(it, false, |b| b.id.clone())),
        ("ipv6-cidr-block-association.ipv6-cidr-block", |it| of_blocks(it, false, |b| b.cidr)),
        ("ipv6-cidr-block-association.state", |it| of_blocks(it, false, |b| b.state.as_str())),
        ("is-default", |it| one(it.is_default)),
        ("isDefault", |it| one(it.is_default)),
        ("owner-id", |it| one(&it.owner_id)),
        ("state", |_| one("available")),
        ("vpc-id", |it| one(&it.id)),
    ],
    tags: Some(|it| &it.tags),
};

pub(super) const SECURITY_GROUPS: Filters<SecurityGroup> = Filters {
    by_name: &[
        ("description", |it| one(&it.description)),
        ("group-id", |it| one(&it.id)),
        ("group-name", |it| one(&it.name)),
        ("owner-id", |it| one(&it.owner_id)),
        ("vpc-id", |it| one(&it.vpc_id)),
    ],
    tags: Some(|it| &it.tags),
};

pub(super) const ZONES: Filters<AvailabilityZone> = Filters {
    by_name: &[
        ("group-name", |it| one(&it.region)),
        ("opt-in-status", |_| one("opt-in-not-required")),
        ("region-name", |it| one(&it.region)),
        ("state", |_| one("available")),
        ("zone-id", |it| one(&it.id)),
        ("zone-name", |it| one(&it.name)),
        ("zone-type", |_| one("availability-zone")),
    ],
    tags: None,
};
