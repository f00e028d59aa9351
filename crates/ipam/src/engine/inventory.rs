//! What EC2 says is here, and how far we believe it over what we know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::calls::not_an_answer;
use super::doubt::LAG;
use super::{Engine, Foreign, Home, Learnt};
use crate::block::Block;
use crate::call::{Action, AttachmentStatus, CallError, CallId, CallOutput, Ec2Call, EniFacts};
use crate::eni::{Bond, Link, Origin, Stage};
use crate::event::Effect;
use crate::id::EniId;
use crate::ownership::{self, Ownership};
use crate::policy::Mode;
use crate::record::Change;
use crate::time::Timestamp;
use crate::view::ForeignReason;

/// How often EC2 is read although nothing gives cause; up to a quarter is added, by instance.
pub(super) const AUDIT: Duration = Duration::from_secs(20 * 60 * 60);

/// One kind of reading: when it is due, whether it is under way, whether it has ever succeeded.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) call: Ec2Call,
    due: Option<Timestamp>,
    /// A reading that begins before this does not do: EC2 may still describe what was before.
    wanted_from: Option<Timestamp>,
    under_way: Option<(CallId, Timestamp)>,
    known: bool,
}

impl Look {
    pub(super) fn due(call: Ec2Call, now: Timestamp) -> Self {
        Self { call, due: Some(now), wanted_from: None, under_way: None, known: false }
    }

    pub(super) fn never(call: Ec2Call) -> Self {
        Self { call, due: None, wanted_from: None, under_way: None, known: false }
    }

    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether the last reading was no older than it had to be.
    pub(super) fn is_certain(&self) -> bool {
        self.known && self.wanted_from.is_none()
    }

    /// Looks at `at`, if nothing makes it sooner.
    pub(super) fn ask(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Looks at `at` or later, even if it looks before.
    pub(super) fn ask_from(&mut self, at: Timestamp) {
        self.wanted_from = self.wanted_from.max(Some(at));
        self.ask(at);
    }

    /// When something happens by itself: not while an answer is awaited.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        self.due.filter(|_| self.under_way.is_none())
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    fn start(&mut self, id: CallId, now: Timestamp) {
        self.due = self.wanted_from.filter(|from| *from > now);
        self.under_way = Some((id, now));
    }

    fn end(&mut self, id: CallId) -> Option<Timestamp> {
        let (_, asked_at) = self.under_way.take_if(|(under_way, _)| *under_way == id)?;
        Some(asked_at)
    }
}

impl Engine {
    /// Reads what is due to be read and may be.
    pub(super) fn look(&mut self, now: Timestamp) {
        for which in [Self::subnets_look, Self::enis_look, Self::leaks_look] {
            let look = which(self);
            let (call, is_due) = (look.call.clone(), look.wakes_at().is_some_and(|at| at <= now));
            if is_due && self.action_hold(call.action(), now).is_none() {
                let id = CallId(self.next_call);
                self.next_call += 1;
                self.buckets.take(call.action(), now);
                which(self).start(id, now);
                self.out.push(Effect::Call { id, call });
            }
        }
    }

    fn subnets_look(&mut self) -> &mut Look {
        &mut self.subnets_look
    }

    fn enis_look(&mut self) -> &mut Look {
        &mut self.enis_look
    }

    fn leaks_look(&mut self) -> &mut Look {
        &mut self.leaks_look
    }

    /// Takes the answer in, if `id` is a reading; says whether it is.
    pub(super) fn look_done(
        &mut self,
        id: CallId,
        result: &Result<CallOutput, CallError>,
        now: Timestamp,
    ) -> bool {
        if let Some(asked_at) = self.subnets_look.end(id) {
            match result {
                Ok(CallOutput::Subnets(facts)) => {
                    self.subnets.learn(facts.clone());
                    self.look_succeeded(Self::subnets_look, asked_at);
                }
                Ok(_) => self.look_failed(Self::subnets_look, &not_an_answer(), now),
                Err(error) => self.look_failed(Self::subnets_look, error, now),
            }
            return true;
        }
        if self.leaks_look.end(id).is_some() {
            self.search_done(result, now);
            return true;
        }
        let Some(asked_at) = self.enis_look.end(id) else { return false };
        match result {
            Ok(CallOutput::Enis(facts)) => {
                let mut serving: Vec<_> = facts.iter().map(|eni| self.as_it_serves(eni)).collect();
                self.left_alone = left_alone(facts, &serving);
                if let Some(primary) = facts.iter().find(|eni| eni.is_primary()) {
                    let EniFacts { subnet, security_groups, .. } = primary.clone();
                    self.home = Some(Home { subnet, security_groups });
                }
                // What an earlier run changed last, EC2 may not describe yet.
                if !self.enis_look.is_known() && self.record.has_calls() {
                    self.enis_look.ask_from(now + LAG);
                    serving = serving.into_iter().map(|eni| self.as_it_was_left(eni)).collect();
                }
                self.look_succeeded(Self::enis_look, asked_at);
                self.recollection.ec2_has_spoken();
                let hints = self.hints_to_judge(asked_at);
                self.take_stock(id, &serving, asked_at, now);
                self.judge_hints(&hints, asked_at, now);
            }
            Ok(_) => self.look_failed(Self::enis_look, &not_an_answer(), now),
            Err(error) => self.look_failed(Self::enis_look, error, now),
        }
        if !self.enis_look.is_known() {
            self.recollection.ec2_is_away(now);
        }
        true
    }

