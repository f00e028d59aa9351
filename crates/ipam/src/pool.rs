//! The addresses that EC2 has put on our ENIs: which serve, which rest, which are free.
//!
//! For these addresses the pool mirrors the record. It adds the addresses that a pod will get and that are
//! not on record yet. It knows no calls.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::block::{Block, BlockKind, Family};
use crate::eni::{BlockState, Eni, Link, Origin, Stage, Standing};
use crate::id::EniId;
use crate::kernel_report::PodLink;
use crate::reason::Reason;
use crate::record::Record;
use crate::rest::Rests;
use crate::time::Timestamp;

/// Our ENIs by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    pub(crate) enis: BTreeMap<EniId, Eni>,
    /// Addresses, ours or not, whose use contradicts the record, each with its link. The link is `None` once it
    /// is gone and the address's cooldown is not on record yet.
    pub(crate) quarantine: BTreeMap<IpAddr, Option<PodLink>>,
    /// The prefixes that containers beside the pods use, on record or on their way there.
    pub(crate) delegated: BTreeSet<Block>,
}

impl Pool {
    /// The address of the family of `kind` that the next pod gets, and its ENI. The primary ENI fills first, since it
    /// can never go back. Then comes the ENI with most pods, so that whole ENIs become free. Addresses in `doubted`
    /// blocks come last.
    pub(crate) fn pick(
        &self,
        kind: BlockKind,
        doubted: &BTreeSet<Block>,
        rests: Rests,
    ) -> Option<(&Eni, IpAddr)> {
        let offering = self.enis.values().filter(|eni| eni.offers());
        let picked = offering.filter_map(|eni| {
            let (is_doubted, address) = eni.pick(kind, doubted, rests)?;
            let is_secondary = eni.origin != Origin::Primary;
            let rank = (is_doubted, is_secondary, Reverse(eni.n_live()), eni.place());
            Some((rank, eni, address))
        });
        picked.min_by_key(|(rank, ..)| *rank).map(|(_, eni, address)| (eni, address))
    }

    /// Marks `address` as a pod's, if it is here.
    pub(crate) fn hold(&mut self, address: IpAddr) {
        if let Some(state) = self.state_of(address) {
            state.freed.remove(&address);
            state.live.insert(address);
        }
    }

    /// Undoes a [`hold`](Self::hold): no pod has had the address. The record has the state before the hold.
    pub(crate) fn unhold(&mut self, address: IpAddr, record: &Record) {
        if let Some(state) = self.state_of(address) {
            state.live.remove(&address);
            state.freed.extend(record.cooling().get(&address).map(|since| (address, *since)));
        }
    }

    /// Marks `address` as released at `since`, if it is here.
    pub(crate) fn rest(&mut self, address: IpAddr, since: Timestamp) {
        if let Some(state) = self.state_of(address) {
            state.live.remove(&address);
            state.freed.insert(address, since);
        }
    }

    /// Quarantines `address`, which `link` uses.
    pub(crate) fn put_in_quarantine(&mut self, address: IpAddr, link: PodLink) {
        self.quarantine.insert(address, Some(link));
        if let Some(state) = self.state_of(address) {
            state.quarantined.insert(address);
        }
    }

    pub(crate) fn end_quarantine(&mut self, address: IpAddr) {
        self.quarantine.remove(&address);
        if let Some(state) = self.state_of(address) {
            state.quarantined.remove(&address);
        }
    }

    /// Drops and returns the rested addresses in the block of `address`, if that is an IPv6 address.
    pub(crate) fn forget_rested(&mut self, address: IpAddr, rests: Rests) -> Vec<IpAddr> {
        let state = self.state_of(address).filter(|_| address.is_ipv6());
        state.map(|state| state.forget_rested(rests)).unwrap_or_default()
    }

