//! The sandboxes that the container runtime lists. A missing sandbox alone proves nothing: the runtime that
//! is asked may not be the pods', and an ADD comes before its sandbox is listed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::streak::Streaks;
use crate::time::Timestamp;

/// A sandbox is forgotten if it has been missing for so long; that takes two lists at least.
const MISSED: Duration = Duration::from_secs(60);

/// The sandboxes by their ids, which are `CNI_CONTAINERID` of their attachments.
#[derive(Debug, Clone, Default)]
pub(super) struct RuntimeList {
    /// Whether the runtime has answered the last time.
    answers: bool,
    /// When it answered last, and what.
    at: Timestamp,
    last: BTreeSet<String>,
    /// Sandboxes that were listed once and are not listed any more.
    missing: Streaks<String>,
}

impl RuntimeList {
    /// The runtime has answered a question put at `begun`. A runtime that lists no sandbox of its last answer may
    /// have another store, or be another runtime: then the last answer says nothing.
    pub(super) fn take(&mut self, listed: &BTreeSet<String>, begun: Timestamp) {
        if self.last.is_disjoint(listed) {
            self.missing = Streaks::default();
        } else {
            self.missing.retain(|sandbox, _| !listed.contains(sandbox));
            for sandbox in self.last.difference(listed) {
                self.missing.begin(sandbox.clone(), begun);
            }
        }
        (self.answers, self.at) = (true, begun);
        self.last.clone_from(listed);
    }

    /// The runtime has not answered.
    pub(super) fn fails(&mut self) {
        self.answers = false;
    }

    /// How many sandboxes the runtime has, if it has answered the last time.
    pub(super) fn n_listed(&self) -> Option<usize> {
        self.answers.then_some(self.last.len())
    }

    /// Keeps the missing sandboxes for which `is_left` holds.
    pub(super) fn keep(&mut self, is_left: impl Fn(&str) -> bool) {
        self.missing.retain(|sandbox, _| is_left(sandbox));
    }

    /// Whether the runtime has listed the sandbox once, and has not for long enough.
    pub(super) fn has_forgotten(&self, sandbox: &String) -> bool {
        self.missing.has_lasted(sandbox, MISSED, self.at)
    }
}
