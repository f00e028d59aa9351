//! How pods' packets leave the VPC: the VPC's ranges, and the translation that follows from them and from the policy.
//! And how pods reach the family that their VPC addresses are not of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::context::Context;
use crate::block::Family;
use crate::eni::Origin;
use crate::event::{HostEgress, HostEni, HostNat, Nat, SourceNat};
use crate::node_local;
use crate::policy::EgressPolicy;
use crate::pool::Pool;
use crate::record::{Change, Record};
use crate::time::Timestamp;

/// How long a range stays that the metadata service does not show any more. An answer may have been cut off. Too long a
/// stay does little harm: nobody has the range's addresses any more.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// The VPC's IPv4 ranges by the metadata service.
#[derive(Debug, Clone)]
pub(super) struct VpcRanges {
    /// Empty until they are known.
    known: BTreeSet<Ipv4Net>,
    /// The known ranges that the last answers lack, and since when.
    missing: BTreeMap<Ipv4Net, Timestamp>,
    /// What is on record, or on its way there.
    noted: BTreeSet<Ipv4Net>,
}

impl VpcRanges {
    /// The ranges on record hold until there is an answer: a VPC keeps most of its ranges for ever.
    pub(super) fn new(record: &Record) -> Self {
        let known = record.vpc_ranges().clone();
        Self { noted: known.clone(), known, missing: BTreeMap::new() }
    }

    /// Takes in an answer. No VPC is without a range, so an answer without one says nothing.
    pub(super) fn take_in(&mut self, shown: BTreeSet<Ipv4Net>, now: Timestamp) {
        if shown.is_empty() {
            return;
        }
        self.missing.retain(|range, _| !shown.contains(range));
        for range in self.known.difference(&shown) {
            self.missing.entry(*range).or_insert(now);
        }
        let is_over = |since: &Timestamp| *since + KEPT_FOR <= now;
        self.missing.retain(|range, since| {
            let stays = !is_over(since);
            if !stays {
                self.known.remove(range);
            }
            stays
        });
        self.known.extend(shown);
    }

    /// The change that the record has yet to learn.
    pub(super) fn news(&mut self) -> Option<Change> {
        if self.known == self.noted {
            return None;
        }
        self.noted.clone_from(&self.known);
        Some(Change::VpcRanges { ranges: self.known.clone() })
    }

    /// The translation that the host must have, with these ENIs. Ranges of the ENIs' own subnets are never translated,
    /// whatever the metadata service shows.
    pub(super) fn nat(&self, pool: &Pool, enis: &[HostEni], cx: Context<'_>) -> HostNat {
        if cx.families().of(Family::V4).is_none() {
            return HostNat::Absent;
        }
        let policy = &cx.policy.nat;
        let nat = |source| {
            HostNat::Wanted(Nat {
                pod_links: policy.pod_links.clone(),
                mark: policy.mark,
                source,
                node_ports: policy.node_ports,
                by_main_table: policy.by_main_table.clone(),
            })
        };
        let Some(wanted) = &policy.source else { return nat(None) };
        if self.known.is_empty() {
            return HostNat::Unknown(
                "the metadata service has not shown the VPC's IPv4 ranges yet, which pods reach with \
                 their own addresses; see that it answers",
            );
        }
        let Some(address) = primary_address(pool) else {
            return HostNat::Unknown(
                "EC2 has not described the primary ENI yet, whose address pods get outside the VPC",
            );
        };
        let subnets = enis.iter().filter_map(|eni| match eni.subnet_cidr {
            IpNet::V4(range) => Some(range),
            IpNet::V6(_) => None,
        });
        let untranslated = self.known.iter().chain(&wanted.excluded).copied().chain(subnets);
        nat(Some(SourceNat { address, ports: wanted.ports, untranslated: untranslated.collect() }))
    }
}

/// How node-local addresses are translated. Also those that running pods have from earlier settings, by the record or
/// the kernel.
pub(super) fn egress(pool: &Pool, record: &Record, cx: Context<'_>) -> HostEgress {
    let EgressPolicy { to, ports } = cx.policy.nat.egress;
    HostEgress { families: node_local::families_in_use(pool, record).chain(to).collect(), ports }
}

fn primary_address(pool: &Pool) -> Option<Ipv4Addr> {
    let primary = pool.enis.values().find(|eni| eni.origin == Origin::Primary)?;
    match primary.primary_address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
