//! The record and the changes on their way to it. Nothing else changes the record.
//!
//! The record holds what is durable. A change is applied when its save has succeeded; until then its
//! consequences wait in the other parts. One save is under way at a time: later changes go into the
//! next, so a save that fails has no successor yet.

use std::net::IpAddr;
use std::time::Duration;

use crate::call::CallId;
use crate::event::{Effect, Refusal, RefusalCode, RequestId, SaveSeq};
use crate::id::AttachmentKey;
use crate::jitter::Jitter;
use crate::record::{Assignment, Change, Record};
use crate::retry::{Backoff, Hold, Pace};
use crate::time::Timestamp;

/// A save that takes longer than this hangs. A busy disk takes some tenths of a second.
const HANGS_AFTER: Duration = Duration::from_secs(3);
/// How soon changes are saved again after the record could not be written.
const UNWRITABLE: Pace = Pace::new(1_000, 60_000);

/// The action that waits for the end of a save.
#[derive(Debug, Clone)]
pub(super) enum Then {
    /// This attachment gets the address that is reserved for it.
    Grant(AttachmentKey),
    /// The attachment's addresses are released.
    Release(AttachmentKey, Box<Assignment>),
    /// This quarantined address, which no assignment has, rests.
    Rest(IpAddr),
    /// A GC is complete.
    Collected(RequestId, Vec<(AttachmentKey, Assignment)>),
    /// A call is made.
    Make(CallId),
}

/// How a save has ended, with the actions that follow.
#[derive(Debug)]
pub(super) enum Saved {
    Durable(Vec<Then>),
    Failed(Vec<Then>),
}

/// The record, and the changes that are not durable yet.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    record: Record,
    next: Batch,
    n_sent: u64,
    under_way: Option<Batch>,
    /// When the save under way was sent.
    sent: Timestamp,
    failure: Backoff,
}

/// Changes that become durable together, or not at all.
#[derive(Debug, Clone, Default)]
struct Batch {
    changes: Vec<Change>,
    then: Vec<Then>,
    /// Saved before the changes: they undo what a failed save may have left in the file.
    corrections: Vec<Change>,
}

impl Journal {
    pub(super) fn new(record: Record, jitter: Jitter) -> Self {
        let (next, failure) = (Batch::default(), Backoff::new(jitter));
        let sent = Timestamp::default();
        Self { record, next, n_sent: 0, under_way: None, sent, failure }
    }

