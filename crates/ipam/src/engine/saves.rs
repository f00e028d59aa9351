//! What must be durable before something happens outside: the only place that changes the record.
//!
//! The record holds what is durable. A change is applied when its save has succeeded; until then
//! its consequences are in `requests` and `calls`. One save is under way at a time: what comes up
//! meanwhile goes into the next, so that a save that fails has no successor yet.

use std::net::IpAddr;

use super::Engine;
use crate::call::CallId;
use crate::event::{Answer, Effect, RefusalCode, RequestId, SaveSeq};
use crate::id::AttachmentKey;
use crate::record::{Assignment, Change};
use crate::retry::{Hold, Pace, Subject};
use crate::time::Timestamp;

/// How soon intents are tried again after the record could not be written.
const UNWRITABLE: Pace = Pace::new(1_000, 60_000);

/// What follows when a save has succeeded.
#[derive(Debug, Clone)]
pub(super) enum Then {
    /// The address that is reserved for this attachment is its own.
    Grant(AttachmentKey),
    /// What the attachment had is released.
    Release(AttachmentKey, Assignment),
    /// This address rests whose pod was not on record.
    Rest(IpAddr),
    /// A collection is complete.
    Collected(RequestId, Vec<(AttachmentKey, Assignment)>),
    /// A call is made.
    Make(CallId),
}

/// Changes on their way to the record.
#[derive(Debug, Clone, Default)]
pub(super) struct Saves {
    next: Batch,
    n_sent: u64,
    under_way: Option<Batch>,
}

/// Changes that become durable together, or not at all.
#[derive(Debug, Clone, Default)]
struct Batch {
    changes: Vec<Change>,
    then: Vec<Then>,
    /// What goes before them: it corrects what a failed save may have left behind.
    corrections: Vec<Change>,
}

impl Saves {
    pub(super) fn note(&mut self, change: Change) {
        self.next.changes.push(change);
    }

    /// Whether the file may say of an attachment on record that it is released.
    pub(super) fn doubt(&self, key: &AttachmentKey) -> bool {
        let is_of_key =
            |change: &Change| matches!(change, Change::Assigned { key: k, .. } if k == key);
        let batches = std::iter::once(&self.next).chain(&self.under_way);
        batches.flat_map(|batch| &batch.corrections).any(is_of_key)
    }

    /// Whether a rest of an address that was quarantined is on its way to the record.
    pub(super) fn rests(&self, address: IpAddr) -> bool {
        let batches = std::iter::once(&self.next).chain(&self.under_way);
        batches
            .flat_map(|batch| &batch.then)
            .any(|then| matches!(then, Then::Rest(rests) if *rests == address))
    }

    pub(super) fn then(&mut self, then: Then) {
        self.next.then.push(then);
    }
}

impl Engine {
    /// Sends what has been noted since the last save, as the next. Corrections alone wait until
    /// the record is likely to be writable again.
    pub(super) fn emit_save(&mut self, now: Timestamp) {
        if self.saves.under_way.is_some() {
            return;
        }
        let news = self.news_of_enis();
        self.saves.next.changes.extend(news);
        let Batch { changes, corrections, .. } = &self.saves.next;
        let nothing_new = changes.is_empty();
        if nothing_new && (corrections.is_empty() || self.record_hold(now).is_some()) {
            return;
        }
        let batch = std::mem::take(&mut self.saves.next);
        let changes = batch.corrections.iter().chain(&batch.changes).cloned().collect();
        self.saves.n_sent += 1;
        let seq = SaveSeq(self.saves.n_sent);
        self.saves.under_way = Some(batch);
        self.out.push(Effect::Save { seq, changes });
    }

    pub(super) fn saved(&mut self, seq: SaveSeq, result: Result<(), String>, now: Timestamp) {
        if seq != SaveSeq(self.saves.n_sent) {
            return;
        }
        let Some(batch) = self.saves.under_way.take() else { return };
        match result {
            Ok(()) => self.commit(batch, now),
            Err(why) => self.give_up(batch, &why, now),
        }
    }

    fn commit(&mut self, batch: Batch, now: Timestamp) {
        self.retries.clear(&Subject::Record);
        for change in batch.corrections.iter().chain(&batch.changes) {
            self.record
                .apply(change)
                .expect("an address is reserved for one attachment, and one for an attachment");
        }
        for then in batch.then {
            match then {
                Then::Grant(key) => self.granted(key, now),
                Then::Release(key, assignment) => self.released(&key, assignment, now),
                Then::Rest(address) => self.rests(address),
                Then::Collected(request, collected) => {
                    self.reply(request, Answer::Collected(collected));
                }
                Then::Make(id) => self.make_call(id),
            }
        }
    }

    /// Takes back what has not become durable. The file may hold it all the same, so the next save
    /// says the opposite first.
    fn give_up(&mut self, batch: Batch, why: &str, now: Timestamp) {
        let text = format!("the record cannot be written: {why}; see to its disk");
        self.retries.fail(Subject::Record, UNWRITABLE, RefusalCode::StateUnwritable, text, now);
        let opposites = batch.changes.into_iter().flat_map(|change| self.opposite(change, now));
        let corrections: Vec<_> = batch.corrections.into_iter().chain(opposites).collect();
        self.saves.next.corrections.extend(corrections);
        for then in batch.then {
            match then {
                Then::Grant(key) => self.not_granted(&key, now),
                Then::Release(key, _) => self.not_released(&key, now),
                // The next look finds it as it is.
                Then::Rest(_) => {}
                Then::Collected(request, _) => {
                    let refusal = self.unwritable(now);
                    self.reply(request, Answer::Refused(refusal));
                }
                Then::Make(id) => self.call_not_made(id),
            }
        }
    }

    /// What undoes `change`, or makes good for it, whether or not the file holds it.
    fn opposite(&self, change: Change, now: Timestamp) -> Vec<Change> {
        match change {
            Change::Assigned { key, assignment } => {
                let address = assignment.address;
                let rest = match self.record.cooling().get(&address) {
                    Some(since) => Change::Resting { address, since: *since },
                    None => Change::Rested { address },
                };
                vec![Change::Released { key, at: now }, rest]
            }
            Change::Released { key, .. } => {
                let assignment = self.record.assignments().get(&key).cloned();
                let again = |assignment| Change::Assigned { key, assignment };
                assignment.map(again).into_iter().collect()
            }
            Change::Intended { id, .. } => vec![Change::Settled { id }],
            // What has ended has ended.
            Change::Settled { .. }
            | Change::Resting { .. }
            | Change::Rested { .. }
            | Change::Booted { .. }
            | Change::EniKnown(_)
            | Change::EniForgotten { .. } => vec![change],
        }
    }

    /// Why no call may be started: its intent could not be recorded.
    pub(super) fn record_hold(&self, now: Timestamp) -> Option<&Hold> {
        self.retries.hold(&Subject::Record, now)
    }

    pub(super) fn reply(&mut self, request: RequestId, answer: Answer) {
        self.out.push(Effect::Reply { request, answer });
    }
}