    /// Puts `blocks` on the ENI, in the state that follows from the record and the `promised` addresses.
    /// Another ENI that had one of them, or the ENI's own address, loses it: a call of unknown outcome has moved it.
    pub(crate) fn add_blocks(
        &mut self,
        eni: &EniId,
        blocks: &BTreeSet<Block>,
        record: &Record,
        promised: &BTreeSet<IpAddr>,
    ) {
        let own = self.enis.get(eni).map(|eni| eni.primary_address);
        for other in self.enis.values_mut().filter(|other| other.id != *eni) {
            let is_here = |block: &Block| {
                let has_own = own.is_some_and(|address| block.contains(address));
                has_own || blocks.iter().any(|new| new.overlaps(*block))
            };
            let moved = other.blocks.extract_if(.., |block, _| is_here(block));
            // This describe may lag, and a later one may show the block on the other ENI again.
            other.missed.extend(moved.map(|(block, _)| block));
        }
        let Some(eni) = self.enis.get_mut(eni) else { return };
        for block in blocks {
            // EC2 has no address in two blocks. If its answer has one, one of the blocks is left out.
            // Otherwise the address would serve two pods.
            if eni.blocks.keys().any(|known| known != block && known.overlaps(*block)) {
                continue;
            }
            // The block is ours now, even if it was foreign before.
            eni.foreign_blocks.remove(block);
            eni.blocks.entry(*block).or_insert_with(|| {
                let (first, last) = block.bounds();
                let quarantined = self.quarantine.range(first..=last).map(|(ip, _)| *ip).collect();
                let delegated = self.delegated.contains(block);
                BlockState { quarantined, delegated, ..state_on_record(*block, record, promised) }
            });
        }
    }

    /// The ENI that carries `address` for pods.
    pub(crate) fn eni_of(&self, address: IpAddr) -> Option<&Eni> {
        self.enis.values().find(|eni| eni.block_of(address).is_some())
    }