    fn look_succeeded(&mut self, which: fn(&mut Self) -> &mut Look, asked_at: Timestamp) {
        let look = which(self);
        look.known = true;
        look.wanted_from.take_if(|from| *from <= asked_at);
        let action = look.call.action();
        self.action_succeeded(action);
    }

    fn look_failed(
        &mut self,
        which: fn(&mut Self) -> &mut Look,
        error: &CallError,
        now: Timestamp,
    ) {
        let look = which(self);
        look.ask(now);
        let call = look.call.clone();
        self.action_failed(&call, error, now);
    }

    /// The ENI without the blocks that are not for pods: those of the other family, and of IPv6
    /// those on other ENIs than the primary.
    pub(super) fn as_it_serves(&self, facts: &EniFacts) -> EniFacts {
        let mode = self.mode();
        let mut facts = facts.clone();
        let carries = mode != Mode::Ipv6 || facts.is_primary();
        facts.blocks.retain(|block| carries && mode.serves(*block));
        facts
    }

    /// Makes the pool match what EC2 has described. `asked_at`: what was changed since is newer.
    fn take_stock(
        &mut self,
        reading: CallId,
        facts: &[EniFacts],
        asked_at: Timestamp,
        now: Timestamp,
    ) {
        self.enis_look.ask(now + self.jitter.lengthened(AUDIT, 0));
        if self.learnt.since + AUDIT <= now {
            self.learnt = Learnt::nothing(now);
        }
        let doubted = self.settle_doubts(reading, now);
        self.foreign.clear();
        let mut seen = BTreeSet::new();
        let mut left_behind = Vec::new();
        for eni in facts {
            seen.insert(eni.id.clone());
            let ownership = match eni.attachment {
                Some(_) => ownership::of_attached(eni, &self.node),
                None if ownership::is_left_behind(eni, &self.node) => {
                    Ownership::Ours(Origin::Tagged)
                }
                None => continue,
            };
            match ownership {
                Ownership::Foreign(why) => self.note_foreign(eni, why),
                Ownership::Ours(origin) if self.pool.enis.contains_key(&eni.id) => {
                    self.bear_out(eni, asked_at);
                    if doubted.contains(&eni.id) || self.is_settled(&eni.id, asked_at) {
                        self.update(eni, origin, asked_at, now);
                    } else if self.is_doubtful(eni) {
                        self.enis_look.ask_from(now + LAG);
                    }
                }
                Ownership::Ours(origin) => left_behind.extend(self.discover(eni, origin, now)),
            }
        }
        self.forget_unseen(&seen, &doubted, asked_at);
        self.settle_told(asked_at, now);
        self.judge_left_behind(&left_behind, asked_at, now);
        self.forget_rested(now);
    }

    fn note_foreign(&mut self, eni: &EniFacts, why: ForeignReason) {
        let on_our_card = eni.attachment.as_ref().filter(|a| a.network_card == 0);
        let device_index = on_our_card.map(|attachment| attachment.device_index);
        self.foreign.insert(eni.id.clone(), Foreign { why, device_index });
        self.left_alone.entry(eni.id.clone()).or_default().extend(&eni.blocks);
    }

    /// Takes an ENI in that was not known. Returns it if it is to be judged whether it is wanted.
    pub(super) fn discover(
        &mut self,
        eni: &EniFacts,
        origin: Origin,
        now: Timestamp,
    ) -> Option<EniId> {
        let creating = self.calls.values().any(|call| call.call.action() == Action::CreateEni);
        let on_record = self.record.enis().get(&eni.id).map(|known| known.facts.blocks.clone());
        if on_record.is_none() {
            // An earlier run may have made it just now.
            self.changed_late.insert(eni.id.clone(), now);
        }
        let stage = described_stage(eni);
        let is_unattached = stage == Stage::Unattached;
        if is_unattached && creating {
            // It may be the very one whose creation is under way.
            self.enis_look.ask_from(now + LAG);
            return None;
        }
        self.insert_eni(eni, origin, stage, now);
        self.doubt_blocks(&eni.id, &on_record.unwrap_or_default(), now);
        is_unattached.then(|| eni.id.clone())
    }

