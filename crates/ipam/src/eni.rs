//! One ENI of ours and the addresses on it. Knows which addresses are free, but no calls and no pods.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use mac::MacAddr;

use crate::block::{Block, BlockCount, BlockKind, Family};
use crate::call::{AttachmentStatus, EniAttachment};
use crate::id::{EniAttachmentId, EniId, SecurityGroupId, SubnetId};
use crate::place::Place;
use crate::reason::Reason;
use crate::record::Record;
use crate::rest::Rests;
use crate::streak::Streak;
use crate::time::Timestamp;
use crate::view::EniStage;

/// An ENI of ours. Facts that hold only at one point of its life are in its [`Stage`].
#[derive(Debug, Clone)]
pub(crate) struct Eni {
    pub(crate) id: EniId,
    pub(crate) mac: MacAddr,
    pub(crate) subnet: SubnetId,
    /// Empty until EC2 has described them: every ENI has one at least.
    pub(crate) security_groups: BTreeSet<SecurityGroupId>,
    pub(crate) primary_address: IpAddr,
    pub(crate) origin: Origin,
    pub(crate) tags: BTreeMap<String, String>,
    /// Since when this process knows it. Its age counts from then.
    pub(crate) since: Timestamp,
    /// When a call last changed it. An older answer of EC2 is outdated.
    pub(crate) changed_at: Timestamp,
    /// When a block may last have been taken off it. An earlier run may have done so until this process
    /// came to know the ENI. EC2 may still describe that block for a while.
    pub(crate) shrunk_at: Timestamp,
    /// For how long its device has been missing on the host, though it is attached.
    pub(crate) absent: Streak,
    /// What EC2 has refused to put on it. Each family has a limit of its own.
    pub(crate) refused: BTreeMap<Family, Refused>,
    /// Why no new pod gets its addresses, although it is ours.
    pub(crate) excluded: Option<Exclusion>,
    pub(crate) stage: Stage,
    pub(crate) blocks: BTreeMap<Block, BlockState>,
    /// Blocks that EC2 has left out of a describe, or describes on another ENI too. They are ours if they come
    /// back.
    pub(crate) missed: BTreeSet<Block>,
    /// Blocks that somebody else has put on it. No pod gets them, and they are never given back.
    pub(crate) foreign_blocks: BTreeSet<Block>,
}

/// Limits of one ENI in one family, learnt from EC2's refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The most blocks that it takes in all.
    pub(crate) limit: u16,
    /// The most blocks that are worth asking for at once.
    pub(crate) at_once: u16,
}

/// Why an ENI of ours takes no new pods. Its pods keep their addresses, and idle ones go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exclusion {
    /// The primary ENI has the tag with which a user keeps the daemon off an ENI.
    NoManageTag,
    /// A tag keeps pods off its subnet, or off that subnet for this cluster.
    SubnetTag,
    /// It is the primary ENI, and an ENIConfig says where pods are.
    CustomNetworking,
}

impl Exclusion {
    /// The cause, for people; `None` if it is as the settings want it.
    pub(crate) fn surprise(self) -> Option<&'static str> {
        match self {
            Exclusion::NoManageTag => Some("it has the tag node.k8s.amazonaws.com/no_manage"),
            Exclusion::SubnetTag => {
                Some("its subnet is excluded by the tag kubernetes.io/role/cni")
            }
            Exclusion::CustomNetworking => None,
        }
    }
}

/// Where an ENI of ours comes from. This decides what may be done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The instance's primary ENI: never detached.
    Primary,
    /// Carries this instance's tag: we created it and may remove it.
    Tagged,
    /// Somebody attached it without an owner's tag. Its addresses serve, but it stays.
    Untagged,
}

/// The life of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Exists and is wanted. The attach is next or under way.
    Unattached,
    /// On the instance.
    Attached { attachment: Attachment, link: Link },
    /// Gives out no addresses. The detach is next or under way.
    Draining { attachment: Attachment, why: Reason },
    /// The delete is next or under way. An ENI that was attached holds its place until it is gone.
    Deleting { place: Option<Place>, why: Reason },
}

/// An ENI's attachment to this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) id: EniAttachmentId,
    pub(crate) place: Place,
    pub(crate) delete_on_termination: bool,
}

/// The kernel's side of an attached ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    Awaited,
    /// What failed, and how often in a row.
    Failed {
        why: String,
        times: u32,
    },
    Ready,
}

/// An IPv6 address that has served is remembered for so long at least. A burst of ADDs takes addresses of
/// milliseconds that are still to come, so without a cooldown one of them could serve twice.
const IPV6_REMEMBERED: Duration = Duration::from_secs(60);

