//! One ENI of ours and the addresses on it. Knows no calls and no pods, only which addresses are free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mac::MacAddr;

use crate::block::{Block, BlockCount, BlockKind, Family};
use crate::call::{AttachmentStatus, EniAttachment};
use crate::id::{EniAttachmentId, EniId, SubnetId};
use crate::reason::Reason;
use crate::record::Record;
use crate::streak::Streak;
use crate::time::Timestamp;
use crate::view::EniStage;

/// An ENI of ours. Facts that hold only at one point of its life are in its [`Stage`].
#[derive(Debug, Clone)]
pub(crate) struct Eni {
    pub(crate) id: EniId,
    pub(crate) mac: MacAddr,
    pub(crate) subnet: SubnetId,
    pub(crate) primary_address: Ipv4Addr,
    pub(crate) origin: Origin,
    pub(crate) tags: BTreeMap<String, String>,
    /// Since when this process knows it; its age counts from here.
    pub(crate) since: Timestamp,
    /// When a call last changed it: an older answer of EC2 is out of date.
    pub(crate) changed_at: Timestamp,
    /// When a block may last have been taken off it. An earlier run may have done so until this process
    /// came to know the ENI. EC2 may still describe that block for a while.
    pub(crate) shrunk_at: Timestamp,
    /// For how long the host has been without its device, though it is attached.
    pub(crate) absent: Streak,
    /// What EC2 has refused to put on it.
    pub(crate) refused: Option<Refused>,
    pub(crate) stage: Stage,
    pub(crate) blocks: BTreeMap<Block, BlockState>,
    /// Blocks that EC2 has left out of a describe, or describes on another ENI too: ours if they come back.
    pub(crate) missed: BTreeSet<Block>,
    /// Blocks that somebody else has put on it: no pod gets them, and they are never given back.
    pub(crate) foreign_blocks: BTreeSet<Block>,
}

/// What EC2's refusals have taught about one ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The most blocks that it takes in all.
    pub(crate) limit: u16,
    /// The most blocks that are worth asking for at once.
    pub(crate) at_once: u16,
}

/// Where an ENI of ours comes from, hence what may be done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The instance's primary ENI: never detached.
    Primary,
    /// Carries this instance's tag: made by us and ours to remove.
    Tagged,
    /// Attached by somebody, without a tag of an owner: its addresses serve, but it stays.
    Untagged,
}

/// The life of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Exists and is wanted: the attach is next or under way.
    Unattached,
    /// On the instance.
    Attached { attachment: Attachment, link: Link },
    /// Gives out nothing any more: the detach is next or under way.
    Draining { attachment: Attachment, why: Reason },
    /// The delete is next or under way. An ENI that was attached holds its place until it is gone.
    Deleting { place: Option<u16>, why: Reason },
}

/// An ENI's attachment to this instance, on network card 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) id: EniAttachmentId,
    pub(crate) device_index: u16,
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

/// After so many failures in a row the kernel's side of an ENI counts as broken.
pub(crate) const LINK_ATTEMPTS: u32 = 3;

impl Link {
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Link::Failed { times, .. } if *times >= LINK_ATTEMPTS)
    }
}

impl Stage {
    /// The attachment of an ENI that EC2 has detached, and why it goes; `None` if it was not attached.
    pub(crate) fn leaving(&self) -> Option<(&Attachment, Reason)> {
        match self {
            Stage::Attached { attachment, .. } => Some((attachment, Reason::Detaching)),
            Stage::Draining { attachment, why } => Some((attachment, why.clone())),
            Stage::Unattached | Stage::Deleting { .. } => None,
        }
    }
}

impl Eni {
    pub(crate) fn device_index(&self) -> Option<u16> {
        match &self.stage {
            Stage::Unattached => None,
            Stage::Attached { attachment, .. } | Stage::Draining { attachment, .. } => {
                Some(attachment.device_index)
            }
            Stage::Deleting { place, .. } => *place,
        }
    }

