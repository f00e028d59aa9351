//! What the container runtime has said of its sandboxes. Never is it enough that one is not listed: the
//! runtime that is asked may be another than the pods', and an ADD comes before its sandbox is listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Timestamp;

/// A sandbox has been forgotten if it has been missed for so long; at least two looks.
const MISSED: Duration = Duration::from_secs(60);

/// The sandboxes by their ids, which are `CNI_CONTAINERID` of their attachments.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    /// Whether it has answered when it was asked last.
    answers: bool,
    /// When it answered last, and what.
    at: Timestamp,
    last: BTreeSet<String>,
    /// Once listed and now no more, since when.
    missed: BTreeMap<String, Timestamp>,
}

impl Listing {
    /// The runtime has been asked at `begun`. One that lists nothing of what was listed before may have
    /// been given another store, or be another: what was listed before is no business of its.
    pub(super) fn take(&mut self, listed: &BTreeSet<String>, begun: Timestamp) {
        if self.last.is_disjoint(listed) {
            self.missed.clear();
        } else {
            self.missed.retain(|sandbox, _| !listed.contains(sandbox));
            for sandbox in self.last.difference(listed) {
                self.missed.entry(sandbox.clone()).or_insert(begun);
            }
        }
        (self.answers, self.at) = (true, begun);
        self.last.clone_from(listed);
    }

    /// The runtime has been asked and has not answered.
    pub(super) fn stays_out(&mut self) {
        self.answers = false;
    }

    /// How many it has, if it has answered when it was asked last.
    pub(super) fn n_listed(&self) -> Option<usize> {
        self.answers.then_some(self.last.len())
    }

    /// Keeps of those that are missed what `is_left` says of.
    pub(super) fn keep(&mut self, is_left: impl Fn(&str) -> bool) {
        self.missed.retain(|sandbox, _| is_left(sandbox));
    }

    /// Whether the runtime has listed the sandbox, and at two looks and all between lists it no more.
    pub(super) fn has_forgotten(&self, sandbox: &str) -> bool {
        self.missed.get(sandbox).is_some_and(|since| *since + MISSED <= self.at)
    }
}