/// After so many failures in a row the kernel's side of an ENI counts as broken.
pub(crate) const LINK_ATTEMPTS: u32 = 3;

impl Link {
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Link::Failed { times, .. } if *times >= LINK_ATTEMPTS)
    }
}

impl Stage {
    /// The attachment of an ENI that EC2 describes as detached, and why the ENI goes. `None` if it was not
    /// attached.
    pub(crate) fn leaving(&self) -> Option<(&Attachment, Reason)> {
        match self {
            Stage::Attached { attachment, .. } => Some((attachment, Reason::Detaching)),
            Stage::Draining { attachment, why } => Some((attachment, why.clone())),
            Stage::Unattached | Stage::Deleting { .. } => None,
        }
    }
}

impl Eni {
    /// The place that it takes; `None` while it is unattached.
    pub(crate) fn place(&self) -> Option<Place> {
        match &self.stage {
            Stage::Unattached => None,
            Stage::Attached { attachment, .. } | Stage::Draining { attachment, .. } => {
                Some(attachment.place)
            }
            Stage::Deleting { place, .. } => *place,
        }
    }

    /// The place that decides its route table; the first one for the primary ENI, which the main table leads to.
    pub(crate) fn route_place(&self) -> Option<Place> {
        match self.origin {
            Origin::Primary => self.place().map(|_| Place::FIRST),
            Origin::Tagged | Origin::Untagged => self.place(),
        }
    }

    /// Its attachment in the form of EC2's description; `None` while the ENI is unattached or on its way back.
    pub(crate) fn attachment(&self) -> Option<EniAttachment> {
        let Stage::Attached { attachment, .. } = &self.stage else { return None };
        Some(EniAttachment {
            id: attachment.id.clone(),
            device_index: attachment.place.index,
            network_card: attachment.place.card,
            status: AttachmentStatus::Attached,
            delete_on_termination: attachment.delete_on_termination,
        })
    }

    /// Whether pods may get its addresses.
    pub(crate) fn offers(&self) -> bool {
        self.is_linked() && self.excluded.is_none()
    }

    /// Whether it is attached and its kernel side ready.
    pub(crate) fn is_linked(&self) -> bool {
        matches!(self.stage, Stage::Attached { link: Link::Ready, .. })
    }

    /// Why the kernel's side of it could not be set up; `None` if it did not fail.
    pub(crate) fn link_failure(&self) -> Option<&str> {
        let Stage::Attached { link: Link::Failed { why, .. }, .. } = &self.stage else {
            return None;
        };
        Some(why)
    }

    pub(crate) fn view_stage(&self) -> EniStage {
        match &self.stage {
            Stage::Unattached => EniStage::Attaching,
            Stage::Attached { link: Link::Ready, .. } => EniStage::Ready,
            Stage::Attached { .. } => EniStage::Linking,
            Stage::Draining { .. } | Stage::Deleting { .. } => EniStage::Draining,
        }
    }

    /// Whether a pod or another container uses one of its addresses, one still rests, or a block is foreign.
    pub(crate) fn in_use(&self, rests: Rests) -> bool {
        !self.foreign_blocks.is_empty() || self.blocks.values().any(|state| !state.is_idle(rests))
    }

    /// Whether it may go at all. It stays while the record has a pod on it, even with an address that does
    /// not count: one of the family that was in force when the pod came. It stays with a delegated prefix, too.
    pub(crate) fn is_removable(&self, record: &Record) -> bool {
        let is_free = self.foreign_blocks.is_empty() && self.n_delegated() == 0;
        let is_ours = self.origin == Origin::Tagged && is_free;
        let mut ips = record.assignments().values().flat_map(|held| held.addresses.iter());
        is_ours && !ips.any(|ip| *ip.via.eni() == self.id)
    }

    /// How many of its prefixes containers beside the pods use.
    pub(crate) fn n_delegated(&self) -> usize {
        self.blocks.values().filter(|state| state.delegated).count()
    }

    pub(crate) fn n_live(&self) -> usize {
        self.blocks.values().map(|state| state.live.len()).sum()
    }

