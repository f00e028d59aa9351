//! The incumbent's data store: ENIs, their CIDRs, and the assigned addresses. Its maps iterate in
//! random order, so each loop here shuffles.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ec2_model::Rng;
use ec2_model::id::EniId;
use ipam::block::BlockKind;
use ipam::policy::{Limits, Policy};
use ipam::time::Timestamp;
use ipnet::Ipv4Net;

use crate::daemon::SandboxId;

/// The least age of an ENI that may be freed.
const MIN_ENI_AGE: Duration = Duration::from_secs(60);
/// How long reconciling ignores a CIDR that was unassigned.
const RECONCILE_COOLDOWN: Duration = Duration::from_secs(60);
const PREFIX_SIZE: u64 = 16;

/// The data store of network card 0.
#[derive(Debug)]
pub(super) struct Store {
    kind: Kind,
    cooldown: Duration,
    /// CIDRs per ENI, of both kinds together.
    pub(super) cidrs_per_eni: usize,
    pub(super) enis: BTreeMap<EniId, StoredEni>,
    owned: BTreeMap<SandboxId, (EniId, Ipv4Net, Ipv4Addr)>,
    given_back: BTreeMap<Ipv4Net, Timestamp>,
}

#[derive(Debug)]
pub(super) struct StoredEni {
    pub(super) is_primary: bool,
    since: Timestamp,
    pub(super) cidrs: BTreeMap<Ipv4Net, Cidr>,
}

/// The addresses of one CIDR that were ever assigned.
#[derive(Debug, Default)]
pub(super) struct Cidr {
    /// The time of the address's release. `None` while it is assigned.
    given: BTreeMap<Ipv4Addr, Option<Timestamp>>,
}

impl Cidr {
    fn n_assigned(&self) -> u64 {
        let assigned = self.given.values().filter(|freed| freed.is_none()).count();
        u64::try_from(assigned).expect("a CIDR has at most 16 addresses")
    }

    fn is_cooling(&self, cooldown: Duration, now: Timestamp) -> bool {
        self.given.values().flatten().any(|freed| rests(*freed, cooldown, now))
    }

    /// An address whose cooldown is over, else the lowest that was never assigned. Forgets all
    /// whose cooldown is over.
    fn pick(&mut self, net: Ipv4Net, cooldown: Duration, now: Timestamp) -> Option<Ipv4Addr> {
        let has_rested =
            |freed: &Option<Timestamp>| freed.is_some_and(|at| !rests(at, cooldown, now));
        let mut rested = self.given.extract_if(.., |_, freed| has_rested(freed));
        let first = rested.next().map(|(address, _)| address);
        rested.for_each(drop);
        let (low, high) = (u32::from(net.network()), u32::from(net.broadcast()));
        let fresh = || (low..=high).map(Ipv4Addr::from).find(|ip| !self.given.contains_key(ip));
        first.or_else(fresh)
    }
}

/// Whether an address is in cooldown, including the last moment of the period.
fn rests(freed: Timestamp, cooldown: Duration, now: Timestamp) -> bool {
    now.since(freed) <= cooldown
}

/// The sums on which the pool's rules depend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// Addresses of the CIDRs of the store's kind.
    pub(super) total: u64,
    pub(super) assigned: u64,
    pub(super) cidrs: u64,
    /// CIDRs without an assigned address, including those in cooldown.
    pub(super) free_cidrs: u64,
}

impl Stats {
    /// Addresses in cooldown count as available.
    pub(super) fn available(self) -> u64 {
        self.total - self.assigned
    }
}

/// The kind of CIDR that addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Secondary addresses. Each is a CIDR of its own.
    Address,
    /// /28 prefixes.
    Prefix,
}