    fn update(&mut self, facts: &EniFacts, origin: Origin, asked_at: Timestamp, now: Timestamp) {
        let described = described_stage(facts);
        let was_unattached = matches!(self.stage_mut(&facts.id), Some(Stage::Unattached));
        if let Some(eni) = self.pool.enis.get_mut(&facts.id) {
            eni.origin = origin;
            eni.tags.clone_from(&facts.tags);
            eni.stage = next_stage(&eni.stage, described);
            let missed = eni.blocks.extract_if(.., |block, _| !facts.blocks.contains(block));
            eni.missed.extend(missed.map(|(block, _)| block));
            eni.by_hand.retain(|block| facts.blocks.contains(block));
            let before: BTreeSet<_> = eni.blocks.keys().copied().collect();
            let (known, may_be_old) = (&eni.missed | &before, eni.shrunk_at + LAG > asked_at);
            self.put_blocks(facts, &known, now);
            if may_be_old {
                self.doubt_blocks(&facts.id, &before, now);
            }
        }
        if !was_unattached && matches!(self.stage_mut(&facts.id), Some(Stage::Unattached)) {
            self.enis_look.ask_from(now + LAG);
        }
    }

    /// ENIs that EC2 no longer lists are not ours any more; what the record says of their
    /// addresses stays.
    fn forget_unseen(
        &mut self,
        seen: &BTreeSet<EniId>,
        doubted: &BTreeSet<EniId>,
        asked_at: Timestamp,
    ) {
        let unseen = self.pool.enis.keys().filter(|id| !seen.contains(*id));
        let gone: Vec<_> = unseen
            .filter(|id| doubted.contains(*id) || self.is_settled(id, asked_at))
            .cloned()
            .collect();
        for eni in gone {
            self.pool.enis.remove(&eni);
            self.retries.forget(&eni);
        }
    }

    /// Keeps an unattached ENI if another would be made without it, or if a pod's address is on it. Others
    /// are given up once EC2 has shown them so for long enough: an earlier run may have attached them
    /// just now.
    fn judge_left_behind(&mut self, left_behind: &[EniId], asked_at: Timestamp, now: Timestamp) {
        let before = std::mem::take(&mut self.left_behind);
        for eni in left_behind {
            if self.would_create_without(eni, now) {
                continue;
            }
            let since = before.get(eni).copied().unwrap_or(now);
            if since + LAG <= asked_at {
                self.doom(eni, now);
            } else if self.is_spare(eni, now) {
                self.pool.enis.remove(eni);
                self.left_behind.insert(eni.clone(), since);
                self.enis_look.ask_from(since + LAG);
            }
        }
    }

    /// Takes off the record what has rested and is not here any more.
    fn forget_rested(&mut self, now: Timestamp) {
        let cooling = self.record.cooling().iter();
        let rested = cooling.filter(|(_, since)| **since + self.policy.cooldown <= now);
        let gone: Vec<_> =
            rested.filter(|(ip, _)| !self.pool.has(**ip)).map(|(ip, _)| *ip).collect();
        for address in gone {
            self.saves.note(Change::Rested { address });
        }
    }
}

/// What of the `facts` about attached ENIs is not among what is `serving`, ENI by ENI.
fn left_alone(facts: &[EniFacts], serving: &[EniFacts]) -> BTreeMap<EniId, BTreeSet<Block>> {
    let attached = facts.iter().zip(serving).filter(|(eni, _)| eni.attachment.is_some());
    attached.map(|(eni, serving)| (eni.id.clone(), &eni.blocks - &serving.blocks)).collect()
}

/// The stage of an ENI of which nothing is known but this.
fn described_stage(facts: &EniFacts) -> Stage {
    let Some(attachment) = &facts.attachment else { return Stage::Unattached };
    let bond = Bond {
        attachment: attachment.id.clone(),
        device_index: attachment.device_index,
        delete_on_termination: attachment.delete_on_termination,
    };
    match attachment.status {
        AttachmentStatus::Attaching | AttachmentStatus::Attached => {
            Stage::Attached { bond, link: Link::Awaited }
        }
        AttachmentStatus::Detaching => Stage::Doomed { place: Some(attachment.device_index) },
    }
}

/// The stage of an ENI that was at `known` and is described as `described`.
fn next_stage(known: &Stage, described: Stage) -> Stage {
    match (known, described) {
        (Stage::Attached { bond: old, link }, Stage::Attached { bond, .. })
            if old.attachment == bond.attachment =>
        {
            Stage::Attached { bond, link: link.clone() }
        }
        // On its way back, whatever has been reached of it.
        (Stage::Draining { .. } | Stage::Doomed { .. }, Stage::Attached { bond, .. }) => {
            Stage::Draining { bond }
        }
        (Stage::Draining { bond }, Stage::Unattached) => {
            Stage::Doomed { place: Some(bond.device_index) }
        }
        (Stage::Doomed { place }, Stage::Unattached) => Stage::Doomed { place: *place },
        (Stage::Unattached | Stage::Attached { .. }, described)
        | (
            Stage::Draining { .. } | Stage::Doomed { .. },
            described @ (Stage::Draining { .. } | Stage::Doomed { .. }),
        ) => described,
    }
}
