//! EC2's answers, converted to `ipam`'s types.
//!
//! It trusts no field to be present or valid. It knows the answers of calls, and not the calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use aws_sdk_ec2::operation::assign_ipv6_addresses::AssignIpv6AddressesOutput;
use aws_sdk_ec2::operation::assign_private_ip_addresses::AssignPrivateIpAddressesOutput;
use aws_sdk_ec2::operation::attach_network_interface::AttachNetworkInterfaceOutput;
use aws_sdk_ec2::operation::create_network_interface::CreateNetworkInterfaceOutput;
use aws_sdk_ec2::types::{
    AttachmentStatus as SdkStatus, NetworkInterface, NetworkInterfaceAttachment,
    NetworkInterfaceType, Subnet, SubnetCidrBlockStateCode, SubnetIpv6CidrBlockAssociation, Tag,
};
use ipam::block::Block;
use ipam::call::{AttachmentStatus, EniAttachment, EniFacts, EniKind, SubnetFacts};
use ipam::id::{EniAttachmentId, InstanceId, SecurityGroupId, VpcId};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mac::MacAddr;

use super::tracking;

/// A field of an answer that is missing or invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub(crate) struct BadField {
    name: &'static str,
    problem: String,
}

impl BadField {
    fn new(name: &'static str, problem: impl Display) -> Self {
        Self { name, problem: problem.to_string() }
    }
}

/// The field `name`, which EC2 always sends.
pub(crate) fn need<T>(name: &'static str, value: Option<T>) -> Result<T, BadField> {
    value.ok_or_else(|| BadField::new(name, "missing"))
}

/// A count or index that must fit.
pub(crate) fn number<T: TryFrom<i32>>(
    name: &'static str,
    value: Option<i32>,
) -> Result<T, BadField> {
    let value = need(name, value)?;
    T::try_from(value).map_err(|_| BadField::new(name, format!("{value} is out of range")))
}

fn id<'a, T>(name: &'static str, value: Option<&'a str>) -> Result<T, BadField>
where
    T: TryFrom<&'a str, Error: Display>,
{
    T::try_from(need(name, value)?).map_err(|error| BadField::new(name, error))
}

fn parse<T: FromStr<Err: Display>>(name: &'static str, value: Option<&str>) -> Result<T, BadField> {
    let text = need(name, value)?;
    text.parse().map_err(|error| BadField::new(name, format!("{text:?}: {error}")))
}

/// Whether the ENI is attached to another instance: somebody has moved an ENI with our tag.
pub(super) fn is_attached_elsewhere(eni: &NetworkInterface, instance: &InstanceId) -> bool {
    let holder = eni.attachment().and_then(NetworkInterfaceAttachment::instance_id);
    holder.is_some_and(|holder| holder != instance.as_str())
}

pub(super) fn eni(eni: &NetworkInterface) -> Result<EniFacts, BadField> {
    // For example an EFA-only ENI, or an ENI in an IPv6-only subnet.
    let has_ipv4 = eni.private_ip_address().is_some() || !eni.private_ip_addresses().is_empty();
    Ok(EniFacts {
        id: id("networkInterfaceId", eni.network_interface_id())?,
        mac: parse::<MacAddr>("macAddress", eni.mac_address())?,
        subnet: id("subnetId", eni.subnet_id())?,
        security_groups: security_groups(eni)?,
        connection_tracking: tracking::of(eni)?,
        primary_address: match has_ipv4 {
            true => parse::<Ipv4Addr>("privateIpAddress", eni.private_ip_address())?.into(),
            false => own_ipv6(eni)?.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6),
        },
        blocks: blocks(eni)?,
        kind: match need("interfaceType", eni.interface_type())? {
            NetworkInterfaceType::Interface if has_ipv4 => EniKind::Interface,
            _ => EniKind::Other,
        },
        attachment: eni.attachment().map(attachment).transpose()?,
        tags: tags(eni.tag_set())?,
    })
}

/// Its first IPv6 address, if it has any.
fn own_ipv6(eni: &NetworkInterface) -> Result<Option<Ipv6Addr>, BadField> {
    let first = eni.ipv6_addresses().first();
    first.map(|it| parse("ipv6AddressesSet", it.ipv6_address())).transpose()
}

pub(super) fn created(answer: &CreateNetworkInterfaceOutput) -> Result<EniFacts, BadField> {
    eni(need("networkInterface", answer.network_interface())?)
}

pub(super) fn attached(answer: &AttachNetworkInterfaceOutput) -> Result<EniAttachmentId, BadField> {
    id("attachmentId", answer.attachment_id())
}

/// An empty answer is an error: each Assign asks for something, and EC2 grants all of it or nothing.
pub(super) fn assigned(
    answer: &AssignPrivateIpAddressesOutput,
) -> Result<BTreeSet<Block>, BadField> {
    let addresses = answer
        .assigned_private_ip_addresses()
        .iter()
        .map(|address| address_block("assignedPrivateIpAddress", address.private_ip_address()));
    let prefixes = answer
        .assigned_ipv4_prefixes()
        .iter()
        .map(|prefix| prefix_block::<Ipv4Net>("assignedIpv4Prefix", prefix.ipv4_prefix()));
    let blocks = addresses.chain(prefixes).collect::<Result<BTreeSet<_>, _>>()?;
    let first = blocks.first().map(|_| ());
    need("assignedPrivateIpAddressesSet or assignedIpv4PrefixSet", first).map(|()| blocks)
}