    /// The address of the family of `kind` that the next pod gets, if this ENI has a free one. It comes from the
    /// fullest block, so that whole blocks become free. Within that block it is the address that has rested longest.
    /// The flag says whether its block is among the `doubted`; those come last.
    pub(crate) fn pick(
        &self,
        kind: BlockKind,
        doubted: &BTreeSet<Block>,
        rests: Rests,
    ) -> Option<(bool, IpAddr)> {
        let of_family = |block: &Block| block.family() == kind.family();
        let blocks = self.blocks.iter().filter(|(block, _)| of_family(block));
        let candidates = blocks.filter(|(_, state)| state.offers());
        candidates
            .filter_map(|(block, state)| {
                let (freed, address) = state.next(*block, rests)?;
                let (is_doubted, of_other_kind) = (doubted.contains(block), block.kind() != kind);
                let rank = (
                    is_doubted,
                    of_other_kind,
                    Reverse(state.live.len()),
                    Reverse(state.n_cooling(rests)),
                    freed,
                );
                Some((rank, address))
            })
            .min()
            .map(|((is_doubted, ..), address)| (is_doubted, address))
    }

    /// Up to `count` wholly free blocks to give back. The longest idle come first; among blocks that never
    /// served, the highest comes first.
    pub(crate) fn idle_blocks(&self, count: BlockCount, rests: Rests) -> BTreeSet<Block> {
        let mut idle: Vec<_> = self
            .blocks
            .iter()
            .filter(|(block, state)| {
                block.kind() == count.kind && state.offers() && state.is_idle(rests)
            })
            .map(|(block, state)| (state.freed.values().max().copied(), Reverse(*block)))
            .collect();
        idle.sort();
        idle.into_iter().take(usize::from(count.n)).map(|(_, Reverse(block))| block).collect()
    }

    /// Marks those of `blocks` that are on this ENI as unconfirmed or as confirmed. Leaving blocks do not change.
    pub(crate) fn set_unconfirmed(&mut self, blocks: &BTreeSet<Block>, unconfirmed: bool) {
        let found = self.blocks.iter_mut().filter(|(block, _)| blocks.contains(block));
        for (_, state) in found.filter(|(_, state)| state.stays()) {
            let confirmed = Standing::Confirmed;
            state.standing = if unconfirmed { Standing::Unconfirmed } else { confirmed };
        }
    }

    pub(crate) fn n_unconfirmed(&self) -> usize {
        self.blocks.values().filter(|state| state.standing == Standing::Unconfirmed).count()
    }

    pub(crate) fn has_unconfirmed(&self) -> bool {
        self.n_unconfirmed() > 0
    }

    /// Whether `address` is on its way back to EC2.
    pub(crate) fn is_leaving(&self, address: IpAddr) -> bool {
        self.block_of(address).is_some_and(|block| !self.blocks[&block].stays())
    }

    /// The block that holds `address`.
    pub(crate) fn block_of(&self, address: IpAddr) -> Option<Block> {
        Block::candidates(address).find(|block| self.blocks.contains_key(block))
    }
}

/// The addresses of one block, except those that never served.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockState {
    /// Pods' addresses, on record or on their way there.
    pub(crate) live: BTreeSet<IpAddr>,
    /// Released addresses, each with the time of its release. They are free after the cooldown.
    pub(crate) freed: BTreeMap<IpAddr, Timestamp>,
    /// Addresses whose use contradicts the record.
    pub(crate) quarantined: BTreeSet<IpAddr>,
    pub(crate) standing: Standing,
    /// Whether containers beside the pods use it. Then it gives out no addresses and never goes back.
    pub(crate) delegated: bool,
}

/// Whether a block gives out addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It gives out addresses.
    #[default]
    Confirmed,
    /// Only one describe shows it, and that describe may lag behind its removal. It gives out no addresses until
    /// another describe confirms it.
    Unconfirmed,
    /// It is on its way back to EC2 and gives out no addresses.
    Leaving,
}

