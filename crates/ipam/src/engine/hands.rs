//! What somebody else has put on an ENI of ours by hand: an address for a service on the node, say.
//! No pod gets it, and it does not go back. Only a reading shows it, between what is known of the ENI
//! and what EC2 says of it now. Where nothing is known all is ours, as at the first start of all.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Engine;
use crate::block::Block;
use crate::call::EniFacts;
use crate::time::Timestamp;

/// For how long EC2 may still show late what a change of unknown outcome, or of a run before, has
/// brought. Far above what is seen, since an address of ours that counted as another's would stay
/// idle.
const LATE: Duration = Duration::from_secs(600);

impl Engine {
    /// Puts on an ENI of the pool what EC2 has described there, `known` being what is ours of it.
    pub(super) fn put_blocks(&mut self, facts: &EniFacts, known: &BTreeSet<Block>, now: Timestamp) {
        self.changed_late.retain(|_, since| *since + LATE > now);
        let mut told = self.told_once.values().filter_map(|(eni, _)| eni.as_ref());
        let may_be_ours =
            self.changed_late.contains_key(&facts.id) || told.any(|eni| *eni == facts.id);
        let is_pods = |block: &Block| {
            let (first, last) = block.bounds();
            let mut seen = self.pool.quarantine.range(first..=last);
            seen.next().is_some() || self.record.owners().range(first..=last).next().is_some()
        };
        let unknown = facts.blocks.difference(known).copied();
        let by_hand: BTreeSet<_> =
            unknown.filter(|block| !may_be_ours && !is_pods(block)).collect();
        let Some(eni) = self.pool.enis.get_mut(&facts.id) else { return };
        eni.by_hand.extend(by_hand);
        let ours: BTreeSet<_> = facts.blocks.difference(&eni.by_hand).copied().collect();
        let promised = self.requests.promised();
        self.pool.add_blocks(&facts.id, &ours, &self.record, &promised);
        // What EC2 leaves out, or describes on another ENI as well, is ours once it is described right.
        let Some(eni) = self.pool.enis.get_mut(&facts.id) else { return };
        eni.missed = known | &ours;
        eni.missed.retain(|block| !eni.blocks.contains_key(block));
    }

    /// What is ours of an ENI that comes into the pool: what it had by the record, which may be that of
    /// another boot. Of a family of which the record has nothing it knows nothing.
    pub(super) fn on_record_of(&self, facts: &EniFacts) -> BTreeSet<Block> {
        let Some(known) = self.record.enis().get(&facts.id) else { return facts.blocks.clone() };
        let known = &known.facts.blocks | &known.missed;
        let is_unknown = |block: &&Block| !known.iter().any(|it| it.is_ipv6() == block.is_ipv6());
        let unknown: BTreeSet<_> = facts.blocks.iter().filter(is_unknown).copied().collect();
        &known | &unknown
    }

    /// One phrase for each of them.
    pub(super) fn things_by_hand(&self) -> impl Iterator<Item = String> {
        self.pool.enis.values().flat_map(|eni| {
            let of = |block| format!("{block} on {} is not from us: left alone", eni.id);
            eni.by_hand.iter().map(of)
        })
    }
}
