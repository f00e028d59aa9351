//! Network address usage: by which units AWS counts the addresses of a VPC against a quota.

use std::collections::{BTreeMap, BTreeSet};

use ipam::id::VpcId;
use serde::Serialize;

use crate::inventory::{Interface, Inventory};
use crate::percent;

/// Units of a VPC, and of it with those that it peers with in its Region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkUsage {
    /// Units of the VPC's own.
    pub units: u64,
    /// The share of `units` in the quota.
    pub percent: u64,
    /// Units of the VPC and its peers.
    pub peered_units: u64,
    /// Their share in the quota of peered VPCs.
    pub peered_percent: u64,
}

/// Quotas, in units. Source: AWS, "Amazon VPC quotas"; both can be raised fourfold.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    /// Of one VPC.
    pub vpc: u64,
    /// Of a VPC with its peers.
    pub peered: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { vpc: 64_000, peered: 128_000 }
    }
}

/// Kinds of interfaces that count as six units. Source: AWS, "Network Address Usage for your VPC".
const SERVICES: &[&str] = &[
    "nat_gateway",
    "network_load_balancer",
    "gateway_load_balancer",
    "vpc_endpoint",
    "gateway_load_balancer_endpoint",
    "transit_gateway",
    "lambda",
];
const UNITS_OF_SERVICE: u64 = 6;

/// The units of each VPC. Those of a peer outside of the inventory are not known and not counted.
pub(crate) fn network_usage(
    inventory: &Inventory,
    by_vpc: &BTreeMap<&VpcId, Vec<&Interface>>,
    quotas: Quotas,
) -> BTreeMap<VpcId, NetworkUsage> {
    let own: BTreeMap<&VpcId, u64> = inventory
        .vpcs
        .iter()
        .map(|vpc| {
            let interfaces = by_vpc.get(&vpc.id).into_iter().flatten();
            (&vpc.id, interfaces.map(|one| units(one)).sum())
        })
        .collect();
    let regions: BTreeMap<_, _> =
        inventory.vpcs.iter().map(|vpc| (&vpc.id, &vpc.place.region)).collect();
    let peers_of = |vpc: &VpcId| -> BTreeSet<&VpcId> {
        let ours = inventory.peerings.iter().filter(|peering| peering.vpcs.contains(vpc));
        let peers = ours.flat_map(|peering| &peering.vpcs).filter(|peer| *peer != vpc);
        peers.filter(|peer| regions.get(peer) == regions.get(vpc)).collect()
    };
    own.iter()
        .map(|(vpc, units)| {
            let peered = peers_of(vpc).iter().filter_map(|peer| own.get(peer)).sum::<u64>() + units;
            let usage = NetworkUsage {
                units: *units,
                percent: percent(*units, quotas.vpc),
                peered_units: peered,
                peered_percent: percent(peered, quotas.peered),
            };
            ((*vpc).clone(), usage)
        })
        .collect()
}

/// Each address and each prefix of an instance's interface is a unit, and so is each interface but its first.
fn units(interface: &Interface) -> u64 {
    if SERVICES.contains(&interface.kind.as_str()) {
        return UNITS_OF_SERVICE;
    }
    let is_further = interface
        .attachment
        .as_ref()
        .is_some_and(|to| to.instance.is_some() && to.device_index > 0);
    (interface.addresses.len() + interface.prefixes.len() + usize::from(is_further)) as u64
}
