//! Makes the pool match what EC2 has described.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Foreign, Inventory, PrimaryTemplate, next_audit, serving};
use crate::block::Block;
use crate::call::{
    AttachmentStatus, CallError, CallErrorKind, CallId, CallOutput, Ec2Call, EniFacts,
};
use crate::engine::calls::Calls;
use crate::engine::context::{Context, NewEnis};
use crate::engine::journal::Journal;
use crate::engine::poll::LAG;
use crate::eni::{Attachment, Eni, Exclusion, Link, Origin, Stage};
use crate::id::EniId;
use crate::node_local::is_node_local;
use crate::ownership::{self, Ownership};
use crate::place::Place;
use crate::policy::Placement;
use crate::pool::Pool;
use crate::reason::Reason;
use crate::record::{Change, Record};
use crate::streak::Streak;
use crate::time::Timestamp;
use crate::view::ForeignReason;

/// The parts that a describe may change.
pub(in crate::engine) struct StockTake<'a> {
    pub(in crate::engine) inventory: &'a mut Inventory,
    pub(in crate::engine) pool: &'a mut Pool,
    pub(in crate::engine) calls: &'a mut Calls,
    pub(in crate::engine) journal: &'a mut Journal,
    /// Addresses that are promised but not on record.
    pub(in crate::engine) promised: &'a BTreeSet<IpAddr>,
    pub(in crate::engine) cx: Context<'a>,
}

/// A describe of the ENIs that has an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Describe {
    pub(super) id: CallId,
    /// When it began. Later changes are newer than the answer.
    pub(super) asked_at: Timestamp,
}

/// The effect of an answer.
#[derive(Debug)]
pub(in crate::engine) enum Polled {
    /// The answer is to another call.
    NotAPoll,
    /// Nothing but the polls has changed.
    Noted,
    /// The pool matches EC2's answer.
    StockTaken(Judgements),
}

/// The decisions that are left after a stock-take.
#[derive(Debug)]
pub(in crate::engine) struct Judgements {
    pub(super) describe: Describe,
    /// Our ENIs that EC2 has described as unattached and that this process did not know.
    pub(in crate::engine) unattached: Vec<EniId>,
    hints: Vec<super::hint::Difference>,
}

