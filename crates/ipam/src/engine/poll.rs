//! When EC2 is described next. One poll for each kind of describe.

use std::time::Duration;

use crate::call::{CallId, Ec2Call};
use crate::reason::Reason;
use crate::time::Timestamp;

/// For how long after a change EC2 may still describe what was before it.
pub(super) const LAG: Duration = Duration::from_secs(10);

/// One kind of describe: when it is due, whether it is under way, whether it has ever succeeded.
#[derive(Debug, Clone)]
pub(super) struct Poll {
    pub(super) call: Ec2Call,
    /// When it is due, and why.
    due: Option<(Timestamp, Reason)>,
    /// A describe that begins before this time does not suffice: it may show the state before a change.
    wanted_from: Option<Timestamp>,
    under_way: Option<(CallId, Timestamp)>,
    /// When the last describe with an answer began.
    answered: Option<Timestamp>,
    /// Whether a describe has ended, with an answer or without.
    ended: bool,
}

impl Poll {
    /// A poll that is never due by itself.
    pub(super) fn new(call: Ec2Call) -> Self {
        Self { call, due: None, wanted_from: None, under_way: None, answered: None, ended: false }
    }

    pub(super) fn due(call: Ec2Call, at: Timestamp, why: Reason) -> Self {
        Self { due: Some((at, why)), ..Self::new(call) }
    }

    /// Whether a describe has ever succeeded.
    pub(super) fn is_known(&self) -> bool {
        self.answered.is_some()
    }

    /// When the last describe with an answer began.
    pub(super) fn answered(&self) -> Option<Timestamp> {
        self.answered
    }

    /// Whether the last answer is older than `age`, or there is none.
    pub(super) fn is_older_than(&self, age: Duration, now: Timestamp) -> bool {
        self.answered.is_none_or(|at| at + age < now)
    }

    /// Whether a describe that began at `at` or later has an answer.
    pub(super) fn is_answered_since(&self, at: Timestamp) -> bool {
        self.answered.is_some_and(|answered| answered >= at)
    }

    /// Whether describes have failed, and none has ever succeeded.
    pub(super) fn only_fails(&self) -> bool {
        self.ended && !self.is_known()
    }

    /// Whether the last describe began late enough to show every change.
    pub(super) fn is_certain(&self) -> bool {
        self.is_known() && self.wanted_from.is_none()
    }

    /// Describes at `at`, or sooner if something else asks for it.
    pub(super) fn ask(&mut self, at: Timestamp, why: Reason) {
        if self.due.as_ref().is_none_or(|(due, _)| at < *due) {
            self.due = Some((at, why));
        }
    }

    /// Describes at `at` or later, even if an earlier describe comes first.
    pub(super) fn ask_from(&mut self, at: Timestamp, why: Reason) {
        self.wanted_from = self.wanted_from.max(Some(at));
        self.ask(at, why);
    }

    /// Is not due any more.
    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    /// When the next describe is due; `None` while one is under way.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        self.due.as_ref().filter(|_| self.under_way.is_none()).map(|(at, _)| *at)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Notes that the describe `id` begins; returns why.
    pub(super) fn start(&mut self, id: CallId, now: Timestamp) -> Reason {
        let again = self.wanted_from.filter(|from| *from > now);
        let due = std::mem::replace(&mut self.due, again.map(|from| (from, Reason::Confirm)));
        self.under_way = Some((id, now));
        due.map_or(Reason::Audit, |(_, why)| why)
    }

    /// Ends the describe `id` and returns when it began; `None` if `id` is another call.
    pub(super) fn end(&mut self, id: CallId) -> Option<Timestamp> {
        let (_, asked_at) = self.under_way.take_if(|(under_way, _)| *under_way == id)?;
        self.ended = true;
        Some(asked_at)
    }

    /// The describe that began at `asked_at` has an answer.
    pub(super) fn succeeded(&mut self, asked_at: Timestamp) {
        self.answered = Some(asked_at);
        self.wanted_from.take_if(|from| *from <= asked_at);
    }
}
