//! EC2's answers, converted to `ipam`'s types.
//!
//! It trusts no field to be present or valid. It knows the answers of calls, and not the calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::str::FromStr;

use aws_sdk_ec2::operation::assign_ipv6_addresses::AssignIpv6AddressesOutput;
use aws_sdk_ec2::operation::assign_private_ip_addresses::AssignPrivateIpAddressesOutput;
use aws_sdk_ec2::operation::attach_network_interface::AttachNetworkInterfaceOutput;
use aws_sdk_ec2::operation::create_network_interface::CreateNetworkInterfaceOutput;
use aws_sdk_ec2::types::{
    AttachmentStatus as SdkStatus, NetworkInterface, NetworkInterfaceAttachment,
    NetworkInterfaceType, Subnet, Tag,
};
use ipam::block::Block;
use ipam::call::{AttachmentStatus, EniAttachment, EniFacts, EniKind, SubnetFacts};
use ipam::id::{EniAttachmentId, InstanceId, SecurityGroupId, VpcId};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mac::MacAddr;

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
    let attachment = eni.attachment().map(attachment).transpose()?;
    // For example an EFA-only ENI, or an ENI in an IPv6-only subnet.
    let has_no_ipv4 = eni.private_ip_address().is_none() && eni.private_ip_addresses().is_empty();
    let is_primary = attachment.as_ref().is_some_and(EniAttachment::is_primary);
    let is_unusable = has_no_ipv4 && !is_primary;
    Ok(EniFacts {
        id: id("networkInterfaceId", eni.network_interface_id())?,
        mac: parse::<MacAddr>("macAddress", eni.mac_address())?,
        subnet: id("subnetId", eni.subnet_id())?,
        security_groups: security_groups(eni)?,
        primary_address: match is_unusable {
            true => Ipv4Addr::UNSPECIFIED,
            false => parse("privateIpAddress", eni.private_ip_address())?,
        },
        blocks: blocks(eni)?,
        kind: match need("interfaceType", eni.interface_type())? {
            NetworkInterfaceType::Interface if !is_unusable => EniKind::Interface,
            _ => EniKind::Other,
        },
        attachment,
        tags: tags(eni.tag_set())?,
    })
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

pub(super) fn subnet(subnet: &Subnet) -> Result<SubnetFacts, BadField> {
    Ok(SubnetFacts {
        id: id("subnetId", subnet.subnet_id())?,
        cidr: parse("cidrBlock", subnet.cidr_block())?,
        free_addresses: number("availableIpAddressCount", subnet.available_ip_address_count())?,
        tags: tags(subnet.tags())?,
    })
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
