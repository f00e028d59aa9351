//! The audit: all sums of an inventory, and the findings that they give with the user's thresholds.
//!
//! It must not know how either is printed.

mod finding;

use std::collections::BTreeMap;

use ipam::id::{SubnetId, VpcId};
use ipnet::IpNet;
use serde::Serialize;

pub use self::finding::{Finding, Severity};

use crate::holder::{Holder, holder, left_by};
use crate::inventory::{Gap, Interface, Inventory, Place, Vpc, name};
use crate::network_usage::{NetworkUsage, Quotas, network_usage};
use crate::node::{Node, Pods, nodes};
use crate::overlap::{Overlap, overlaps};
use crate::percent;
use crate::pool::{PoolUse, pools};
use crate::span::{Span, merged, total};
use crate::subnet::{PREFIX_SIZE, SubnetUse, subnet_use, v4};

/// By what the user judges.
#[derive(Debug, Clone)]
pub struct Options {
    /// From this share on, in percent, something is a warning.
    pub warn_at: u64,
    /// From this share on, in percent, something is a failure.
    pub fail_at: u64,
    /// Overlaps within these ranges are as somebody wants them.
    pub expected: Vec<IpNet>,
    /// The quotas of network address usage.
    pub quotas: Quotas,
    /// Pods on nodes.
    pub pods: Pods,
}

/// All that an audit shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// Overlaps, the worst first, at most [`crate::overlap::MOST`].
    pub overlaps: Vec<Overlap>,
    /// The number of all overlaps.
    pub n_overlaps: usize,
    /// VPCs.
    pub vpcs: Vec<VpcUse>,
    /// Subnets with IPv4.
    pub subnets: Vec<SubnetUse>,
    /// Pools of Amazon VPC IPAM.
    pub pools: Vec<PoolUse>,
    /// Addresses by holder.
    pub holders: Vec<HolderUse>,
    /// Nodes of clusters.
    pub nodes: Vec<Node>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// A VPC, with counts of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VpcUse {
    /// Its id.
    pub id: VpcId,
    /// Its name, or its id.
    pub name: String,
    /// Its owner and Region.
    pub place: Place,
    /// Its ranges, the primary first.
    pub cidrs: Vec<IpNet>,
    /// Addresses of its ranges.
    pub size: u64,
    /// Addresses of its subnets.
    pub in_subnets: u64,
    /// The share of `in_subnets` in `size`.
    pub percent: u64,
    /// Addresses in use.
    pub used: u64,
    /// Units by which AWS counts.
    pub network_usage: NetworkUsage,
}

/// What a kind of holder has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HolderUse {
    /// Who.
    pub holder: Holder,
    /// Interfaces.
    pub n_enis: u64,
    /// IPv4 addresses, those of prefixes included.
    pub addresses: u64,
    /// IPv4 prefixes.
    pub prefixes: u64,
}

