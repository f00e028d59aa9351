//! What must be durable before something happens outside: the only place that changes the record.
//!
//! The record holds what is durable. A change is applied when its save has succeeded; until then
//! its consequences are in `requests` and `calls`.

use std::collections::BTreeMap;

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
    sent: BTreeMap<SaveSeq, Batch>,
}

/// Changes that become durable together, or not at all.
#[derive(Debug, Clone, Default)]
struct Batch {
    changes: Vec<Change>,
    then: Vec<Then>,
    /// Changes that wait for company: they correct what a failed save may have left behind.
    corrections: Vec<Change>,
}

impl Saves {
    pub(super) fn note(&mut self, change: Change) {
        self.next.changes.push(change);
    }

    pub(super) fn then(&mut self, then: Then) {
        self.next.then.push(then);
    }

    fn correct(&mut self, change: Change) {
        self.next.corrections.push(change);
    }
}

impl Engine {
    /// Sends what has been noted since the last time, as one save.
    pub(super) fn emit_save(&mut self) {
        if self.saves.next.changes.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.saves.next);
        let changes = batch.corrections.iter().chain(&batch.changes).cloned().collect();
        self.saves.n_sent += 1;
        let seq = SaveSeq(self.saves.n_sent);
        self.saves.sent.insert(seq, batch);
        self.out.push(Effect::Save { seq, changes });
    }

    pub(super) fn saved(&mut self, seq: SaveSeq, result: Result<(), String>, now: Timestamp) {
        match result {
            Ok(()) => {
                let later = self.saves.sent.split_off(&SaveSeq(seq.0.saturating_add(1)));
                let durable = std::mem::replace(&mut self.saves.sent, later);
                durable.into_values().for_each(|batch| self.commit(batch, now));
            }
            Err(why) => {
                if let Some(batch) = self.saves.sent.remove(&seq) {
                    self.give_up(batch, &why, now);
                }
            }
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
                Then::Release(key, assignment) => self.released(&key, assignment),
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
        for change in batch.corrections {
            self.saves.correct(change);
        }
        for change in batch.changes {
            match change {
                Change::Assigned { key, .. } => {
                    self.saves.correct(Change::Released { key, at: now })
                }
                Change::Intended { id, .. } => self.saves.correct(Change::Settled { id }),
                Change::Settled { .. } | Change::Rested { .. } => self.saves.correct(change),
                Change::Released { .. } | Change::Resting { .. } => {}
            }
        }
        for then in batch.then {
            match then {
                Then::Grant(key) => self.not_granted(&key, now),
                Then::Release(key, _) => self.not_released(&key, now),
                Then::Collected(request, _) => {
                    let refusal = self.unwritable(now);
                    self.reply(request, Answer::Refused(refusal));
                }
                Then::Make(id) => self.call_not_made(id),
            }
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