    /// Its attachment as EC2 describes it, while the ENI is to stay.
    pub(crate) fn attachment(&self) -> Option<EniAttachment> {
        let Stage::Attached { attachment, .. } = &self.stage else { return None };
        Some(EniAttachment {
            id: attachment.id.clone(),
            device_index: attachment.device_index,
            network_card: 0,
            status: AttachmentStatus::Attached,
            delete_on_termination: attachment.delete_on_termination,
        })
    }

    /// Whether pods may get its addresses.
    pub(crate) fn offers(&self) -> bool {
        matches!(self.stage, Stage::Attached { link: Link::Ready, .. })
    }

    /// Why the kernel's side of it could not be set up, if it could not.
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

    /// Whether a pod uses one of its addresses, one still rests, or a block is foreign.
    pub(crate) fn in_use(&self, cooldown: Duration, now: Timestamp) -> bool {
        !self.foreign_blocks.is_empty()
            || self.blocks.values().any(|state| !state.is_idle(cooldown, now))
    }

    /// Whether it may go at all. It stays while the record has a pod on it, even with an address that does
    /// not count: one of the family that was in force when the pod came.
    pub(crate) fn is_removable(&self, record: &Record) -> bool {
        let is_ours = self.origin == Origin::Tagged && self.foreign_blocks.is_empty();
        let mut ips = record.assignments().values().flat_map(|held| held.addresses.iter());
        is_ours && !ips.any(|ip| *ip.via.eni() == self.id)
    }

    pub(crate) fn n_live(&self) -> usize {
        self.blocks.values().map(|state| state.live.len()).sum()
    }

    /// The address that the next pod gets, if this ENI has one. It comes from the fullest block, so
    /// that whole blocks become free, and has rested longest there. The result says whether its block is
    /// among the `doubted`; then there is no other.
    pub(crate) fn pick(
        &self,
        kind: BlockKind,
        doubted: &BTreeSet<Block>,
        cooldown: Duration,
        now: Timestamp,
    ) -> Option<(bool, IpAddr)> {
        let candidates = self.blocks.iter().filter(|(_, state)| state.offers());
        candidates
            .filter_map(|(block, state)| {
                let (freed, address) = state.next(*block, cooldown, now)?;
                let (is_doubted, of_other_kind) = (doubted.contains(block), block.kind() != kind);
                let rank = (
                    is_doubted,
                    of_other_kind,
                    Reverse(state.live.len()),
                    Reverse(state.n_cooling(cooldown, now)),
                    freed,
                );
                Some((rank, address))
            })
            .min()
            .map(|((is_doubted, ..), address)| (is_doubted, address))
    }

    /// Up to `count` wholly free blocks to give back: the longest idle first. Among blocks that
    /// never served the highest comes first.
    pub(crate) fn idle_blocks(
        &self,
        count: BlockCount,
        cooldown: Duration,
        now: Timestamp,
    ) -> BTreeSet<Block> {
        let mut idle: Vec<_> = self
            .blocks
            .iter()
            .filter(|(block, state)| {
                block.kind() == count.kind && state.offers() && state.is_idle(cooldown, now)
            })
            .map(|(block, state)| (state.freed.values().max().copied(), Reverse(*block)))
            .collect();
        idle.sort();
        idle.into_iter().take(usize::from(count.n)).map(|(_, Reverse(block))| block).collect()
    }

    /// Makes those of `blocks` that are here unconfirmed, or confirms them. Blocks that leave go on leaving.
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

/// The addresses of one block that are not simply free and never used.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockState {
    /// Pods' addresses, on record or about to be.
    pub(crate) live: BTreeSet<IpAddr>,
    /// Released addresses, and when. They are free once they have rested long enough.
    pub(crate) freed: BTreeMap<IpAddr, Timestamp>,
    /// Addresses in use in a way that the record does not know.
    pub(crate) quarantined: BTreeSet<IpAddr>,
    pub(crate) standing: Standing,
}

