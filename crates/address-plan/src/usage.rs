//! What an IPAM knows of each CIDR of a resource, and how far pools and scopes are used.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::block::{Block, Family};
use crate::id::{Account, IpamId, PoolId, Region, ResourceId, ScopeId};
use crate::overlap::Networks;
use crate::plan::AddressPlan;
use crate::pool::{Hold, PoolRecord};
use crate::request::ResourceKind;
use crate::resource::{Detail, Resource, Sample};
use crate::response::{
    ComplianceStatus, Holder, Ipam, ManagementState, OverlapStatus, ResourceCidr,
};
use crate::store::{Decision, Store};

/// How a pool's space is used, in shares of it from 0 to 1. What rests after a release is in none
/// of them. As CloudWatch has it: PercentAllocated, PercentAssigned, PercentAvailable.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PoolUsage {
    /// Given to pools below.
    pub allocated: f64,
    /// Given to resources, or allocated by hand.
    pub assigned: f64,
    /// Free.
    pub available: f64,
}

/// How many resource CIDRs of a scope have each status, as CloudWatch counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScopeCounts {
    /// They obey the rules of their pool.
    pub compliant: usize,
    /// They break a rule of their pool.
    pub noncompliant: usize,
    /// They are in a pool.
    pub managed: usize,
    /// They are in no pool.
    pub unmanaged: usize,
    /// Another network of the scope has a part of them.
    pub overlapping: usize,
    /// No other network of the scope has a part of them.
    pub nonoverlapping: usize,
}

impl AddressPlan {
    /// How a pool's space is used now. `None` if there is no such pool, or it has no CIDR.
    #[must_use]
    pub fn pool_usage(&self, id: &PoolId) -> Option<PoolUsage> {
        let space = self.store.pools.get(id)?.space();
        let total: f64 = space.ranges().map(Block::share).sum();
        if total == 0.0 {
            return None;
        }
        let mut usage = PoolUsage::default();
        for (block, hold) in space.held() {
            match hold {
                Hold::Allocated(it) if matches!(it.holder, Holder::Pool(_)) => {
                    usage.allocated += block.share();
                }
                Hold::Allocated(_) => usage.assigned += block.share(),
                Hold::Resting(_) => {}
            }
        }
        usage.available = space.free().map(Block::share).sum();
        Some(PoolUsage {
            allocated: usage.allocated / total,
            assigned: usage.assigned / total,
            available: usage.available / total,
        })
    }

    /// How many resource CIDRs of a scope have each status, by the samples that the API shows.
    #[must_use]
    pub fn scope_counts(&self, id: &ScopeId) -> ScopeCounts {
        let mut counts = ScopeCounts::default();
        let ipam = self.store.scopes.get(id).and_then(|scope| self.store.ipams.get(&scope.ipam));
        let cidrs = ipam.map(|ipam| self.store.resource_cidrs(ipam)).unwrap_or_default();
        for it in cidrs.iter().filter(|it| it.scope == *id) {
            match it.compliance {
                ComplianceStatus::Compliant => counts.compliant += 1,
                ComplianceStatus::Noncompliant => counts.noncompliant += 1,
                ComplianceStatus::Unmanaged | ComplianceStatus::Ignored => {}
            }
            match it.management {
                ManagementState::Managed => counts.managed += 1,
                ManagementState::Unmanaged => counts.unmanaged += 1,
                ManagementState::Ignored => {}
            }
            match it.overlap {
                OverlapStatus::Overlapping => counts.overlapping += 1,
                OverlapStatus::Nonoverlapping => counts.nonoverlapping += 1,
                OverlapStatus::Ignored => {}
            }
        }
        counts
    }
}

/// One CIDR of a resource, before anything is judged.
#[derive(Debug, Clone)]
pub(crate) struct Found<'a> {
    pub(crate) owner: &'a Account,
    pub(crate) region: &'a Region,
    pub(crate) resource: &'a Resource,
    pub(crate) cidr: IpNet,
    pub(crate) usage: Option<f64>,
}

/// All CIDRs of all resources in a sample.
pub(crate) fn found_in<'a>(
    sample: &'a Sample,
    owner: &'a Account,
    region: &'a Region,
) -> Vec<Found<'a>> {
    let mut in_subnets: BTreeMap<&ResourceId, Vec<Block>> = BTreeMap::new();
    for resource in &sample.resources {
        if let (Detail::Subnet { cidrs, .. }, Some(vpc)) = (&resource.detail, &resource.vpc) {
            in_subnets.entry(vpc).or_default().extend(cidrs.iter().copied().map(Block::from));
        }
    }
    let usage = |resource: &Resource, cidr: IpNet| -> Option<f64> {
        if Family::of(cidr) == Family::Ipv6 {
            return None;
        }
        let block = Block::from(cidr);
        match &resource.detail {
            Detail::Vpc { .. } => {
                let subnets = in_subnets.get(&resource.id).into_iter().flatten();
                let used: f64 =
                    subnets.filter(|it| block.contains(**it)).map(|it| it.share()).sum();
                Some(used / block.share())
            }
            Detail::Subnet { n_in_use, .. } => {
                let n_in_use = u32::try_from(*n_in_use).map_or(f64::MAX, f64::from);
                let size = 2f64.powi(32 - i32::from(block.prefix_len()));
                Some((n_in_use / size).min(1.0))
            }
            Detail::Eni { .. } | Detail::Eip { .. } => None,
        }
    };
    let of_resource = |resource: &'a Resource| {
        let cidrs = resource.cidrs().into_iter();
        let found = |cidr| Found { owner, region, resource, cidr, usage: usage(resource, cidr) };
        cidrs.map(found).collect::<Vec<_>>()
    };
    sample.resources.iter().flat_map(of_resource).collect()
}

