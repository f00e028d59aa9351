//! EC2 lags: for some seconds after a change a describe may show the state before, even after another describe
//! has shown the new state.
//!
//! Three rules follow. The answer to a call of this process is newer than a describe. A block that only one
//! describe shows is unconfirmed while it may have been taken off since; no pod gets it. An outcome that one
//! describe shows stays on record until a second describe agrees.

use std::collections::BTreeSet;

use super::Inventory;
use super::stock_take::{StockTake, is_assign};
use crate::block::Block;
use crate::call::{CallId, Ec2Call, EniFacts};
use crate::engine::poll::LAG;
use crate::id::EniId;
use crate::pool::Pool;
use crate::reason::Reason;
use crate::time::Timestamp;

impl StockTake<'_> {
    /// The ENI without the blocks that an earlier run has given back. Nothing is left out where that run
    /// may have asked for more: new blocks and old ones look the same.
    pub(super) fn without_returned(&self, facts: EniFacts) -> EniFacts {
        let may_have_more = self.calls.call_on(&facts.id).is_some_and(is_assign);
        match may_have_more || facts.attachment.is_none() {
            true => facts,
            false => self.inventory.warm_start.without_returned(facts),
        }
    }

    /// Ends the calls whose outcome the describe number `poll` shows, and returns their ENIs.
    pub(super) fn settle_shown(&mut self, poll: CallId) -> BTreeSet<EniId> {
        let now = self.cx.now;
        let shown = self.calls.end_shown_by(poll, now);
        for call in &shown {
            if let Ec2Call::Unassign { eni, blocks } = call {
                self.pool.set_leaving(eni, blocks, false);
                if let Some(eni) = self.pool.enis.get_mut(eni) {
                    eni.shrunk_at = now;
                    eni.set_unconfirmed(blocks, true);
                }
            }
        }
        let enis: BTreeSet<_> = shown.iter().filter_map(|call| call.eni().cloned()).collect();
        for eni in &enis {
            self.inventory.changed_late.begin_anew(eni.clone(), now);
        }
        enis
    }

    /// Takes the calls off the record whose outcome this describe confirms.
    pub(super) fn confirm_outcomes(&mut self, asked_at: Timestamp) {
        let pool = &*self.pool;
        let is_left = self.calls.confirm_outcomes(
            |calls, eni, since| since + LAG <= asked_at && calls.is_settled(eni, pool, asked_at),
            self.journal,
        );
        if is_left {
            // EC2 may not show yet what these calls changed.
            self.inventory.enis_poll.ask_from(self.cx.now + LAG, Reason::Confirm);
        }
    }

    /// Keeps the blocks of the ENI that are not `known` from pods until EC2 has described them twice. An
    /// earlier run without a record may have given them back just now.
    pub(super) fn doubt_blocks(&mut self, eni: &EniId, known: &BTreeSet<Block>) {
        let Some(eni) = self.pool.enis.get_mut(eni) else { return };
        let news = eni.blocks.keys().filter(|block| !known.contains(block));
        let news: BTreeSet<_> = news.copied().collect();
        if !news.is_empty() {
            eni.set_unconfirmed(&news, true);
            self.inventory.enis_poll.ask_from(self.cx.now + LAG, Reason::Confirm);
        }
    }
}

impl Inventory {
    /// Describes the ENIs once EC2 no longer lags behind a change made now.
    pub(in crate::engine) fn recheck_after_lag(&mut self, now: Timestamp) {
        self.enis_poll.ask_from(now + LAG, Reason::Confirm);
    }

    /// Schedules a describe, since the device of an ENI is gone. A call last changed that ENI at `changed_at`.
    pub(in crate::engine) fn recheck_gone(&mut self, changed_at: Timestamp, now: Timestamp) {
        self.enis_poll.ask_from(now.max(changed_at + LAG), Reason::DeviceGone);
    }
}

impl Pool {
    /// Whether another describe must show the blocks of the ENI.
    pub(super) fn is_doubtful(&self, facts: &EniFacts) -> bool {
        let known = self.enis.get(&facts.id);
        known.is_some_and(|eni| eni.has_unconfirmed() || !eni.blocks.keys().eq(&facts.blocks))
    }

    /// A describe that began long enough after the first confirms what it shows.
    pub(super) fn confirm(&mut self, facts: &EniFacts, asked_at: Timestamp) {
        if let Some(eni) = self.enis.get_mut(&facts.id)
            && eni.shrunk_at + LAG <= asked_at
        {
            eni.set_unconfirmed(&facts.blocks, false);
        }
    }

    /// Calls of ours change no tags, so EC2's answer counts also while one is under way.
    pub(super) fn take_tags(&mut self, facts: &EniFacts) {
        if let Some(eni) = self.enis.get_mut(&facts.id) {
            eni.tags.clone_from(&facts.tags);
        }
    }
}
