//! EC2's last answer about our ENIs, kept on record. A daemon that starts while EC2 does not answer offers
//! the addresses that were free a moment before.
//!
//! It changes nothing at EC2. Changes need an answer of EC2 since the start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;

use super::serving;
use super::stock_take::StockTake;
use crate::block::Block;
use crate::call::{EniAttachment, EniFacts, EniKind};
use crate::connection_tracking::ConnectionTracking;
use crate::eni::Eni;
use crate::id::{BootId, EniId};
use crate::ownership::{self, Ownership};
use crate::pool::Pool;
use crate::record::{Change, KnownEni, Record};
use crate::time::Timestamp;

/// How long EC2 may take at the start before the record stands in for its answer. EC2 usually answers sooner.
/// Then no pod gets an address that somebody removed while no daemon ran.
const PATIENCE: Duration = Duration::from_millis(400);

/// The ENIs that are on record.
#[derive(Debug, Clone)]
pub(super) struct WarmStart {
    /// The ENIs as the record has them once all saves under way have succeeded.
    noted: BTreeMap<EniId, KnownEni>,
    /// Whether the record is of this boot once all saves under way have succeeded.
    is_of_boot: bool,
    /// When the record is used, unless EC2 answers before.
    due: Option<Timestamp>,
    used: bool,
}

impl WarmStart {
    /// Nothing of another boot is used: the machine may have been off for long.
    pub(super) fn new(record: &Record, boot: &BootId, now: Timestamp) -> Self {
        let is_of_boot = record.boot() == Some(boot);
        let noted = if is_of_boot { record.enis().clone() } else { BTreeMap::new() };
        let due = (!noted.is_empty()).then(|| now + PATIENCE);
        Self { noted, is_of_boot, due, used: false }
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether the record has stood in for EC2's answer since the start.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    pub(super) fn noted(&self, eni: &EniId) -> Option<&KnownEni> {
        self.noted.get(eni)
    }

    /// `facts` without the blocks that an earlier run of this boot has given back and EC2 may still describe.
    pub(super) fn without_returned(&self, mut facts: EniFacts) -> EniFacts {
        if let Some(known) = self.noted.get(&facts.id) {
            facts.blocks.retain(|block| known.facts.blocks.contains(block));
        }
        facts
    }

    pub(super) fn ec2_answers(&mut self) {
        self.due = None;
    }

    /// Ends the wait for EC2, since its describe has failed.
    pub(super) fn ec2_fails(&mut self, now: Timestamp) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// The description of `eni` to put on record; `None` if it is there already.
    pub(super) fn unnoted(&self, eni: &Eni, subnet_cidr: IpNet) -> Option<KnownEni> {
        let attachment = eni.attachment()?;
        let is_noted = self.noted.get(&eni.id).is_some_and(|noted| {
            noted.facts.attachment.as_ref() == Some(&attachment)
                && noted.facts.tags == eni.tags
                && noted.facts.blocks.iter().eq(staying(eni))
                && noted.missed == eni.missed
        });
        let missed = eni.missed.clone();
        (!is_noted).then(|| KnownEni { facts: facts(eni, attachment), subnet_cidr, missed })
    }

    /// Notes `news`, and forgets ENIs that are no longer attached. Returns the changes.
    pub(super) fn note(&mut self, news: Vec<KnownEni>, pool: &Pool, boot: &BootId) -> Vec<Change> {
        let is_attached = |id: &EniId| pool.enis.get(id).and_then(Eni::attachment).is_some();
        let gone: Vec<_> = self.noted.keys().filter(|id| !is_attached(id)).cloned().collect();
        let is_first = !self.is_of_boot && !news.is_empty();
        self.noted.retain(|eni, _| !gone.contains(eni));
        self.noted.extend(news.iter().map(|known| (known.facts.id.clone(), known.clone())));
        self.is_of_boot |= is_first;
        let booted = is_first.then(|| Change::Booted { boot: boot.clone() });
        let gone = gone.into_iter().map(|eni| Change::EniForgotten { eni });
        booted.into_iter().chain(gone).chain(news.into_iter().map(Change::EniKnown)).collect()
    }
}

impl StockTake<'_> {
    /// Takes in the ENIs that are on record, once EC2 has had its time to answer.
    pub(in crate::engine) fn warm_start(&mut self) {
        let warm_start = &mut self.inventory.warm_start;
        if warm_start.due.take_if(|due| *due <= self.cx.now).is_none() {
            return;
        }
        warm_start.used = true;
        for KnownEni { facts, subnet_cidr, .. } in warm_start.noted.clone().into_values() {
            // The settings may have changed since.
            let Ownership::Ours(origin) = ownership::of_attached(&facts, self.cx.node) else {
                continue;
            };
            self.inventory.subnets.recall(facts.subnet.clone(), subnet_cidr);
            self.discover(&serving(&facts, self.cx), origin);
            if let Some(eni) = self.pool.enis.get_mut(&facts.id) {
                // Every answer of EC2 is newer.
                eni.changed_at = Timestamp::default();
            }
        }
        self.judge_exclusions();
    }
}

/// The blocks that are not on their way back.
fn staying(eni: &Eni) -> impl Iterator<Item = &Block> {
    eni.blocks.iter().filter(|(_, state)| state.stays()).map(|(block, _)| block)
}

fn facts(eni: &Eni, attachment: EniAttachment) -> EniFacts {
    EniFacts {
        id: eni.id.clone(),
        mac: eni.mac,
        subnet: eni.subnet.clone(),
        security_groups: BTreeSet::new(),
        connection_tracking: ConnectionTracking::default(),
        primary_address: eni.primary_address,
        blocks: staying(eni).copied().collect(),
        kind: EniKind::Interface,
        attachment: Some(attachment),
        tags: eni.tags.clone(),
    }
}