impl Store {
    /// All CIDRs of resources that an IPAM sees, ascending by scope, CIDR and resource.
    pub(crate) fn resource_cidrs(&self, ipam: &Ipam) -> Vec<ResourceCidr> {
        let found = self.seen_by(ipam);
        let networks = self.networks(ipam, &found);
        let managers = self.managers(&ipam.id);
        let mut judged: Vec<ResourceCidr> =
            found.iter().map(|it| self.judge(ipam, it, &networks, &managers)).collect();
        judged
            .sort_by(|a, b| (&a.scope, a.cidr, &a.resource).cmp(&(&b.scope, b.cidr, &b.resource)));
        judged
    }

    /// Everything in the places that an IPAM sees.
    pub(crate) fn seen_by(&self, ipam: &Ipam) -> Vec<Found<'_>> {
        let places = self.places_seen_by(ipam);
        let shown = self.samples.iter().filter(|(place, _)| places.contains(place));
        shown.flat_map(|((owner, region), it)| found_in(&it.sample, owner, region)).collect()
    }

    /// The scope of a CIDR, and whether it is monitored.
    pub(crate) fn decision(&self, ipam: &Ipam, found: &Found<'_>) -> Decision {
        let key = (ipam.id.clone(), found.resource.id.clone(), found.cidr);
        let is_eip = found.resource.kind() == ResourceKind::Eip;
        self.decisions.get(&key).cloned().unwrap_or_else(|| Decision {
            scope: self.scope_of(ipam, found.cidr, is_eip).clone(),
            monitored: true,
        })
    }

    /// The CIDRs of all monitored VPCs, by scope.
    fn networks(&self, ipam: &Ipam, found: &[Found<'_>]) -> BTreeMap<ScopeId, Networks> {
        let mut networks: BTreeMap<ScopeId, Networks> = BTreeMap::new();
        for it in found.iter().filter(|it| it.resource.kind() == ResourceKind::Vpc) {
            let Decision { scope, monitored } = self.decision(ipam, it);
            if monitored {
                networks.entry(scope).or_default().add(it.cidr, &it.resource.id);
            }
        }
        networks
    }

    /// The pool that each CIDR of a resource has its allocation from.
    fn managers(&self, ipam: &IpamId) -> BTreeMap<(ResourceId, IpNet), &PoolRecord> {
        let pools = self.pools.values().filter(|record| record.pool.ipam == *ipam);
        let managed = |record: &'_ PoolRecord| {
            let allocations = record.allocations();
            let of = allocations.filter_map(|it| Some((it.holder.resource()?.clone(), it.cidr)));
            of.collect::<Vec<_>>()
        };
        pools.flat_map(|record| managed(record).into_iter().map(move |key| (key, record))).collect()
    }

    fn judge(
        &self,
        ipam: &Ipam,
        found: &Found<'_>,
        networks: &BTreeMap<ScopeId, Networks>,
        managers: &BTreeMap<(ResourceId, IpNet), &PoolRecord>,
    ) -> ResourceCidr {
        let Found { owner, region, resource, cidr, usage } = found;
        let Decision { scope, monitored } = self.decision(ipam, found);
        let manager = managers.get(&(resource.id.clone(), *cidr)).filter(|_| monitored);
        let obeys = |record: &&&PoolRecord| {
            let pool = &record.pool;
            let len = cidr.prefix_len();
            pool.rules.violations(pool.locale.as_ref(), len, &resource.tags, region).is_empty()
        };
        let other = networks.get(&scope).zip(resource.vpc.as_ref());
        let overlaps = other.is_some_and(|(it, vpc)| it.other_with(*cidr, vpc).is_some());
        let (management, compliance, overlap) = match (monitored, manager) {
            (false, _) => {
                (ManagementState::Ignored, ComplianceStatus::Ignored, OverlapStatus::Ignored)
            }
            (true, manager) => (
                manager.map_or(ManagementState::Unmanaged, |_| ManagementState::Managed),
                manager.map_or(ComplianceStatus::Unmanaged, |record| match obeys(&record) {
                    true => ComplianceStatus::Compliant,
                    false => ComplianceStatus::Noncompliant,
                }),
                match overlaps {
                    true => OverlapStatus::Overlapping,
                    false => OverlapStatus::Nonoverlapping,
                },
            ),
        };
        ResourceCidr {
            ipam: ipam.id.clone(),
            scope,
            pool: manager.map(|record| record.pool.id.clone()),
            region: (*region).clone(),
            owner: (*owner).clone(),
            resource: resource.id.clone(),
            kind: resource.kind(),
            cidr: *cidr,
            tags: resource.tags.clone(),
            usage: *usage,
            compliance,
            management,
            overlap,
            vpc: resource.vpc.clone(),
            zone_id: resource.zone_id.clone(),
        }
    }
}
