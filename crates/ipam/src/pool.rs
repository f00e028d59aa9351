//! The addresses that EC2 has put on our ENIs: which serve, which rest, which are free.
//!
//! It mirrors the record for the addresses that are here, and adds those promised to a pod whose
//! record is not durable yet. It knows no calls.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::block::Block;
use crate::eni::{BlockState, Eni, Origin};
use crate::id::EniId;
use crate::policy::Mode;
use crate::record::Record;
use crate::sighting::SeenLink;
use crate::time::Timestamp;

/// Our ENIs by id.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) enis: BTreeMap<EniId, Eni>,
    /// Addresses, ours or not, that are in use as the record does not know, each with its link;
    /// without one if that has gone and the rest that follows is not on record yet.
    pub(crate) quarantine: BTreeMap<IpAddr, Option<SeenLink>>,
    cooldown: Duration,
}

impl Pool {
    pub(crate) fn new(cooldown: Duration) -> Self {
        Self { enis: BTreeMap::new(), quarantine: BTreeMap::new(), cooldown }
    }

    /// The address that the next pod gets, and its ENI. The primary ENI fills first, since it can
    /// never be given back; then the one with most pods, so that whole ENIs become free. What is in
    /// a `doubted` block comes last.
    pub(crate) fn pick(
        &self,
        mode: Mode,
        doubted: &BTreeSet<Block>,
        now: Timestamp,
    ) -> Option<(&Eni, IpAddr)> {
        let offering = self.enis.values().filter(|eni| eni.offers());
        let picked = offering.filter_map(|eni| {
            let (is_doubted, address) = eni.pick(mode, doubted, self.cooldown, now)?;
            let is_secondary = eni.origin != Origin::Primary;
            let rank = (is_doubted, is_secondary, Reverse(eni.n_live()), eni.device_index());
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

    /// Takes a [`hold`](Self::hold) back: no pod has ever had the address. It is as it was before,
    /// which the record tells.
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

    /// Withholds `address`, which is in use at `link`.
    pub(crate) fn put_in_quarantine(&mut self, address: IpAddr, link: SeenLink) {
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

    /// Drops and returns the addresses of `address`'s block that have rested, if it is of IPv6.
    pub(crate) fn forget_rested(&mut self, address: IpAddr, now: Timestamp) -> Vec<IpAddr> {
        let cooldown = self.cooldown;
        let state = self.state_of(address).filter(|_| address.is_ipv6());
        state.map(|state| state.forget_rested(cooldown, now)).unwrap_or_default()
    }

    /// Puts `blocks` on the ENI, with what the record and the `promised` addresses say of them. What
    /// another ENI had of them it has no more: EC2 took them away in a call of unknown outcome.
    pub(crate) fn add_blocks(
        &mut self,
        eni: &EniId,
        blocks: &BTreeSet<Block>,
        record: &Record,
        promised: &BTreeSet<IpAddr>,
    ) {
        for other in self.enis.values_mut().filter(|other| other.id != *eni) {
            let is_here = |block: &Block| blocks.iter().any(|new| new.overlaps(*block));
            let moved = other.blocks.extract_if(.., |block, _| is_here(block));
            // EC2 may describe what was before: then it is as it was.
            other.missed.extend(moved.map(|(block, _)| block));
        }
        let Some(eni) = self.enis.get_mut(eni) else { return };
        for block in blocks {
            // EC2 has no address in two blocks. Where it says so, one of them is left out: in both,
            // the address would serve two pods.
            if eni.blocks.keys().any(|known| known != block && known.overlaps(*block)) {
                continue;
            }
            // Whoever had it there before.
            eni.by_hand.remove(block);
            eni.blocks.entry(*block).or_insert_with(|| {
                let (first, last) = block.bounds();
                let quarantined = self.quarantine.range(first..=last).map(|(ip, _)| *ip).collect();
                BlockState { quarantined, ..state_on_record(*block, record, promised) }
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

    /// Whether an address of `blocks` is in quarantine.
    pub(crate) fn is_withheld(&self, eni: &EniId, blocks: &BTreeSet<Block>) -> bool {
        let states = self.enis.get(eni).map(|eni| &eni.blocks);
        let mut states = blocks.iter().filter_map(|block| states?.get(block));
        states.any(|state| !state.quarantined.is_empty())
    }

    /// When each resting address will have rested, ascending.
    pub(crate) fn rest_ends(&self, now: Timestamp) -> Vec<Timestamp> {
        let states = self.enis.values().flat_map(|eni| eni.blocks.values());
        let mut ends: Vec<_> = states
            .flat_map(|state| state.cooling(self.cooldown, now))
            .map(|(_, end)| end)
            .collect();
        ends.sort_unstable();
        ends
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