/// As [`assigned`].
pub(super) fn assigned_ipv6(
    answer: &AssignIpv6AddressesOutput,
) -> Result<BTreeSet<Block>, BadField> {
    let name = "assignedIpv6PrefixSet";
    let prefixes = answer.assigned_ipv6_prefixes().iter();
    let blocks = prefixes
        .map(|prefix| prefix_block::<Ipv6Net>(name, Some(prefix)))
        .collect::<Result<BTreeSet<_>, _>>()?;
    need(name, blocks.first().map(|_| ())).map(|()| blocks)
}

/// `None` for a subnet without any range: it is new, and has no addresses yet.
pub(super) fn subnet(subnet: &Subnet) -> Result<Option<SubnetFacts>, BadField> {
    let is_ipv6_only = subnet.ipv6_native().unwrap_or(false);
    let cidr = match (is_ipv6_only, own_ipv6_range(subnet)) {
        (true, None) => return Ok(None),
        (true, range) => parse::<Ipv6Net>("ipv6CidrBlock", range)?.into(),
        (false, _) => parse::<Ipv4Net>("cidrBlock", subnet.cidr_block())?.into(),
    };
    // It counts IPv4 addresses.
    let free = subnet.available_ip_address_count().or(if is_ipv6_only { Some(0) } else { None });
    Ok(Some(SubnetFacts {
        id: id("subnetId", subnet.subnet_id())?,
        cidr,
        free_addresses: Some(number("availableIpAddressCount", free)?),
        tags: tags(subnet.tags())?,
    }))
}

/// The range that is in use; a former one is listed for a while.
fn own_ipv6_range(subnet: &Subnet) -> Option<&str> {
    let is_in_use = |it: &&SubnetIpv6CidrBlockAssociation| {
        let state = it.ipv6_cidr_block_state().and_then(|state| state.state());
        state == Some(&SubnetCidrBlockStateCode::Associated)
    };
    let ranges = subnet.ipv6_cidr_block_association_set();
    ranges.iter().find(is_in_use).or_else(|| ranges.first())?.ipv6_cidr_block()
}

fn security_groups(eni: &NetworkInterface) -> Result<BTreeSet<SecurityGroupId>, BadField> {
    eni.groups().iter().map(|group| id("groupId", group.group_id())).collect()
}

pub(super) fn vpc(eni: &NetworkInterface) -> Result<VpcId, BadField> {
    id("vpcId", eni.vpc_id())
}

/// A pod may get any block that is listed. The ENI's single IPv6 addresses are the node's own, so they are
/// left out.
fn blocks(eni: &NetworkInterface) -> Result<BTreeSet<Block>, BadField> {
    let secondaries = eni
        .private_ip_addresses()
        .iter()
        .filter(|address| !address.primary().unwrap_or(false))
        .map(|address| address_block("privateIpAddressesSet", address.private_ip_address()));
    let prefixes = eni
        .ipv4_prefixes()
        .iter()
        .map(|prefix| prefix_block::<Ipv4Net>("ipv4PrefixSet", prefix.ipv4_prefix()));
    let ipv6_prefixes = eni
        .ipv6_prefixes()
        .iter()
        .map(|prefix| prefix_block::<Ipv6Net>("ipv6PrefixSet", prefix.ipv6_prefix()));
    secondaries.chain(prefixes).chain(ipv6_prefixes).collect()
}

fn address_block(name: &'static str, text: Option<&str>) -> Result<Block, BadField> {
    parse::<Ipv4Addr>(name, text).map(Block::address)
}

/// A prefix of the family of `N`.
fn prefix_block<N>(name: &'static str, text: Option<&str>) -> Result<Block, BadField>
where
    N: FromStr<Err: Display> + Into<IpNet>,
{
    let block = Block::try_from(parse::<N>(name, text)?.into());
    match block {
        Ok(block) if block.is_prefix() => Ok(block),
        Ok(block) => Err(BadField::new(name, format!("{block} is one address"))),
        Err(error) => Err(BadField::new(name, error)),
    }
}

fn attachment(attachment: &NetworkInterfaceAttachment) -> Result<EniAttachment, BadField> {
    Ok(EniAttachment {
        id: id("attachment.attachmentId", attachment.attachment_id())?,
        device_index: number("attachment.deviceIndex", attachment.device_index())?,
        // Absent on an instance with one card.
        network_card: number(
            "attachment.networkCardIndex",
            attachment.network_card_index().or(Some(0)),
        )?,
        status: status(need("attachment.status", attachment.status())?)?,
        delete_on_termination: need(
            "attachment.deleteOnTermination",
            attachment.delete_on_termination(),
        )?,
    })
}

fn status(status: &SdkStatus) -> Result<AttachmentStatus, BadField> {
    match status {
        SdkStatus::Attaching => Ok(AttachmentStatus::Attaching),
        SdkStatus::Attached => Ok(AttachmentStatus::Attached),
        SdkStatus::Detaching | SdkStatus::Detached => Ok(AttachmentStatus::Detaching),
        new => Err(BadField::new("attachment.status", format!("{new} is not known"))),
    }
}

fn tags(tags: &[Tag]) -> Result<BTreeMap<String, String>, BadField> {
    tags.iter()
        .map(|tag| {
            let key = need("tagSet.key", tag.key())?;
            Ok((key.to_owned(), tag.value().unwrap_or_default().to_owned()))
        })
        .collect()
}
