//! Blocks that somebody else has put on an ENI of ours, such as an address for a service on the node.
//!
//! No pod gets them and they do not go back. A block is foreign if EC2 describes it on an ENI and this process
//! does not know it there. Where nothing is known, as at the very first start, all blocks are ours. So they are while
//! the policy leaves it to somebody else to assign them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::stock_take::StockTake;
use crate::block::Block;
use crate::call::EniFacts;
use crate::pool::Pool;

/// For how long blocks of a call of unknown outcome, or of an earlier run, may still appear late. Far longer
/// than observed lags, since an address of ours that counts as foreign stays idle.
const LATE: Duration = Duration::from_secs(600);

impl StockTake<'_> {
    /// Puts on an ENI of the pool what EC2 describes there. The `known` blocks are ours.
    pub(super) fn put_blocks(&mut self, facts: &EniFacts, known: &BTreeSet<Block>) {
        let now = self.cx.now;
        self.inventory.changed_late.retain(|_, since| since + LATE > now);
        let are_from_others = self.cx.may_change().is_none();
        let may_be_ours = are_from_others
            || self.inventory.changed_late.contains(&facts.id)
            || self.calls.has_unconfirmed_outcome(&facts.id);
        let record = self.journal.record();
        let is_pods = |block: &Block| {
            let (first, last) = block.bounds();
            let mut seen = self.pool.quarantine.range(first..=last);
            seen.next().is_some() || record.owners().range(first..=last).next().is_some()
        };
        let unknown = facts.blocks.difference(known).copied();
        let foreign: BTreeSet<_> =
            unknown.filter(|block| !may_be_ours && !is_pods(block)).collect();
        let Some(eni) = self.pool.enis.get_mut(&facts.id) else { return };
        if are_from_others {
            eni.foreign_blocks.clear();
        }
        eni.foreign_blocks.extend(foreign);
        let ours: BTreeSet<_> = facts.blocks.difference(&eni.foreign_blocks).copied().collect();
        self.pool.add_blocks(&facts.id, &ours, record, self.promised);
        // Blocks that EC2 leaves out, or describes on another ENI too, are ours once it describes them right.
        let Some(eni) = self.pool.enis.get_mut(&facts.id) else { return };
        eni.missed = known | &ours;
        eni.missed.retain(|block| !eni.blocks.contains_key(block));
    }

    /// Our blocks of an ENI that comes into the pool: the blocks on record, even of another boot. If the record
    /// has no block of a family on the ENI, all blocks of that family are ours too.
    pub(super) fn on_record_of(&self, facts: &EniFacts) -> BTreeSet<Block> {
        let Some(known) = self.journal.record().enis().get(&facts.id) else {
            return facts.blocks.clone();
        };
        let known = &known.facts.blocks | &known.missed;
        let is_unknown = |block: &&Block| !known.iter().any(|it| it.family() == block.family());
        let unknown: BTreeSet<_> = facts.blocks.iter().filter(is_unknown).copied().collect();
        &known | &unknown
    }
}

/// One phrase for each foreign block.
pub(in crate::engine) fn foreign_block_phrases(pool: &Pool) -> impl Iterator<Item = String> {
    pool.enis.values().flat_map(|eni| {
        let phrase = |block| format!("{block} on {} is not from us: left alone", eni.id);
        eni.foreign_blocks.iter().map(phrase)
    })
}
