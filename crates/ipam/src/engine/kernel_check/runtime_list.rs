//! The sandboxes that the container runtime lists. A missing sandbox alone proves nothing: the daemon may ask
//! another runtime than the pods', and an ADD comes before its sandbox is listed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::streak::Streaks;
use crate::time::Timestamp;

/// The runtime has forgotten a sandbox that has been missing for this long. That takes at least two lists.
const MISSED: Duration = Duration::from_secs(60);

/// The sandboxes by their ids, which are `CNI_CONTAINERID` of their attachments.
#[derive(Debug, Clone, Default)]
pub(super) struct RuntimeList {
    /// Whether the runtime answered when last asked.
    answers: bool,
    /// When it answered last, and what.
    at: Timestamp,
    last: BTreeSet<String>,
    /// Sandboxes that were listed once and are not listed any more.
    missing: Streaks<String>,
}

impl RuntimeList {
    /// Takes in an answer of the runtime, asked at `begun`. If it lists no sandbox of the answer before, the
    /// runtime may be another one or have lost its store. Then the answer before does not count.
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

    /// Takes in that the runtime has not answered.
    pub(super) fn fails(&mut self) {
        self.answers = false;
    }

    /// How many sandboxes the runtime has; `None` if it did not answer when last asked.
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