/// Sums up and judges. Cost: O(n log n) in interfaces and ranges, and linear in overlaps.
#[must_use]
pub fn audit(inventory: &Inventory, options: &Options) -> Audit {
    let mut by_subnet: BTreeMap<&SubnetId, Vec<&Interface>> = BTreeMap::new();
    for interface in &inventory.interfaces {
        by_subnet.entry(&interface.subnet).or_default().push(interface);
    }
    let mut by_vpc: BTreeMap<&VpcId, Vec<&Interface>> = BTreeMap::new();
    let mut in_range: BTreeMap<(&VpcId, IpNet), usize> = BTreeMap::new();
    let ranges: BTreeMap<&VpcId, &Vec<IpNet>> =
        inventory.vpcs.iter().map(|vpc| (&vpc.id, &vpc.cidrs)).collect();
    let mut subnets = vec![];
    for subnet in &inventory.subnets {
        let ours = by_subnet.get(&subnet.id).map_or(&[][..], Vec::as_slice);
        by_vpc.entry(&subnet.vpc).or_default().extend(ours);
        let own = [subnet.cidr.map(IpNet::V4), subnet.ipv6_cidr.map(IpNet::V6)];
        for range in ranges.get(&subnet.vpc).into_iter().flat_map(|ranges| *ranges) {
            if own.iter().flatten().any(|cidr| range.contains(cidr)) {
                *in_range.entry((&subnet.vpc, *range)).or_default() += ours.len();
            }
        }
        subnets.extend(subnet_use(subnet, ours.iter().copied()));
    }
    let n_interfaces =
        |vpc: &VpcId, range: IpNet| in_range.get(&(vpc, range)).copied().unwrap_or_default();
    let found = overlaps(inventory, &options.expected, &n_interfaces);
    let mut usage = network_usage(inventory, &by_vpc, options.quotas);
    let vpcs = inventory
        .vpcs
        .iter()
        .filter_map(|vpc| Some(vpc_use(vpc, &subnets, usage.remove(&vpc.id)?)));
    let mut audit = Audit {
        findings: vec![],
        n_overlaps: found.n_all,
        overlaps: found.overlaps,
        vpcs: vpcs.collect(),
        pools: pools(inventory),
        holders: holders(inventory),
        nodes: nodes(inventory, &options.pods),
        gaps: inventory.gaps.clone(),
        subnets,
    };
    audit.findings = finding::findings(&audit, &left_behind(inventory), options);
    audit
}

fn vpc_use(vpc: &Vpc, subnets: &[SubnetUse], network_usage: NetworkUsage) -> VpcUse {
    let ours = || subnets.iter().filter(|subnet| subnet.vpc == vpc.id);
    let ranges = vpc.cidrs.iter().copied().filter_map(v4).map(Span::of);
    let size = total(&merged(ranges.collect()));
    let in_subnets = ours().map(|subnet| Span::of(subnet.cidr).len()).sum();
    VpcUse {
        id: vpc.id.clone(),
        name: name(&vpc.tags, vpc.id.as_str()).to_owned(),
        place: vpc.place.clone(),
        cidrs: vpc.cidrs.clone(),
        size,
        in_subnets,
        percent: percent(in_subnets, size),
        used: ours().map(|subnet| subnet.room.used).sum(),
        network_usage,
    }
}

/// Those with most addresses first.
fn holders(inventory: &Inventory) -> Vec<HolderUse> {
    let instances: BTreeMap<_, _> =
        inventory.instances.iter().map(|instance| (&instance.id, instance)).collect();
    let mut sums: BTreeMap<Holder, HolderUse> = BTreeMap::new();
    for interface in &inventory.interfaces {
        let attached = interface.attachment.as_ref().and_then(|to| to.instance.as_ref());
        let instance = attached.and_then(|id| instances.get(id)).copied();
        let holder = holder(interface, instance);
        let sum = sums.entry(holder.clone()).or_insert(HolderUse {
            holder,
            n_enis: 0,
            addresses: 0,
            prefixes: 0,
        });
        let prefixes = interface.prefixes.iter().filter(|prefix| v4(**prefix).is_some()).count();
        let single = interface.addresses.iter().filter(|address| address.is_ipv4()).count();
        sum.n_enis += 1;
        sum.prefixes += prefixes as u64;
        sum.addresses += single as u64 + PREFIX_SIZE * prefixes as u64;
    }
    let mut sorted: Vec<_> = sums.into_values().collect();
    sorted.sort_by_key(|sum| (std::cmp::Reverse(sum.addresses), sum.holder.clone()));
    sorted
}

/// Interfaces that a CNI plugin has created for an instance that is gone.
fn left_behind(inventory: &Inventory) -> Vec<&Interface> {
    // Without instances nobody can say which are gone.
    if inventory.instances.is_empty() {
        return vec![];
    }
    let is_gone = |interface: &&Interface| {
        let of = left_by(interface);
        of.is_some_and(|id| inventory.instances.iter().all(|instance| instance.id != id))
    };
    inventory.interfaces.iter().filter(is_gone).collect()
}
