//! Pools of Amazon VPC IPAM: how full they are, and which allocations break their rules.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;

use crate::inventory::{Allocation, Inventory, Pool, Tags};
use crate::percent;
use crate::span::{Span, merged, total};
use crate::subnet::v4;

/// A pool, and what is wrong in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolUse {
    /// Its id.
    pub id: String,
    /// Its scope.
    pub scope: String,
    /// The Region that it serves.
    pub locale: Option<String>,
    /// Its ranges.
    pub cidrs: Vec<IpNet>,
    /// IPv4 addresses that are provisioned.
    pub provisioned: u64,
    /// IPv4 addresses that are allocated to resources and other pools.
    pub allocated: u64,
    /// The share of `allocated` in `provisioned`.
    pub percent: u64,
    /// One sentence for each allocation that breaks a rule of the pool.
    pub broken_rules: Vec<String>,
}

/// All pools, in the order of the inventory.
pub(crate) fn pools(inventory: &Inventory) -> Vec<PoolUse> {
    let vpcs = inventory.vpcs.iter().map(|vpc| (vpc.id.as_str(), &vpc.tags));
    let subnets = inventory.subnets.iter().map(|subnet| (subnet.id.as_str(), &subnet.tags));
    let tags: BTreeMap<&str, &Tags> = vpcs.chain(subnets).collect();
    inventory.pools.iter().map(|pool| pool_use(pool, &tags)).collect()
}

fn pool_use(pool: &Pool, tags: &BTreeMap<&str, &Tags>) -> PoolUse {
    let sum = |cidrs: &mut dyn Iterator<Item = IpNet>| {
        total(&merged(cidrs.filter_map(v4).map(Span::of).collect()))
    };
    let provisioned = sum(&mut pool.cidrs.iter().copied());
    let allocated = sum(&mut pool.allocations.iter().map(|one| one.cidr));
    let broken = pool.allocations.iter().flat_map(|one| broken_rules(pool, one, tags));
    PoolUse {
        id: pool.id.clone(),
        scope: pool.scope.clone(),
        locale: pool.locale.clone(),
        cidrs: pool.cidrs.clone(),
        provisioned,
        allocated,
        percent: percent(allocated, provisioned),
        broken_rules: broken.collect(),
    }
}

/// The rules are for resources. A pool that draws from a pool obeys none.
fn broken_rules(pool: &Pool, allocation: &Allocation, tags: &BTreeMap<&str, &Tags>) -> Vec<String> {
    if allocation.kind == "ipam-pool" {
        return vec![];
    }
    let rules = &pool.rules;
    let what = allocation.resource.as_deref().unwrap_or(&allocation.kind);
    let cidr = allocation.cidr;
    let length = cidr.prefix_len();
    let mut broken = vec![];
    if let Some(min) = rules.min_netmask.filter(|min| length < *min) {
        broken.push(format!("{what}: {cidr} is larger than the /{min} that the pool allows"));
    }
    if let Some(max) = rules.max_netmask.filter(|max| length > *max) {
        broken.push(format!("{what}: {cidr} is smaller than the /{max} that the pool allows"));
    }
    if let (Some(locale), Some(region)) = (&pool.locale, &allocation.region)
        && locale != region
    {
        broken.push(format!("{what}: {cidr} is in {region}, and the pool is for {locale}"));
    }
    // Tags of what the reader has not seen are not known.
    if let Some(has) = allocation.resource.as_deref().and_then(|id| tags.get(id)) {
        let missing = rules.tags.iter().filter(|(key, value)| has.get(*key) != Some(value));
        broken.extend(missing.map(|(key, value)| format!("{what}: lacks the tag {key}={value}")));
    }
    broken
}
