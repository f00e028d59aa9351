//! EC2 describes for some seconds after a change what was before it, and it may do so once and not the next
//! time. Hence what this process knows by a call of its own is newer than a reading; what nothing but a
//! reading tells of is hearsay as long as it may have been taken off since, and given to no pod; and what a
//! reading tells of a call's outcome stays on record until another bears it out.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Engine;
use super::calls::Phase;
use crate::block::Block;
use crate::call::{CallId, Ec2Call, EniFacts};
use crate::id::EniId;
use crate::record::Change;
use crate::time::Timestamp;

/// For how long after a change EC2 may still describe what was before it.
pub(super) const LAG: Duration = Duration::from_secs(10);

impl Engine {
    /// The ENI without what an earlier run has given back. Where that run may have asked for more, nothing
    /// is left out: what is new and what is old look the same.
    pub(super) fn as_it_was_left(&self, facts: EniFacts) -> EniFacts {
        let is_assign = |call: &&Ec2Call| matches!(call, Ec2Call::Assign { .. });
        let may_be_new = self.call_on(&facts.id).as_ref().is_some_and(is_assign);
        match may_be_new || facts.attachment.is_none() {
            true => facts,
            false => self.recollection.less_given_back(facts),
        }
    }

    /// Ends the calls whose outcome this reading tells, and returns their ENIs.
    pub(super) fn settle_doubts(&mut self, reading: CallId, now: Timestamp) -> BTreeSet<EniId> {
        let settled: Vec<_> = self
            .calls
            .iter()
            .filter(
                |(_, inflight)| matches!(inflight.phase, Phase::Doubtful(from) if from <= reading),
            )
            .map(|(id, inflight)| (*id, inflight.call.clone()))
            .collect();
        for (id, call) in &settled {
            self.calls.remove(id);
            self.told_once.insert(*id, (call.eni().cloned(), now));
            if let Ec2Call::Unassign { eni, blocks } = call {
                self.set_leaving(eni, blocks, false);
                if let Some(eni) = self.pool.enis.get_mut(eni) {
                    eni.shrunk_at = now;
                    eni.set_hearsay(blocks, true);
                }
            }
        }
        let doubted: BTreeSet<_> =
            settled.iter().filter_map(|(_, call)| call.eni().cloned()).collect();
        self.changed_late.extend(doubted.iter().map(|eni| (eni.clone(), now)));
        doubted
    }

    /// Takes off the record the calls whose outcome this reading has borne out.
    pub(super) fn settle_told(&mut self, asked_at: Timestamp, now: Timestamp) {
        let is_sure = |eni: &Option<EniId>, since: Timestamp| {
            since + LAG <= asked_at && eni.as_ref().is_none_or(|eni| self.is_settled(eni, asked_at))
        };
        let told = self.told_once.iter().filter(|(_, (eni, since))| is_sure(eni, *since));
        for id in told.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.told_once.remove(&id);
            self.saves.note(Change::Settled { id });
        }
        if !self.told_once.is_empty() {
            // What they changed only just may not be described yet.
            self.enis_look.ask_from(now + LAG);
        }
    }

    /// Whether nothing has changed the ENI so lately that EC2's words may be older.
    pub(super) fn is_settled(&self, eni: &EniId, asked_at: Timestamp) -> bool {
        let changed_at = self.pool.enis.get(eni).map(|eni| eni.changed_at);
        !self.is_busy(eni) && changed_at.is_none_or(|at| at + LAG <= asked_at)
    }

    /// Whether another reading has to tell what is on the ENI.
    pub(super) fn is_doubtful(&self, facts: &EniFacts) -> bool {
        let known = self.pool.enis.get(&facts.id);
        known.is_some_and(|eni| eni.has_hearsay() || !eni.blocks.keys().eq(&facts.blocks))
    }

    /// What a reading shows that began long enough after the first may be believed.
    pub(super) fn bear_out(&mut self, facts: &EniFacts, asked_at: Timestamp) {
        if let Some(eni) = self.pool.enis.get_mut(&facts.id)
            && eni.shrunk_at + LAG <= asked_at
        {
            eni.set_hearsay(&facts.blocks, false);
        }
    }

    /// Keeps the blocks of the ENI that are not `known` from pods until EC2 has named them twice: they may
    /// have been given back just now, by an earlier run of which there is no record too.
    pub(super) fn doubt_blocks(&mut self, eni: &EniId, known: &BTreeSet<Block>, now: Timestamp) {
        let Some(eni) = self.pool.enis.get_mut(eni) else { return };
        let news = eni.blocks.keys().filter(|block| !known.contains(block));
        let news: BTreeSet<_> = news.copied().collect();
        if !news.is_empty() {
            eni.set_hearsay(&news, true);
            self.enis_look.ask_from(now + LAG);
        }
    }
}