impl BlockState {
    /// The addresses that rest, each with the moment of its release.
    pub(crate) fn resting(&self, rests: Rests) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        let freed = self.freed.iter().map(|(address, since)| (*address, *since));
        freed.filter(move |(address, since)| {
            rests.is_resting(*since) && !self.quarantined.contains(address)
        })
    }

    /// Whether it gives out addresses.
    pub(crate) fn offers(&self) -> bool {
        self.standing == Standing::Confirmed && !self.delegated
    }

    /// Whether it is not on its way back to EC2.
    pub(crate) fn stays(&self) -> bool {
        self.standing != Standing::Leaving
    }

    /// The addresses that rest, each with the end of its rest.
    pub(crate) fn cooling(&self, rests: Rests) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        self.resting(rests).map(move |(address, since)| (address, since + rests.cooldown))
    }

    pub(crate) fn n_cooling(&self, rests: Rests) -> usize {
        self.cooling(rests).count()
    }

    /// Drops and returns the addresses that have rested. For IPv6 only: there the order of resting does not
    /// matter, and the number of addresses has no bound.
    pub(crate) fn forget_rested(&mut self, rests: Rests) -> Vec<IpAddr> {
        let remembered = Rests { cooldown: rests.cooldown.max(IPV6_REMEMBERED), ..rests };
        let rested = self.freed.extract_if(.., |_, since| !remembered.is_resting(*since));
        rested.map(|(address, _)| address).collect()
    }

    /// The quarantined addresses that the record has for no pod.
    pub(crate) fn withheld(&self) -> impl Iterator<Item = IpAddr> {
        self.quarantined.difference(&self.live).copied()
    }

    /// Whether none of its addresses serves a pod or another container, rests or is quarantined.
    pub(crate) fn is_idle(&self, rests: Rests) -> bool {
        !self.delegated && !self.has_pods() && self.n_cooling(rests) == 0
    }

    /// Whether a pod has an address of it, on record or not.
    pub(crate) fn has_pods(&self) -> bool {
        !(self.live.is_empty() && self.quarantined.is_empty())
    }

    /// The free address that has rested longest, with the time of its release. An address that never served
    /// comes first, with the epoch. A /80 has an address for every millisecond, so there the present time
    /// gives an address that never served. So no address serves twice, even if the record forgets some.
    fn next(&self, block: Block, rests: Rests) -> Option<(Timestamp, IpAddr)> {
        if self.live.len() as u64 == block.size() {
            return None;
        }
        // Among `n_known + 1` addresses at least one is new, so a /80 is never listed in full.
        let n_known = self.live.len() + self.freed.len() + self.quarantined.len();
        let known = |ip: &IpAddr| {
            self.live.contains(ip) || self.freed.contains_key(ip) || self.quarantined.contains(ip)
        };
        let first = if block.family() == Family::V6 { rests.now.as_millis() } else { 0 };
        if let Some(fresh) = block.addresses_from(first).take(n_known + 1).find(|ip| !known(ip)) {
            return Some((Timestamp::default(), fresh));
        }
        let rested = self
            .freed
            .iter()
            .filter(|(ip, since)| !rests.is_resting(**since) && !self.quarantined.contains(*ip));
        rested.map(|(address, since)| (*since, *address)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn rests(cooldown: u64, now: u64) -> Rests {
        Rests { cooldown: Duration::from_secs(cooldown), now: at(now), kernel_checked: None }
    }

    #[test]
    fn next_prefers_unused_then_longest_rested() {
        let check = |cidr: &str, live: &[&str], freed: &[(&str, u64)], expect: Option<&str>| {
            let block = Block::try_from(cidr.parse::<ipnet::IpNet>().unwrap()).unwrap();
            let state = BlockState {
                live: live.iter().map(|ip| ip.parse().unwrap()).collect(),
                freed: freed.iter().map(|(ip, s)| (ip.parse().unwrap(), at(*s))).collect(),
                ..BlockState::default()
            };
            let next = state.next(block, rests(30, 100));
            let expect = expect.map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!(next.map(|(_, address)| address), expect, "{cidr} {live:?} {freed:?}");
        };
        let one = "10.0.0.5/32";
        check(one, &[], &[], Some("10.0.0.5"));
        check(one, &["10.0.0.5"], &[], None);
        check(one, &[], &[("10.0.0.5", 71)], None);
        check(one, &[], &[("10.0.0.5", 70)], Some("10.0.0.5"));
        // An address that never served comes before one that has rested.
        let prefix = "10.0.0.16/28";
        check(prefix, &["10.0.0.16"], &[("10.0.0.17", 0)], Some("10.0.0.18"));
        // 100,000 ms is 0x186a0.
        let v6 = "2001:db8::/80";
        check(v6, &[], &[], Some("2001:db8::1:86a0"));
        check(v6, &["2001:db8::1:86a0"], &[], Some("2001:db8::1:86a1"));
        check(v6, &["2001:db8::1:86a0"], &[("2001:db8::1:86a1", 0)], Some("2001:db8::1:86a2"));
        let all: Vec<_> = (18..32).map(|n| format!("10.0.0.{n}")).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let rested = [("10.0.0.16", 60), ("10.0.0.17", 50)];
        check(prefix, &all, &rested, Some("10.0.0.17"));
    }

    #[test]
    fn ipv6_address_is_remembered_without_a_cooldown() {
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let mut state = BlockState { freed: [(address, at(0))].into(), ..BlockState::default() };
        assert_eq!(state.forget_rested(rests(0, 59)), [] as [IpAddr; 0]);
        assert_eq!(state.forget_rested(rests(90, 89)), [] as [IpAddr; 0]);
        assert_eq!(state.forget_rested(rests(0, 60)), [address]);
    }
}
