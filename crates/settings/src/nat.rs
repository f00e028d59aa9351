//! How pods reach what is outside the VPC or of the other family: nine settings make one policy.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use ipam::block::BlockKind;
use ipam::policy::{EgressPolicy, NatPolicy, SourceNatPolicy, SourcePorts};
use ipnet::Ipv4Net;

use crate::registry::{
    AWS_EXTERNAL_SERVICE_CIDRS, AWS_VPC_CNI_NODE_PORT_SUPPORT, AWS_VPC_K8S_CNI_CONNMARK,
    AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS, AWS_VPC_K8S_CNI_EXTERNALSNAT,
    AWS_VPC_K8S_CNI_RANDOMIZESNAT, AWS_VPC_K8S_CNI_VETHPREFIX, Setting,
};
use crate::{SettingError, Variables, egress};

/// A node has one routing rule or one element of a set for each, so more would cost every packet time.
const MOST_RANGES: usize = 1000;
/// In characters: the plugin appends eleven, and a name of an interface has fifteen at most.
const LONGEST_PREFIX: usize = 4;

/// The policy of the settings. All of them are checked, even those that others leave without effect.
pub(crate) fn policy(variables: &Variables, kind: BlockKind) -> Result<NatPolicy, SettingError> {
    let ports = ports(variables)?;
    let excluded = ranges(variables, &AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS, 0)?;
    let is_outside = variables.boolean(&AWS_VPC_K8S_CNI_EXTERNALSNAT)?;
    Ok(NatPolicy {
        source: (!is_outside).then_some(SourceNatPolicy { ports, excluded }),
        node_ports: variables.boolean(&AWS_VPC_CNI_NODE_PORT_SUPPORT)?,
        mark: mark(variables)?,
        by_main_table: ranges(variables, &AWS_EXTERNAL_SERVICE_CIDRS, 1)?,
        pod_links: pod_links(variables)?,
        egress: EgressPolicy { to: egress::to(variables, kind)?, ports },
    })
}

pub(crate) fn ports(variables: &Variables) -> Result<SourcePorts, SettingError> {
    let setting = &AWS_VPC_K8S_CNI_RANDOMIZESNAT;
    match variables.text(setting).unwrap_or_default() {
        "prng" => Ok(SourcePorts::Random),
        "hashrandom" => Ok(SourcePorts::Hashed),
        "none" => Ok(SourcePorts::Kept),
        _ => Err(variables.error(setting, "expected prng, hashrandom or none")),
    }
}

/// Ranges in CIDR notation, with commas. Bits after the prefix are dropped, as amazon-vpc-cni-k8s does.
pub(crate) fn ranges(
    variables: &Variables,
    setting: &'static Setting,
    shortest: u8,
) -> Result<BTreeSet<Ipv4Net>, SettingError> {
    let text = variables.text(setting).unwrap_or_default();
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let range = |item: &str| item.parse::<Ipv4Net>().ok().map(|range| range.trunc());
    let range = |item| range(item).filter(|range| range.prefix_len() >= shortest);
    let ranges: Option<BTreeSet<_>> = items.map(range).collect();
    ranges.filter(|ranges| ranges.len() <= MOST_RANGES).ok_or_else(|| {
        let allowed = format!(
            "expected at most {MOST_RANGES} IPv4 ranges like 10.0.0.0/8, with commas, of \
             {shortest} bits or more"
        );
        variables.error(setting, &allowed)
    })
}

pub(crate) fn mark(variables: &Variables) -> Result<NonZeroU32, SettingError> {
    let setting = &AWS_VPC_K8S_CNI_CONNMARK;
    let text = variables.text(setting).unwrap_or_default();
    let mark = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let mark = mark.ok().and_then(NonZeroU32::new);
    mark.ok_or_else(|| variables.error(setting, "expected 0x1 to 0xffffffff, or 1 to 4294967295"))
}

fn pod_links(variables: &Variables) -> Result<String, SettingError> {
    let setting = &AWS_VPC_K8S_CNI_VETHPREFIX;
    let text = variables.text(setting).unwrap_or_default();
    let is_usable =
        text.len() <= LONGEST_PREFIX && text.bytes().all(|it| it.is_ascii_alphanumeric());
    match is_usable && !["eth", "vlan", "lo"].contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(variables.error(
            setting,
            "expected up to 4 letters and digits, and none of eth, vlan and lo, whose interfaces are not pods'",
        )),
    }
}