    /// The durable record.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn note(&mut self, change: Change) {
        self.next.changes.push(change);
    }

    pub(super) fn then(&mut self, then: Then) {
        self.next.then.push(then);
    }

    pub(super) fn is_saving(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether a failed save may have left a release of `key` in the file, though the record has it.
    pub(super) fn may_be_released(&self, key: &AttachmentKey) -> bool {
        let is_of_key =
            |change: &Change| matches!(change, Change::Assigned { key: k, .. } if k == key);
        self.batches().flat_map(|batch| &batch.corrections).any(is_of_key)
    }

    /// Whether a [`Then::Rest`] of `address` is on its way.
    pub(super) fn is_resting_soon(&self, address: IpAddr) -> bool {
        let mut then = self.batches().flat_map(|batch| &batch.then);
        then.any(|then| matches!(then, Then::Rest(rests) if *rests == address))
    }

    fn batches(&self) -> impl Iterator<Item = &Batch> {
        std::iter::once(&self.next).chain(&self.under_way)
    }

    /// Sends the changes since the last save. Corrections alone wait until the record is likely to be writable
    /// again.
    pub(super) fn send(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let Batch { changes, corrections, .. } = &self.next;
        let nothing_new = changes.is_empty();
        let waits = corrections.is_empty() || self.hold(now).is_some();
        if self.is_saving() || (nothing_new && waits) {
            return;
        }
        let batch = std::mem::take(&mut self.next);
        let changes = batch.corrections.iter().chain(&batch.changes).cloned().collect();
        self.n_sent += 1;
        (self.under_way, self.sent) = (Some(batch), now);
        out.push(Effect::Save { seq: SaveSeq(self.n_sent), changes });
    }

    /// Takes in the end of a save; `None` if `seq` is not the save under way.
    pub(super) fn saved(
        &mut self,
        seq: SaveSeq,
        result: Result<(), String>,
        now: Timestamp,
    ) -> Option<Saved> {
        if seq != SaveSeq(self.n_sent) {
            return None;
        }
        let batch = self.under_way.take()?;
        Some(match result {
            Ok(()) => Saved::Durable(self.commit(batch)),
            Err(why) => Saved::Failed(self.take_back(batch, &why, now)),
        })
    }

    fn commit(&mut self, batch: Batch) -> Vec<Then> {
        self.failure.clear();
        for change in batch.corrections.iter().chain(&batch.changes) {
            self.record
                .apply(change)
                .expect("an address is reserved for one attachment, and one for an attachment");
        }
        batch.then
    }

    /// Takes back the changes of a failed save. The file may hold them all the same, so the next save begins
    /// with their opposites.
    fn take_back(&mut self, batch: Batch, why: &str, now: Timestamp) -> Vec<Then> {
        let text = format!("the record cannot be written: {why}; see to its disk");
        self.failure.fail(UNWRITABLE, RefusalCode::StateUnwritable, text, now);
        let opposites = batch.changes.into_iter().flat_map(|change| self.opposite(change, now));
        let corrections: Vec<_> = batch.corrections.into_iter().chain(opposites).collect();
        self.next.corrections.extend(corrections);
        batch.then
    }

    /// The changes that bring the file to the present record, whether or not it holds `change`.
    fn opposite(&self, change: Change, now: Timestamp) -> Vec<Change> {
        match change {
            Change::Assigned { key, assignment } => {
                let rest = |address| match self.record.cooling().get(&address) {
                    Some(since) => Change::Resting { address, since: *since },
                    None => Change::Rested { address },
                };
                let rests = assignment.ips().map(rest);
                std::iter::once(Change::Released { key, at: now }).chain(rests).collect()
            }
            Change::Released { key, .. } => {
                let assignment = self.record.assignments().get(&key).cloned();
                let again = |assignment| Change::Assigned { key, assignment };
                assignment.map(again).into_iter().collect()
            }
            Change::Intended { id, .. } => vec![Change::Settled { id }],
            // These are facts that a failed save does not change.
            Change::Settled { .. }
            | Change::Resting { .. }
            | Change::Rested { .. }
            | Change::Booted { .. }
            | Change::EniKnown(_)
            | Change::EniForgotten { .. }
            | Change::VpcRanges { .. }
            | Change::Delegated { .. } => vec![change],
        }
    }

    /// Why no call may be started at present: its intent could not be recorded.
    pub(super) fn hold(&self, now: Timestamp) -> Option<&Hold> {
        self.failure.hold(now)
    }

    /// What is wrong if the disk does not answer: no pod can get an address then.
    pub(super) fn hanging(&self, now: Timestamp) -> Option<Refusal> {
        let waited = self.is_saving().then(|| now.since(self.sent))?;
        let message = format!(
            "the record has not been written for {} s, so its disk hangs; see to the disk",
            waited.as_secs()
        );
        let refusal = Refusal { code: RefusalCode::StateUnwritable, message, retry_after: None };
        (waited >= HANGS_AFTER).then_some(refusal)
    }

    /// The refusal of a request whose change could not be saved.
    pub(super) fn unwritable(&self, now: Timestamp) -> Refusal {
        if let Some(refusal) = self.hanging(now) {
            return refusal;
        }
        let hold = self.hold(now);
        let message = hold.map_or_else(
            || "the record has not been written in time; see to its disk".to_owned(),
            |hold| hold.why.clone(),
        );
        let retry_after = hold.map(|hold| hold.until.since(now));
        Refusal { code: RefusalCode::StateUnwritable, message, retry_after }
    }
}