/// Whether a block gives out addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    #[default]
    Confirmed,
    /// One describe of EC2 alone shows it, and it may have been taken off since. It gives out nothing until
    /// another describe confirms it.
    Unconfirmed,
    /// It is on its way back to EC2 and gives out nothing.
    Leaving,
}

impl BlockState {
    /// The addresses that rest, each with the moment of its release.
    pub(crate) fn resting(
        &self,
        cooldown: Duration,
        now: Timestamp,
    ) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        let freed = self.freed.iter().map(|(address, since)| (*address, *since));
        freed.filter(move |(address, since)| {
            *since + cooldown > now && !self.quarantined.contains(address)
        })
    }

    /// Whether it gives out addresses.
    pub(crate) fn offers(&self) -> bool {
        self.standing == Standing::Confirmed
    }

    /// Whether it is not on its way back to EC2.
    pub(crate) fn stays(&self) -> bool {
        self.standing != Standing::Leaving
    }

    /// The addresses that rest, each with the end of its rest.
    pub(crate) fn cooling(
        &self,
        cooldown: Duration,
        now: Timestamp,
    ) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        self.resting(cooldown, now).map(move |(address, since)| (address, since + cooldown))
    }

    pub(crate) fn n_cooling(&self, cooldown: Duration, now: Timestamp) -> usize {
        self.cooling(cooldown, now).count()
    }

    /// Drops and returns the addresses that have rested. For IPv6 only: there it does not matter which
    /// address rested longest, and their number has no bound.
    pub(crate) fn forget_rested(&mut self, cooldown: Duration, now: Timestamp) -> Vec<IpAddr> {
        let rested = self.freed.extract_if(.., |_, since| *since + cooldown <= now);
        rested.map(|(address, _)| address).collect()
    }

    /// The quarantined addresses that the record has for no pod.
    pub(crate) fn withheld(&self) -> impl Iterator<Item = IpAddr> {
        self.quarantined.difference(&self.live).copied()
    }

    /// Whether no pod has any of it and none of it rests.
    pub(crate) fn is_idle(&self, cooldown: Duration, now: Timestamp) -> bool {
        self.live.is_empty() && self.quarantined.is_empty() && self.n_cooling(cooldown, now) == 0
    }

    /// The free address that has rested longest, with the time of its release. An address that never
    /// served comes first, with the epoch. A /80 has an address for every millisecond, so there the
    /// time itself names one that never served: none serves twice, whatever has been forgotten.
    fn next(
        &self,
        block: Block,
        cooldown: Duration,
        now: Timestamp,
    ) -> Option<(Timestamp, IpAddr)> {
        if self.live.len() as u64 == block.size() {
            return None;
        }
        // Among one more address than are known at least one is new, so a /80 is never listed.
        let n_known = self.live.len() + self.freed.len() + self.quarantined.len();
        let known = |ip: &IpAddr| {
            self.live.contains(ip) || self.freed.contains_key(ip) || self.quarantined.contains(ip)
        };
        let first = if block.family() == Family::V6 { now.as_millis() } else { 0 };
        if let Some(fresh) = block.addresses_from(first).take(n_known + 1).find(|ip| !known(ip)) {
            return Some((Timestamp::default(), fresh));
        }
        let rested = self
            .freed
            .iter()
            .filter(|(ip, since)| **since + cooldown <= now && !self.quarantined.contains(*ip));
        rested.map(|(address, since)| (*since, *address)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
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
            let next = state.next(block, Duration::from_secs(30), at(100));
            let expect = expect.map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!(next.map(|(_, address)| address), expect, "{cidr} {live:?} {freed:?}");
        };
        let one = "10.0.0.5/32";
        check(one, &[], &[], Some("10.0.0.5"));
        check(one, &["10.0.0.5"], &[], None);
        check(one, &[], &[("10.0.0.5", 71)], None);
        check(one, &[], &[("10.0.0.5", 70)], Some("10.0.0.5"));
        // One that never served comes before one that has rested.
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
}
