//! The subnets: which of them may carry a new ENI, and which have refused lately.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::block::{BlockCount, BlockKind, Family};
use crate::call::{CallErrorKind, SubnetFacts};
use crate::eni_config::EniConfig;
use crate::event::RefusalCode;
use crate::id::SubnetId;
use crate::policy::Node;
use crate::retry::{Pace, refusal_code};
use crate::time::Timestamp;

/// How soon the engine asks EC2 again for a waiting pod.
const PROBE: Pace = Pace::new(2_000, 120_000);

/// This tag offers a subnet to new ENIs. The value `0` excludes even the primary ENI's subnet.
const ROLE_TAG: &str = "kubernetes.io/role/cni";
/// Tags with this prefix restrict a subnet with [`ROLE_TAG`] to the clusters that they name.
const CLUSTER_TAG_PREFIX: &str = "cni.networking.k8s.aws/cluster/";

/// A subnet's refusal of one kind of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SubnetRefusal {
    code: RefusalCode,
    /// The most blocks that one call may ask for meanwhile; 0 for none.
    at_most: u16,
    /// Refusals of a single block in a row.
    attempts: u32,
    /// When EC2 may be asked again for a waiting pod.
    probe_at: Timestamp,
    /// When EC2 may be asked again for anything.
    rest_until: Timestamp,
}

/// What EC2 may be asked for in a subnet, for one kind of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// This many blocks in one call.
    Open(u16),
    /// Nothing: the subnet has refused lately.
    Closed {
        /// How it refused.
        code: RefusalCode,
        /// When EC2 may be asked again for a waiting pod.
        probe_at: Timestamp,
        /// When EC2 may be asked again for anything.
        rest_until: Timestamp,
    },
}

impl Allowance {
    /// How the subnet has refused and when to ask again. `None` once that time has come.
    pub(crate) fn refuses(
        self,
        is_starving: bool,
        now: Timestamp,
    ) -> Option<(RefusalCode, Timestamp)> {
        match self {
            Allowance::Open(_) => None,
            Allowance::Closed { code, probe_at, rest_until } => {
                let until = if is_starving { probe_at } else { rest_until };
                (until > now).then_some((code, until))
            }
        }
    }
}

/// EC2's description of the subnets, and their refusals.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subnets {
    facts: BTreeMap<SubnetId, SubnetFacts>,
    /// Ranges from an earlier run's record. A subnet's range never changes.
    recalled: BTreeMap<SubnetId, IpNet>,
    refusals: BTreeMap<(SubnetId, BlockKind), SubnetRefusal>,
    /// IPv4 addresses that each subnet has granted since EC2 described it.
    granted: BTreeMap<SubnetId, u32>,
}

impl Subnets {
    pub(crate) fn learn(&mut self, facts: Vec<SubnetFacts>) {
        self.granted.clear();
        self.facts = facts.into_iter().map(|subnet| (subnet.id.clone(), subnet)).collect();
    }

    pub(crate) fn get(&self, id: &SubnetId) -> Option<&SubnetFacts> {
        self.facts.get(id)
    }

    pub(crate) fn recall(&mut self, id: SubnetId, cidr: IpNet) {
        self.recalled.insert(id, cidr);
    }

    /// The subnet's range in EC2's present or earlier answer.
    pub(crate) fn cidr(&self, id: &SubnetId) -> Option<IpNet> {
        self.get(id).map(|subnet| subnet.cidr).or_else(|| self.recalled.get(id).copied())
    }

    /// The subnets for new ENIs, the one with most free addresses first. While EC2 has described no subnet,
    /// it is `primary`, the primary ENI's.
    pub(crate) fn for_new_enis(&self, primary: &SubnetId, node: &Node) -> Vec<SubnetId> {
        if self.facts.is_empty() {
            return vec![primary.clone()];
        }
        self.by_free_addresses(primary, |subnet| is_usable(subnet, primary, node))
    }

    /// The subnets that an ENIConfig chooses in this node's zone, the one with most free addresses first. While EC2
    /// has described no subnet, they are those that it names.
    pub(crate) fn chosen_by(&self, config: &EniConfig, primary: &SubnetId) -> Vec<SubnetId> {
        if self.facts.is_empty() {
            return config.subnets.iter().cloned().collect();
        }
        self.by_free_addresses(primary, |subnet| {
            !subnet.is_ipv6_only() && config.chooses(&subnet.id, &subnet.tags)
        })
    }

    /// Whether an ENIConfig chooses the subnet, as far as EC2 has described its tags.
    pub(crate) fn is_chosen(&self, id: &SubnetId, config: &EniConfig) -> bool {
        let tags = self.get(id).map(|subnet| &subnet.tags);
        config.chooses(id, tags.unwrap_or(&BTreeMap::new()))
    }

    fn by_free_addresses(
        &self,
        primary: &SubnetId,
        is_usable: impl Fn(&SubnetFacts) -> bool,
    ) -> Vec<SubnetId> {
        let mut usable: Vec<_> = self.facts.values().filter(|subnet| is_usable(subnet)).collect();
        usable.sort_by_key(|subnet| {
            (Reverse(subnet.free_addresses), subnet.id != *primary, &subnet.id)
        });
        usable.into_iter().map(|subnet| subnet.id.clone()).collect()
    }

    /// The subnets that EC2 has described.
    pub(crate) fn described(&self) -> impl Iterator<Item = &SubnetId> {
        self.facts.keys()
    }

