//! What EC2 has said of our ENIs, kept on record: so that a daemon that starts while EC2 does not
//! answer offers the addresses that it was free to offer a moment before.
//!
//! It gives nothing back and asks for nothing: that takes EC2's word of now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::Ipv4Net;

use super::Engine;
use crate::block::Block;
use crate::call::{EniAttachment, EniFacts, EniKind};
use crate::eni::Eni;
use crate::id::{BootId, EniId};
use crate::ownership::{self, Ownership};
use crate::record::{Change, KnownEni, Record};
use crate::time::Timestamp;

/// How long EC2 may take at the start before the record stands in for it. As a rule it answers
/// sooner; then nothing is offered that somebody took away while no daemon ran.
const PATIENCE: Duration = Duration::from_millis(400);

/// What is on record of the ENIs.
#[derive(Debug, Clone)]
pub(super) struct Recollection {
    /// As the record has it, or will when all is saved that has been sent.
    noted: BTreeMap<EniId, KnownEni>,
    /// Whether the record is of this boot, or will be.
    is_of_boot: bool,
    /// When it is used unless EC2 has spoken.
    due: Option<Timestamp>,
    used: bool,
}

impl Recollection {
    /// Of another boot nothing is used: the machine may have been off for long.
    pub(super) fn new(record: &Record, boot: &BootId, now: Timestamp) -> Self {
        let is_of_boot = record.boot() == Some(boot);
        let noted = if is_of_boot { record.enis().clone() } else { BTreeMap::new() };
        let due = (!noted.is_empty()).then(|| now + PATIENCE);
        Self { noted, is_of_boot, due, used: false }
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether it has stood in for EC2's word since the start.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// `facts` without the blocks that an earlier run of this boot has given back, should EC2 still name
    /// them.
    pub(super) fn less_given_back(&self, mut facts: EniFacts) -> EniFacts {
        if let Some(known) = self.noted.get(&facts.id) {
            facts.blocks.retain(|block| known.facts.blocks.contains(block));
        }
        facts
    }

    pub(super) fn ec2_has_spoken(&mut self) {
        self.due = None;
    }

    /// There is no use in waiting for it.
    pub(super) fn ec2_is_away(&mut self, now: Timestamp) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// `news` goes to the record.
    fn note(&mut self, news: &[KnownEni], gone: &[EniId]) {
        self.noted.retain(|eni, _| !gone.contains(eni));
        self.noted.extend(news.iter().map(|known| (known.facts.id.clone(), known.clone())));
    }
}

impl Engine {
    /// Takes in the ENIs that are on record, once EC2 has been waited for.
    pub(super) fn recall(&mut self, now: Timestamp) {
        if self.recollection.due.take_if(|due| *due <= now).is_none() {
            return;
        }
        self.recollection.used = true;
        for KnownEni { facts, subnet_cidr, .. } in self.recollection.noted.clone().into_values() {
            // The settings may be others than they were.
            let Ownership::Ours(origin) = ownership::of_attached(&facts, &self.node) else {
                continue;
            };
            self.subnets.recall(facts.subnet.clone(), subnet_cidr);
            self.discover(&self.as_it_serves(&facts), origin, now);
            if let Some(eni) = self.pool.enis.get_mut(&facts.id) {
                // Whatever EC2 says is newer.
                eni.changed_at = Timestamp::default();
            }
        }
    }

    /// What the record has yet to learn of the ENIs, for the save that is about to be sent. Nothing
    /// before EC2 has spoken, since until then the record knows more.
    pub(super) fn news_of_enis(&mut self) -> Vec<Change> {
        if !self.enis_look.is_known() {
            return Vec::new();
        }
        let attached = |id: &EniId| self.pool.enis.get(id).and_then(Eni::attachment).is_some();
        let gone = self.recollection.noted.keys().filter(|id| !attached(id));
        let gone: Vec<_> = gone.cloned().collect();
        let news: Vec<_> = self.pool.enis.values().filter_map(|eni| self.unnoted(eni)).collect();
        let is_first = !self.recollection.is_of_boot && !news.is_empty();
        self.recollection.note(&news, &gone);
        self.recollection.is_of_boot |= is_first;
        let booted = is_first.then(|| Change::Booted { boot: self.node.boot.clone() });
        let gone = gone.into_iter().map(|eni| Change::EniForgotten { eni });
        booted.into_iter().chain(gone).chain(news.into_iter().map(Change::EniKnown)).collect()
    }

    /// What is to be noted of `eni`, if that is not on record.
    fn unnoted(&self, eni: &Eni) -> Option<KnownEni> {
        let attachment = eni.attachment()?;
        let noted = self.recollection.noted.get(&eni.id);
        let subnet_cidr = self.subnet_cidr_of(eni)?;
        let is_noted = noted.is_some_and(|noted| {
            noted.facts.attachment.as_ref() == Some(&attachment)
                && noted.facts.tags == eni.tags
                && noted.facts.blocks.iter().eq(staying(eni))
                && noted.missed == eni.missed
        });
        let missed = eni.missed.clone();
        (!is_noted).then(|| KnownEni { facts: facts(eni, attachment), subnet_cidr, missed })
    }

    /// Without it the ENI cannot be on record, nor what an Assign would bring.
    pub(super) fn subnet_cidr_of(&self, eni: &Eni) -> Option<Ipv4Net> {
        let noted = self.recollection.noted.get(&eni.id);
        // It never changes, so the word of another boot does.
        let before = noted.or_else(|| self.record.enis().get(&eni.id));
        self.subnets.cidr(&eni.subnet).or_else(|| before.map(|known| known.subnet_cidr))
    }
}

/// The blocks that are not on their way back.
fn staying(eni: &Eni) -> impl Iterator<Item = &Block> {
    eni.blocks.iter().filter(|(_, state)| !state.leaving).map(|(block, _)| block)
}

fn facts(eni: &Eni, attachment: EniAttachment) -> EniFacts {
    EniFacts {
        id: eni.id.clone(),
        mac: eni.mac.clone(),
        subnet: eni.subnet.clone(),
        security_groups: BTreeSet::new(),
        primary_address: eni.primary_address,
        blocks: staying(eni).copied().collect(),
        kind: EniKind::Interface,
        attachment: Some(attachment),
        tags: eni.tags.clone(),
    }
}