    /// Whether any ENI carries `address` for pods.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.eni_of(address).is_some()
    }

    /// Whether `address` is in a block that pods get addresses of.
    pub(crate) fn serves(&self, address: IpAddr) -> bool {
        self.has(address) && !self.is_delegated(address)
    }

    /// Whether `address` is in a prefix that containers beside the pods use.
    pub(crate) fn is_delegated(&self, address: IpAddr) -> bool {
        Block::candidates(address).any(|block| self.delegated.contains(&block))
    }

    /// The prefix to delegate next: one without any use, of an ENI whose kernel side is ready. The primary ENI
    /// comes first, since it never goes back; of each ENI the lowest prefix. So a daemon without its record
    /// mostly chooses the same again.
    pub(crate) fn idle_prefix(
        &self,
        kind: BlockKind,
        doubted: &BTreeSet<Block>,
        rests: Rests,
    ) -> Option<Block> {
        let offering = self.enis.values().filter(|eni| eni.offers());
        let prefixes = offering.flat_map(|eni| {
            let is_idle = move |(block, state): &(&Block, &BlockState)| {
                block.kind() == kind
                    && state.offers()
                    && state.is_idle(rests)
                    && !doubted.contains(*block)
            };
            let place = (eni.origin != Origin::Primary, eni.place());
            eni.blocks.iter().filter(is_idle).map(move |(block, _)| (place, *block))
        });
        prefixes.min().map(|(_, block)| block)
    }

    /// Takes `prefix` from the pods, or gives it back to them.
    pub(crate) fn set_delegated(&mut self, prefix: Block, delegated: bool) {
        if delegated {
            self.delegated.insert(prefix);
        } else {
            self.delegated.remove(&prefix);
        }
        let states = self.enis.values_mut().filter_map(|eni| eni.blocks.get_mut(&prefix));
        states.for_each(|state| state.delegated = delegated);
    }

    /// Whether an address of `blocks` is in quarantine.
    pub(crate) fn is_withheld(&self, eni: &EniId, blocks: &BTreeSet<Block>) -> bool {
        let states = self.enis.get(eni).map(|eni| &eni.blocks);
        let mut states = blocks.iter().filter_map(|block| states?.get(block));
        states.any(|state| !state.quarantined.is_empty())
    }

    /// Whether new pods may get addresses of `family`, free or not.
    pub(crate) fn offers(&self, family: Family) -> bool {
        let offering = self.enis.values().filter(|eni| eni.offers());
        let mut blocks = offering.flat_map(|eni| &eni.blocks);
        blocks.any(|(block, state)| block.family() == family && !state.delegated)
    }

    /// The end of each resting address's cooldown in `family`, in no order.
    pub(crate) fn rest_ends(
        &self,
        family: Family,
        rests: Rests,
    ) -> impl Iterator<Item = Timestamp> {
        let blocks = self.enis.values().flat_map(|eni| &eni.blocks);
        let states = blocks.filter(move |(block, _)| block.family() == family);
        states.flat_map(move |(_, state)| state.cooling(rests)).map(|(_, end)| end)
    }

    pub(crate) fn stage_mut(&mut self, eni: &EniId) -> Option<&mut Stage> {
        self.enis.get_mut(eni).map(|eni| &mut eni.stage)
    }

    /// Marks `blocks` of the ENI as on their way back to EC2, or as confirmed again.
    pub(crate) fn set_leaving(&mut self, eni: &EniId, blocks: &BTreeSet<Block>, leaving: bool) {
        let Some(eni) = self.enis.get_mut(eni) else { return };
        for block in blocks {
            if let Some(state) = eni.blocks.get_mut(block) {
                state.standing = if leaving { Standing::Leaving } else { Standing::Confirmed };
            }
        }
    }

    /// Whether the ENI is unattached, created by us, not in use, and without foreign blocks.
    pub(crate) fn is_spare(&self, eni: &EniId, rests: Rests) -> bool {
        self.enis.get(eni).is_some_and(|eni| {
            eni.stage == Stage::Unattached && eni.origin == Origin::Tagged && !eni.in_use(rests)
        })
    }

    /// Deletes an unattached ENI if [`is_spare`](Self::is_spare) holds.
    pub(crate) fn delete_unattached(&mut self, eni: &EniId, why: Reason, rests: Rests) {
        if self.is_spare(eni, rests)
            && let Some(stage) = self.stage_mut(eni)
        {
            *stage = Stage::Deleting { place: None, why };
        }
    }

    /// Moves an attached ENI to the stage `next`. Returns whether it was attached.
    pub(crate) fn leave_attached(
        &mut self,
        eni: &EniId,
        next: impl FnOnce(crate::eni::Attachment) -> Stage,
    ) -> bool {
        let Some(stage) = self.stage_mut(eni) else { return false };
        let Stage::Attached { attachment, .. } = &*stage else { return false };
        *stage = next(attachment.clone());
        true
    }

    /// Lets the ENIs serve again whose detach is next, since nothing may go back.
    pub(crate) fn keep_all(&mut self) {
        let ids: Vec<_> = self.enis.keys().cloned().collect();
        ids.iter().for_each(|eni| self.serve_again(eni));
    }

    /// Lets an ENI serve again that was to be detached.
    pub(crate) fn serve_again(&mut self, eni: &EniId) {
        if let Some(stage) = self.stage_mut(eni)
            && let Stage::Draining { attachment, .. } = stage
        {
            *stage = Stage::Attached { attachment: attachment.clone(), link: Link::Awaited };
        }
    }

    /// How many of our ENIs hold a place on the instance.
    pub(crate) fn n_places_taken(&self) -> u16 {
        let n = self.enis.values().filter(|eni| eni.place().is_some()).count();
        u16::try_from(n).unwrap_or(u16::MAX)
    }

    /// An attached ENI that the host cannot use yet.
    pub(crate) fn unready(&self) -> Option<&Eni> {
        let attached = |eni: &&Eni| matches!(eni.stage, Stage::Attached { .. });
        self.enis.values().filter(attached).find(|eni| !eni.is_linked())
    }

    fn state_of(&mut self, address: IpAddr) -> Option<&mut BlockState> {
        self.enis.values_mut().find_map(|eni| {
            let block = eni.block_of(address)?;
            eni.blocks.get_mut(&block)
        })
    }
}

fn state_on_record(block: Block, record: &Record, promised: &BTreeSet<IpAddr>) -> BlockState {
    let (first, last) = block.bounds();
    let assigned = record.owners().range(first..=last).map(|(address, _)| *address);
    let live: BTreeSet<_> = assigned.chain(promised.range(first..=last).copied()).collect();
    let freed = record.cooling().range(first..=last);
    let freed =
        freed.filter(|(ip, _)| !live.contains(ip)).map(|(ip, since)| (*ip, *since)).collect();
    BlockState { live, freed, ..BlockState::default() }
}