    /// Until when the subnet is asked for no block of this kind, even for a waiting pod, and how it has refused.
    pub(crate) fn refuses(
        &self,
        id: &SubnetId,
        kind: BlockKind,
        now: Timestamp,
    ) -> Option<(RefusalCode, Timestamp)> {
        self.allowance(id, kind, now).refuses(true, now)
    }

    /// Whether a tag keeps this cluster's pods off the subnet, as far as EC2 has described it.
    pub(crate) fn excludes(&self, id: &SubnetId, node: &Node) -> bool {
        self.get(id).is_some_and(|subnet| is_excluded(subnet, node))
    }

    /// Remembers that `id` refused `blocks`. EC2 grants a request as a whole or not at all. So the engine
    /// halves its request before the subnet counts as refusing altogether.
    pub(crate) fn refused(
        &mut self,
        id: &SubnetId,
        blocks: BlockCount,
        kind: CallErrorKind,
        now: Timestamp,
    ) {
        let entry = (id.clone(), blocks.kind);
        let attempts = match blocks.n {
            0 | 1 => self.refusals.get(&entry).map_or(0, |t| t.attempts).saturating_add(1),
            _ => 0,
        };
        let refusal = SubnetRefusal {
            code: refusal_code(kind),
            at_most: blocks.n / 2,
            attempts,
            probe_at: now + PROBE.wait(attempts.max(1)),
            rest_until: now + Pace::of(kind).wait(attempts.max(1)),
        };
        self.refusals.insert(entry, refusal);
    }

    /// Free single addresses in EC2's last answer, without those granted since; `None` if EC2 has not described the subnet.
    pub(crate) fn free(&self, id: &SubnetId) -> Option<u32> {
        let granted = self.granted.get(id).copied().unwrap_or_default();
        self.get(id)?.free_addresses.map(|free| free.saturating_sub(granted))
    }

    /// Forgets that `id` refused altogether, since it has just granted `blocks`.
    pub(crate) fn granted(&mut self, id: &SubnetId, blocks: BlockCount) {
        if blocks.kind.family() == Family::V4 {
            let n = u32::try_from(u64::from(blocks.n) * blocks.kind.size()).unwrap_or(u32::MAX);
            let granted = self.granted.entry(id.clone()).or_default();
            *granted = granted.saturating_add(n);
        }
        let entry = (id.clone(), blocks.kind);
        if self.refusals.get(&entry).is_some_and(|refusal| refusal.at_most == 0) {
            self.refusals.remove(&entry);
        }
    }

    pub(crate) fn addresses(&self, id: &SubnetId, now: Timestamp) -> Allowance {
        self.allowance(id, BlockKind::V4Address, now)
    }

    pub(crate) fn ipv6_prefixes(&self, id: &SubnetId, now: Timestamp) -> Allowance {
        self.allowance(id, BlockKind::V6Prefix, now)
    }

    /// A subnet without a free address has no free prefix either.
    pub(crate) fn prefixes(&self, id: &SubnetId, now: Timestamp) -> Allowance {
        let prefixes = self.allowance(id, BlockKind::V4Prefix, now);
        match (self.allowance(id, BlockKind::V4Address, now), prefixes) {
            (Allowance::Open(_), prefixes) => prefixes,
            (closed @ Allowance::Closed { .. }, Allowance::Open(_)) => closed,
            (
                Allowance::Closed { code, probe_at, rest_until },
                Allowance::Closed { probe_at: probe_prefix_at, rest_until: prefixes_until, .. },
            ) => Allowance::Closed {
                code,
                probe_at: probe_at.max(probe_prefix_at),
                rest_until: rest_until.max(prefixes_until),
            },
        }
    }

    fn allowance(&self, id: &SubnetId, kind: BlockKind, now: Timestamp) -> Allowance {
        match self.refusals.get(&(id.clone(), kind)) {
            None => Allowance::Open(u16::MAX),
            Some(t) if t.rest_until <= now && t.attempts > 0 => Allowance::Open(1),
            Some(t) if t.rest_until <= now => Allowance::Open(u16::MAX),
            Some(t) if t.at_most > 0 => Allowance::Open(t.at_most),
            Some(SubnetRefusal { code, probe_at, rest_until, .. }) => {
                Allowance::Closed { code: *code, probe_at: *probe_at, rest_until: *rest_until }
            }
        }
    }
}

/// Whether new ENIs may go to `subnet`.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/awsutils/awsutils.go`, with subnet discovery on.
fn is_usable(subnet: &SubnetFacts, primary: &SubnetId, node: &Node) -> bool {
    if subnet.is_ipv6_only() {
        return false;
    }
    match role(subnet) {
        "" => subnet.id == *primary,
        _ => !is_excluded(subnet, node),
    }
}

/// Whether a tag keeps all pods off `subnet`, or this cluster's.
/// Source: as above; there it holds for ENIs that exist already, too.
fn is_excluded(subnet: &SubnetFacts, node: &Node) -> bool {
    match role(subnet) {
        "" => false,
        "0" => true,
        _ => {
            let keys = subnet.tags.keys();
            let mut clusters =
                keys.filter_map(|key| key.strip_prefix(CLUSTER_TAG_PREFIX)).peekable();
            match &node.cluster {
                Some(cluster) if clusters.peek().is_some() => clusters.all(|name| name != cluster),
                Some(_) | None => false,
            }
        }
    }
}

/// The value of the role tag; empty without one.
fn role(subnet: &SubnetFacts) -> &str {
    subnet.tags.get(ROLE_TAG).map_or("", String::as_str)
}