impl Store {
    pub(super) fn new(policy: &Policy, limits: Limits) -> Self {
        Self {
            kind: match limits.families(policy).policy().kind {
                BlockKind::V4Address => Kind::Address,
                BlockKind::V4Prefix => Kind::Prefix,
                BlockKind::V6Prefix => unreachable!("no node of the lab has IPv6 pods"),
            },
            cooldown: policy.timing.cooldown,
            cidrs_per_eni: usize::from(limits.blocks_per_eni()),
            enis: BTreeMap::new(),
            owned: BTreeMap::new(),
            given_back: BTreeMap::new(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Addresses per CIDR.
    pub(super) fn cidr_size(&self) -> u64 {
        match self.kind {
            Kind::Address => 1,
            Kind::Prefix => PREFIX_SIZE,
        }
    }

    /// Addresses per full ENI.
    pub(super) fn eni_size(&self) -> u64 {
        self.cidr_size() * u64::try_from(self.cidrs_per_eni).expect("it was a u16")
    }

    pub(super) fn add_eni(&mut self, id: &EniId, is_primary: bool, now: Timestamp) {
        let new = StoredEni { is_primary, since: now, cidrs: BTreeMap::new() };
        self.enis.entry(id.clone()).or_insert(new);
    }

    pub(super) fn add_cidrs(&mut self, eni: &EniId, cidrs: impl IntoIterator<Item = Ipv4Net>) {
        let Some(eni) = self.enis.get_mut(eni) else { return };
        for cidr in cidrs {
            eni.cidrs.entry(cidr).or_default();
        }
    }

    /// Removes an ENI, even if pods use it.
    pub(super) fn remove_eni(&mut self, eni: &EniId) {
        self.enis.remove(eni);
        self.owned.retain(|_, (owner, _, _)| owner != eni);
    }

    /// Removes a CIDR, even if pods use it.
    pub(super) fn remove_cidr(&mut self, eni: &EniId, cidr: Ipv4Net) {
        if let Some(eni) = self.enis.get_mut(eni) {
            eni.cidrs.remove(&cidr);
        }
        self.owned.retain(|_, (_, owner, _)| *owner != cidr);
    }

    /// Assigns an address to a sandbox.
    pub(super) fn assign(
        &mut self,
        sandbox: SandboxId,
        rng: &mut Rng,
        now: Timestamp,
    ) -> Option<Ipv4Addr> {
        let (kind, cooldown) = (self.kind, self.cooldown);
        for (id, eni) in rng.shuffled(&mut self.enis) {
            let cidrs = eni.cidrs.iter_mut().filter(|(net, _)| is_of(kind, **net));
            for (net, cidr) in rng.shuffled(cidrs) {
                if let Some(address) = cidr.pick(*net, cooldown, now) {
                    cidr.given.insert(address, None);
                    self.owned.insert(sandbox, (id.clone(), *net, address));
                    return Some(address);
                }
            }
        }
        None
    }

    pub(super) fn unassign(&mut self, sandbox: SandboxId, now: Timestamp) {
        let Some((eni, net, address)) = self.owned.remove(&sandbox) else { return };
        let cidr = self.enis.get_mut(&eni).and_then(|eni| eni.cidrs.get_mut(&net));
        if let Some(cidr) = cidr {
            cidr.given.insert(address, Some(now));
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats_without(None)
    }

    fn stats_without(&self, left_out: Option<&EniId>) -> Stats {
        let enis = self.enis.iter().filter(|(id, _)| Some(*id) != left_out);
        let cidrs = enis.flat_map(|(_, eni)| &eni.cidrs).filter(|(net, _)| is_of(self.kind, **net));
        cidrs.fold(Stats::default(), |sum, (_, cidr)| {
            let assigned = cidr.n_assigned();
            Stats {
                total: sum.total + self.cidr_size(),
                assigned: sum.assigned + assigned,
                cidrs: sum.cidrs + 1,
                free_cidrs: sum.free_cidrs + u64::from(assigned == 0),
            }
        })
    }

    /// The ENIs with room for another CIDR, in random order, each with its number of CIDRs.
    pub(super) fn unfilled(&self, rng: &mut Rng) -> Vec<(EniId, usize)> {
        let room = |(_, eni): &(&EniId, &StoredEni)| eni.cidrs.len() < self.cidrs_per_eni;
        let unfilled = self.enis.iter().filter(room);
        rng.shuffled(unfilled.map(|(id, eni)| (id.clone(), eni.cidrs.len())))
    }

    /// Up to `at_most` CIDRs of an ENI without an assigned address, whether in cooldown or not.
    pub(super) fn freeable(&self, eni: &EniId, at_most: usize, rng: &mut Rng) -> Vec<Ipv4Net> {
        let Some(eni) = self.enis.get(eni) else { return Vec::new() };
        let free = eni.cidrs.iter().filter(|(_, cidr)| cidr.n_assigned() == 0);
        let mut free = rng.shuffled(free.map(|(net, _)| *net));
        free.truncate(at_most);
        free
    }

    /// Removes CIDRs that are unassigned at EC2.
    pub(super) fn give_back(&mut self, eni: &EniId, cidrs: &[Ipv4Net], now: Timestamp) {
        for cidr in cidrs {
            self.remove_cidr(eni, *cidr);
            self.given_back.insert(*cidr, now);
        }
    }

    /// Whether a CIDR was unassigned so recently that it must not be added again.
    pub(super) fn is_given_back(&mut self, cidr: Ipv4Net, now: Timestamp) -> bool {
        self.given_back.retain(|_, at| now.since(*at) < RECONCILE_COOLDOWN);
        self.given_back.contains_key(&cidr)
    }

    /// Whether any ENI but the primary has no assigned address.
    pub(super) fn has_unused_eni(&self) -> bool {
        self.enis.values().any(|eni| !eni.is_primary && eni.n_assigned() == 0)
    }

    /// An ENI that can be freed such that the others keep `warm` available addresses, `minimum`
    /// addresses in total and `warm_prefixes` free CIDRs. Targets of 0 are ignored.
    pub(super) fn removable_eni(
        &self,
        warm: u64,
        minimum: u64,
        warm_prefixes: u64,
        rng: &mut Rng,
        now: Timestamp,
    ) -> Option<EniId> {
        let whole = |n: u64| n.next_multiple_of(self.cidr_size());
        let may_go = |(id, eni): &(&EniId, &StoredEni)| {
            let rest = self.stats_without(Some(id));
            !eni.is_primary
                && now.since(eni.since) >= MIN_ENI_AGE
                && !eni.cidrs.values().any(|cidr| cidr.is_cooling(self.cooldown, now))
                && eni.n_assigned() == 0
                && (warm == 0 || rest.available() >= whole(warm))
                && (minimum == 0 || rest.total >= whole(minimum))
                && (self.kind == Kind::Address || rest.free_cidrs >= warm_prefixes)
        };
        rng.shuffled(&self.enis).into_iter().find(may_go).map(|(id, _)| id.clone())
    }

    /// The CIDRs of an ENI in the store.
    pub(super) fn cidrs_of(&self, eni: &EniId) -> Option<BTreeSet<Ipv4Net>> {
        self.enis.get(eni).map(|eni| eni.cidrs.keys().copied().collect())
    }
}

impl StoredEni {
    fn n_assigned(&self) -> u64 {
        self.cidrs.values().map(Cidr::n_assigned).sum()
    }
}

fn is_of(kind: Kind, net: Ipv4Net) -> bool {
    (net.prefix_len() == 32) == (kind == Kind::Address)
}