impl StockTake<'_> {
    /// Takes in the answer to the call `id`, if that is a poll.
    pub(in crate::engine) fn polled(
        &mut self,
        id: CallId,
        result: &Result<CallOutput, CallError>,
    ) -> Polled {
        if let Some(asked_at) = self.inventory.subnets_poll.end(id) {
            self.subnets_described(result, asked_at);
            return Polled::Noted;
        }
        let Some(asked_at) = self.inventory.enis_poll.end(id) else { return Polled::NotAPoll };
        let polled = match result {
            Ok(CallOutput::Enis(facts)) => {
                Polled::StockTaken(self.enis_described(facts, Describe { id, asked_at }))
            }
            Ok(_) => self.enis_poll_failed(&not_an_answer()),
            Err(error) => self.enis_poll_failed(error),
        };
        if !self.inventory.is_known() {
            self.inventory.warm_start.ec2_fails(self.cx.now);
        }
        polled
    }

    fn subnets_described(&mut self, result: &Result<CallOutput, CallError>, asked_at: Timestamp) {
        let poll = &mut self.inventory.subnets_poll;
        let error = match result {
            Ok(CallOutput::Subnets(facts)) => {
                self.inventory.subnets.learn(facts.clone());
                poll.succeeded(asked_at);
                self.calls.action_succeeded(poll.call.action());
                poll.ask(next_audit(self.cx), Reason::Audit);
                self.judge_exclusions();
                return;
            }
            Ok(_) => &not_an_answer(),
            Err(error) => error,
        };
        poll.ask(self.cx.now, Reason::Again);
        self.calls.action_failed(&poll.call, error, self.cx.now);
        self.recall_primary_subnet();
    }

    /// Judges by the placement, their tags and those of their subnets which of our ENIs take no new pods.
    pub(in crate::engine) fn judge_exclusions(&mut self) {
        let (node, subnets) = (self.cx.node, &self.inventory.subnets);
        for eni in self.pool.enis.values_mut() {
            let is_primary = eni.origin == Origin::Primary;
            let heeds_tags = match self.cx.new_enis() {
                NewEnis::By(config) => !subnets.is_chosen(&eni.subnet, config),
                NewEnis::PrimarySubnet => false,
                NewEnis::LikePrimary | NewEnis::Nowhere => true,
            };
            eni.excluded = if is_primary && self.cx.policy.placement == Placement::ByEniConfig {
                Some(Exclusion::CustomNetworking)
            } else if is_primary && ownership::has_no_manage(&eni.tags) {
                Some(Exclusion::NoManageTag)
            } else if heeds_tags && subnets.excludes(&eni.subnet, node) {
                Some(Exclusion::SubnetTag)
            } else {
                None
            };
        }
    }

    /// Takes the range of the primary ENI's subnet from the metadata service's answer, while describes of the
    /// subnets have only failed.
    fn recall_primary_subnet(&mut self) {
        let Inventory { subnets, subnets_poll, primary_template, .. } = &mut *self.inventory;
        if let Some(primary) = primary_template
            && let Some(range) = self.cx.node.subnet_cidr
            && IpNet::V4(range).contains(&primary.address)
            && subnets_poll.only_fails()
        {
            subnets.recall(primary.subnet.clone(), range.into());
        }
    }

    fn enis_poll_failed(&mut self, error: &CallError) -> Polled {
        let poll = &mut self.inventory.enis_poll;
        poll.ask(self.cx.now, Reason::Again);
        self.calls.action_failed(&poll.call, error, self.cx.now);
        Polled::Noted
    }

    fn enis_described(&mut self, facts: &[EniFacts], describe: Describe) -> Judgements {
        let (now, primary_mac) = (self.cx.now, self.cx.node.primary_mac);
        let mut ours: Vec<_> = facts.iter().map(|eni| serving(eni, self.cx)).collect();
        self.inventory.unused_blocks = unused_blocks(facts, &ours);
        if let Some(primary) = facts.iter().find(|eni| eni.is_primary(primary_mac)) {
            let EniFacts { subnet, security_groups, connection_tracking, .. } = primary.clone();
            let address = primary.primary_address;
            let before = self.inventory.primary_template.take();
            let same = before.as_ref().filter(|it| it.security_groups == security_groups);
            let groups_since = same.map_or(describe.asked_at, |it| it.groups_since);
            let template = PrimaryTemplate {
                subnet,
                security_groups,
                connection_tracking,
                groups_since,
                address,
            };
            self.inventory.primary_template = Some(template);
            if before != self.inventory.primary_template {
                // What EC2 has refused was asked for with the old groups.
                self.calls.retries.clear_by_primary();
            }
            self.recall_primary_subnet();
        }
        // EC2 may not show the last changes of an earlier run yet.
        if !self.inventory.is_known() && self.journal.record().has_calls() {
            self.inventory.enis_poll.ask_from(now + LAG, Reason::Confirm);
            ours = ours.into_iter().map(|eni| self.without_returned(eni)).collect();
        }
        self.inventory.enis_poll.succeeded(describe.asked_at);
        self.calls.action_succeeded(self.inventory.enis_poll.call.action());
        self.inventory.warm_start.ec2_answers();
        let hints = self.inventory.hints_to_judge(self.pool, self.calls, describe.asked_at);
        let unattached = self.match_pool(&ours, describe);
        self.judge_exclusions();
        Judgements { describe, unattached, hints }
    }

    /// Makes the pool match EC2's answer. Returns the unattached ENIs that were not known. While nothing may be changed,
    /// unattached ENIs are no concern.
    fn match_pool(&mut self, facts: &[EniFacts], describe: Describe) -> Vec<EniId> {
        let (now, asked_at) = (self.cx.now, describe.asked_at);
        self.inventory.enis_poll.ask(next_audit(self.cx), Reason::Audit);
        let doubted = self.settle_shown(describe.id);
        self.inventory.foreign.clear();
        let mut seen = BTreeSet::new();
        let mut unattached = Vec::new();
        let may_attach = self.cx.may_change().is_some();
        let is_concern = move |eni: &&EniFacts| eni.attachment.is_some() || may_attach;
        for eni in facts.iter().filter(is_concern) {
            seen.insert(eni.id.clone());
            let ownership = match eni.attachment {
                Some(_) => ownership::of_attached(eni, self.cx.node),
                None if ownership::is_unattached_own(eni, self.cx.node) => {
                    Ownership::Ours(Origin::Tagged)
                }
                None => continue,
            };
            match ownership {
                Ownership::Foreign(why) => self.note_foreign(eni, why),
                Ownership::Ours(origin) if self.pool.enis.contains_key(&eni.id) => {
                    self.pool.confirm(eni, asked_at);
                    self.pool.take_tags(eni);
                    if doubted.contains(&eni.id) || self.is_settled(&eni.id, asked_at) {
                        self.update(eni, origin, describe);
                    } else if self.pool.is_doubtful(eni) {
                        self.inventory.enis_poll.ask_from(now + LAG, Reason::Confirm);
                    }
                }
                Ownership::Ours(origin) => unattached.extend(self.discover(eni, origin)),
            }
        }
        self.forget_unseen(&seen, &doubted, asked_at);
        self.confirm_outcomes(asked_at);
        unattached
    }

    fn note_foreign(&mut self, eni: &EniFacts, why: ForeignReason) {
        let place = eni.attachment.as_ref().map(Place::from);
        self.inventory.foreign.insert(eni.id.clone(), Foreign { why, place });
        self.inventory.unused_blocks.entry(eni.id.clone()).or_default().extend(&eni.blocks);
    }

    /// Takes in an unknown ENI. Returns its id if the caller must judge whether it is wanted.
    pub(super) fn discover(&mut self, eni: &EniFacts, origin: Origin) -> Option<EniId> {
        let now = self.cx.now;
        let on_record = self.journal.record().enis().get(&eni.id);
        let on_record = on_record.map(|known| known.facts.blocks.clone());
        if on_record.is_none() {
            // An earlier run may have created it just now.
            self.inventory.changed_late.begin_anew(eni.id.clone(), now);
        }
        let stage = described_stage(eni);
        let is_unattached = stage == Stage::Unattached;
        if is_unattached && self.calls.is_creating() {
            // It may be the very ENI whose creation is under way.
            self.inventory.enis_poll.ask_from(now + LAG, Reason::Confirm);
            return None;
        }
        self.insert_eni(eni, origin, stage);
        self.doubt_blocks(&eni.id, &on_record.unwrap_or_default());
        is_unattached.then(|| eni.id.clone())
    }

    /// Puts a new ENI into the pool, with the blocks of it that are ours.
    pub(in crate::engine) fn insert_eni(&mut self, facts: &EniFacts, origin: Origin, stage: Stage) {
        let now = self.cx.now;
        let eni = Eni {
            id: facts.id.clone(),
            mac: facts.mac,
            subnet: facts.subnet.clone(),
            security_groups: facts.security_groups.clone(),
            primary_address: facts.primary_address,
            origin,
            tags: facts.tags.clone(),
            since: now,
            changed_at: now,
            shrunk_at: now,
            absent: Streak::default(),
            refused: BTreeMap::new(),
            excluded: None,
            stage,
            blocks: BTreeMap::new(),
            missed: BTreeSet::new(),
            foreign_blocks: BTreeSet::new(),
        };
        self.pool.enis.insert(facts.id.clone(), eni);
        self.put_blocks(facts, &self.on_record_of(facts));
    }

    fn update(&mut self, facts: &EniFacts, origin: Origin, describe: Describe) {
        let was_unattached = self.is_unattached(&facts.id);
        if let Some(eni) = self.pool.enis.get_mut(&facts.id) {
            eni.origin = origin;
            eni.security_groups.clone_from(&facts.security_groups);
            eni.stage = next_stage(&eni.stage, described_stage(facts));
            let missed = eni.blocks.extract_if(.., |block, _| !facts.blocks.contains(block));
            eni.missed.extend(missed.map(|(block, _)| block));
            let n_foreign = eni.foreign_blocks.len();
            eni.foreign_blocks.retain(|block| facts.blocks.contains(block));
            let before: BTreeSet<_> = eni.blocks.keys().copied().collect();
            let has_found = facts
                .blocks
                .iter()
                .any(|block| !before.contains(block) && !eni.foreign_blocks.contains(block));
            if has_found || eni.foreign_blocks.len() < n_foreign {
                // The limit was counted from a view that lacked these blocks, or had the foreign ones.
                eni.refused.clear();
            }
            let known = &eni.missed | &before;
            let may_be_old = eni.shrunk_at + LAG > describe.asked_at;
            self.put_blocks(facts, &known);
            if may_be_old {
                self.doubt_blocks(&facts.id, &before);
            }
        }
        if !was_unattached && self.is_unattached(&facts.id) {
            self.inventory.enis_poll.ask_from(self.cx.now + LAG, Reason::Confirm);
        }
    }

    fn is_unattached(&self, eni: &EniId) -> bool {
        self.pool.enis.get(eni).is_some_and(|eni| eni.stage == Stage::Unattached)
    }

    /// Forgets the ENIs that EC2 no longer lists. The record keeps the assignments on them.
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
            self.calls.retries.forget(&eni);
        }
    }

    /// Gives up the unattached ENIs that are not needed. An ENI is needed if the plan would otherwise create
    /// one, as `is_needed` says, or if a pod's address is on it. An ENI goes only when a second describe,
    /// [`LAG`] later, shows it unattached too: an earlier run may have attached it just now.
    pub(in crate::engine) fn judge_unattached(
        &mut self,
        judgements: &Judgements,
        is_needed: impl Fn(&Pool, &Calls, &Inventory, &Record, &EniId) -> bool,
    ) {
        let (now, asked_at) = (self.cx.now, judgements.describe.asked_at);
        let before = std::mem::take(&mut self.inventory.unwanted);
        for eni in &judgements.unattached {
            let record = self.journal.record();
            if is_needed(self.pool, self.calls, self.inventory, record, eni) {
                continue;
            }
            let since = before.since(eni).unwrap_or(now);
            if since + LAG <= asked_at {
                self.pool.delete_unattached(eni, Reason::Unneeded, self.cx.rests());
            } else if self.pool.is_spare(eni, self.cx.rests()) {
                self.pool.enis.remove(eni);
                self.inventory.unwanted.begin(eni.clone(), since);
                self.inventory.enis_poll.ask_from(since + LAG, Reason::Confirm);
            }
        }
    }

    /// Takes addresses off the record that have rested and are no longer on this node. Node-local ones never leave it.
    pub(in crate::engine) fn forget_rested(&mut self) {
        let cooling = self.journal.record().cooling().iter();
        let rested = cooling.filter(|(_, since)| **since + self.cx.cooldown() <= self.cx.now);
        let is_gone = |ip: IpAddr| !self.pool.has(ip) && !is_node_local(ip);
        let gone: Vec<_> = rested.map(|(ip, _)| *ip).filter(|ip| is_gone(*ip)).collect();
        for address in gone {
            self.journal.note(Change::Rested { address });
        }
    }

    /// Compares what the metadata service had shown with EC2's answer.
    pub(in crate::engine) fn judge_hints(&mut self, judgements: &Judgements) {
        let Judgements { describe, hints, .. } = judgements;
        self.inventory.judge_hints(hints, self.pool, describe.asked_at, self.cx.now);
    }

    /// Whether no change of the ENI is so recent that EC2's answer may be older.
    pub(super) fn is_settled(&self, eni: &EniId, asked_at: Timestamp) -> bool {
        self.calls.is_settled(eni, self.pool, asked_at)
    }
}

