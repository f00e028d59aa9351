//! The addresses that Amazon VPC IPAM bills: active addresses.
//!
//! An address is active if it belongs to an ENI that is attached, or is an Elastic IP address in
//! use. AWS does not say whether a delegated IPv4 prefix counts as one or as its sixteen addresses.
//! So there are two bounds. An IPv6 prefix counts as one in both, as no source says otherwise.

use std::collections::BTreeMap;

use crate::block::Family;
use crate::id::{Account, IpamId, Region, ResourceId};
use crate::plan::AddressPlan;
use crate::resource::Detail;

/// Bounds of the number of active addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActiveAddresses {
    /// Single addresses: primary, secondary, Elastic.
    pub addresses: u64,
    /// Delegated prefixes.
    pub prefixes: u64,
    /// Addresses in delegated IPv4 prefixes, and one for each IPv6 prefix.
    pub in_prefixes: u64,
}

impl ActiveAddresses {
    /// If a prefix counts as one.
    #[must_use]
    pub const fn at_least(self) -> u64 {
        self.addresses + self.prefixes
    }

    /// If a /28 counts as sixteen.
    #[must_use]
    pub const fn at_most(self) -> u64 {
        self.addresses + self.in_prefixes
    }

    fn add(&mut self, other: Self) {
        self.addresses += other.addresses;
        self.prefixes += other.prefixes;
        self.in_prefixes += other.in_prefixes;
    }
}

/// The active addresses of one ENI or Elastic IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveEntry {
    /// Who owns it, and pays if the IPAM meters resource owners.
    pub owner: Account,
    /// Where it is.
    pub region: Region,
    /// The ENI or Elastic IP address.
    pub resource: ResourceId,
    /// Its VPC.
    pub vpc: Option<ResourceId>,
    /// The instance that has the ENI.
    pub instance: Option<ResourceId>,
    /// How many it has.
    pub active: ActiveAddresses,
}

impl AddressPlan {
    /// The active addresses that an IPAM bills, by the samples that the API shows. What the IPAM
    /// ignores is monitored no more, and counts no more. Ascending by account, Region and resource.
    #[must_use]
    pub fn active_entries(&self, ipam: &IpamId) -> Vec<ActiveEntry> {
        let Some(ipam) = self.store.ipams.get(ipam) else { return Vec::new() };
        let mut entries: BTreeMap<(Account, Region, ResourceId), ActiveEntry> = BTreeMap::new();
        for found in self.store.seen_by(ipam) {
            let instance = match &found.resource.detail {
                Detail::Eni { instance: Some(instance), .. } => Some(instance.clone()),
                Detail::Eip { in_use: true, .. } => None,
                Detail::Eni { instance: None, .. }
                | Detail::Eip { in_use: false, .. }
                | Detail::Vpc { .. }
                | Detail::Subnet { .. } => continue,
            };
            if !self.store.decision(ipam, &found).monitored {
                continue;
            }
            let len = found.cidr.prefix_len();
            let family = Family::of(found.cidr);
            let active = match family {
                _ if len == family.bits() => ActiveAddresses { addresses: 1, ..Default::default() },
                Family::Ipv4 => ActiveAddresses {
                    addresses: 0,
                    prefixes: 1,
                    in_prefixes: 1 << (family.bits() - len),
                },
                Family::Ipv6 => ActiveAddresses { addresses: 0, prefixes: 1, in_prefixes: 1 },
            };
            let id = found.resource.id.clone();
            let key = (found.owner.clone(), found.region.clone(), id.clone());
            let entry = entries.entry(key).or_insert_with(|| ActiveEntry {
                owner: found.owner.clone(),
                region: found.region.clone(),
                resource: id,
                vpc: found.resource.vpc.clone(),
                instance,
                active: ActiveAddresses::default(),
            });
            entry.active.add(active);
        }
        entries.into_values().collect()
    }

    /// The sum of [`AddressPlan::active_entries`].
    #[must_use]
    pub fn active_addresses(&self, ipam: &IpamId) -> ActiveAddresses {
        let mut sum = ActiveAddresses::default();
        for entry in self.active_entries(ipam) {
            sum.add(entry.active);
        }
        sum
    }
}
