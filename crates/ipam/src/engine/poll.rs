//! When EC2 is described next. One poll for each kind of describe.

use crate::call::{CallId, Ec2Call};
use crate::time::Timestamp;

/// One kind of describe: when it is due, whether it is under way, whether it has ever succeeded.
#[derive(Debug, Clone)]
pub(super) struct Poll {
    pub(super) call: Ec2Call,
    due: Option<Timestamp>,
    /// An answer to an earlier describe does not suffice: EC2 may still show what was before a change.
    wanted_from: Option<Timestamp>,
    under_way: Option<(CallId, Timestamp)>,
    known: bool,
}

impl Poll {
    pub(super) fn due(call: Ec2Call, now: Timestamp) -> Self {
        Self { call, due: Some(now), wanted_from: None, under_way: None, known: false }
    }

    pub(super) fn never(call: Ec2Call) -> Self {
        Self { call, due: None, wanted_from: None, under_way: None, known: false }
    }

    /// Whether a describe has ever succeeded.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether the last describe began late enough to show every change.
    pub(super) fn is_certain(&self) -> bool {
        self.known && self.wanted_from.is_none()
    }

    /// Describes at `at`, or sooner if something else asks for it.
    pub(super) fn ask(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Describes at `at` or later, even if an earlier describe comes first.
    pub(super) fn ask_from(&mut self, at: Timestamp) {
        self.wanted_from = self.wanted_from.max(Some(at));
        self.ask(at);
    }

    /// When the next describe is due; `None` while one is under way.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        self.due.filter(|_| self.under_way.is_none())
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn start(&mut self, id: CallId, now: Timestamp) {
        self.due = self.wanted_from.filter(|from| *from > now);
        self.under_way = Some((id, now));
    }

    /// Ends the describe `id` and returns when it began; `None` if `id` is another call.
    pub(super) fn end(&mut self, id: CallId) -> Option<Timestamp> {
        let (_, asked_at) = self.under_way.take_if(|(under_way, _)| *under_way == id)?;
        Some(asked_at)
    }

    /// The describe that began at `asked_at` has an answer.
    pub(super) fn succeeded(&mut self, asked_at: Timestamp) {
        self.known = true;
        self.wanted_from.take_if(|from| *from <= asked_at);
    }
}