/// The error for an answer that fits another call.
pub(in crate::engine) fn not_an_answer() -> CallError {
    CallError {
        kind: CallErrorKind::OutcomeUnknown,
        code: "UnexpectedAnswer".to_owned(),
        message: "the answer fits another call".to_owned(),
    }
}

/// The blocks of attached ENIs that are in `facts` but not in `serving`, by ENI.
fn unused_blocks(facts: &[EniFacts], serving: &[EniFacts]) -> BTreeMap<EniId, BTreeSet<Block>> {
    let attached = facts.iter().zip(serving).filter(|(eni, _)| eni.attachment.is_some());
    attached.map(|(eni, serving)| (eni.id.clone(), &eni.blocks - &serving.blocks)).collect()
}

/// The stage of an ENI that this process knows only by its description.
fn described_stage(facts: &EniFacts) -> Stage {
    let Some(attachment) = &facts.attachment else { return Stage::Unattached };
    let known = Attachment {
        id: attachment.id.clone(),
        place: attachment.into(),
        delete_on_termination: attachment.delete_on_termination,
    };
    match attachment.status {
        AttachmentStatus::Attaching | AttachmentStatus::Attached => {
            Stage::Attached { attachment: known, link: Link::Awaited }
        }
        AttachmentStatus::Detaching => {
            Stage::Deleting { place: Some(attachment.into()), why: Reason::Detaching }
        }
    }
}

/// The stage of an ENI that was at `known` and is described as `described`.
fn next_stage(known: &Stage, described: Stage) -> Stage {
    match (known, described) {
        (Stage::Attached { attachment: old, link }, Stage::Attached { attachment, .. })
            if old.id == attachment.id =>
        {
            Stage::Attached { attachment, link: link.clone() }
        }
        // An ENI on its way back stays on its way.
        (
            Stage::Draining { why, .. } | Stage::Deleting { why, .. },
            Stage::Attached { attachment, .. },
        ) => Stage::Draining { attachment, why: why.clone() },
        (Stage::Draining { attachment, why }, Stage::Unattached) => {
            Stage::Deleting { place: Some(attachment.place), why: why.clone() }
        }
        (Stage::Deleting { place, why }, Stage::Unattached) => {
            Stage::Deleting { place: *place, why: why.clone() }
        }
        (Stage::Unattached | Stage::Attached { .. }, described)
        | (
            Stage::Draining { .. } | Stage::Deleting { .. },
            described @ (Stage::Draining { .. } | Stage::Deleting { .. }),
        ) => described,
    }
}

/// Whether `call` asks for more blocks.
pub(super) fn is_assign(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::Assign { .. })
}
