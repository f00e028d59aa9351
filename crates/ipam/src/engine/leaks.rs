//! ENIs of the cluster that no node holds: their node ended before it had attached, marked or deleted them.
//!
//! Any node of the cluster removes them. The unattached ENIs of this very instance are not among them:
//! every describe of its ENIs finds those (`inventory`).

use std::time::Duration;

use super::calls::{Calls, Pressure};
use super::context::{Context, MayChange};
use super::inventory::{AUDIT, start_poll};
use super::journal::Journal;
use super::poll::Poll;
use crate::call::{Action, CallError, CallErrorKind, CallId, CallOutput, Ec2Call, EniFacts};
use crate::event::Effect;
use crate::id::EniId;
use crate::ownership;
use crate::policy::Carriers;
use crate::pool::Pool;
use crate::reason::Reason;
use crate::streak::Streaks;
use crate::time::Timestamp;

/// The most ENIs that are removed after one search, since pods may need EC2's tokens.
const MAX_AT_ONCE: usize = 20;
/// Makes the chances of this search differ from those of other waits.
const SALT: u32 = 0x1ea4;

/// The daily search for leaked ENIs.
#[derive(Debug, Clone)]
pub(super) struct LeakSearch {
    poll: Poll,
    /// The ENIs that the last search found unattached, and since which search.
    candidates: Streaks<EniId>,
}

impl LeakSearch {
    pub(super) fn new(cx: Context<'_>) -> Self {
        let cluster = cx.node.cluster.clone().unwrap_or_default();
        let poll = Poll::new(Ec2Call::DescribeUnattached { cluster });
        let mut search = Self { poll, candidates: Streaks::default() };
        search.schedule(cx);
        search
    }

    /// Schedules the first search under the present policy, or none. It comes soon, since there are nodes
    /// that live for an hour. Each instance has a moment of its own: an account's nodes may all start
    /// together.
    pub(super) fn schedule(&mut self, cx: Context<'_>) {
        match leak_age(cx) {
            Some(age) => {
                let at = cx.now + cx.jitter.about(age / 2, [SALT.into(), 0]);
                self.poll.ask(at, Reason::LeakSearch);
            }
            None => self.poll.stop(),
        }
    }

    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        self.poll.wakes_at()
    }

    /// Starts the search if it is due.
    pub(super) fn poll(
        &mut self,
        calls: &mut Calls,
        pressure: Pressure,
        cx: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        start_poll(&mut self.poll, calls, pressure, cx, out);
    }

    /// Takes in the answer to the call `id`, if that is the search, and returns the ENIs to remove. A failed
    /// search holds up nothing: the next one comes tomorrow.
    pub(super) fn polled(
        &mut self,
        id: CallId,
        result: &Result<CallOutput, CallError>,
        pool: &Pool,
        calls: &mut Calls,
        cx: Context<'_>,
    ) -> Option<Vec<EniId>> {
        self.poll.end(id)?;
        if leak_age(cx).is_some() {
            self.poll.ask(cx.now + cx.jitter.lengthened(AUDIT, SALT), Reason::LeakSearch);
        }
        Some(match result {
            Ok(CallOutput::Enis(enis)) => self.judge(enis, pool, cx),
            Err(error) if error.kind == CallErrorKind::Throttled => {
                calls.action_failed(&self.poll.call, error, cx.now);
                Vec::new()
            }
            Ok(_) | Err(_) => Vec::new(),
        })
    }

    /// The ENIs of `enis` that have leaked: old enough, and found by an earlier search too.
    fn judge(&mut self, enis: &[EniFacts], pool: &Pool, cx: Context<'_>) -> Vec<EniId> {
        let Some(age) = leak_age(cx) else { return Vec::new() };
        let (now, pause) = (cx.now, pause(age));
        let unknown = enis.iter().filter(|eni| !pool.enis.contains_key(&eni.id));
        let found: Vec<_> = unknown
            .filter_map(|eni| Some((&eni.id, ownership::left_by_another(eni, cx.node)?)))
            .collect();
        self.candidates.observe_all(found.iter().map(|(id, _)| *id), now);
        let mut leaked = Vec::new();
        for (id, created_at) in found {
            let seen_at = self.candidates.since(id).unwrap_or(now);
            let due = (created_at + age).max(seen_at + pause);
            if due <= now {
                leaked.push(id.clone());
            } else {
                self.poll.ask(due, Reason::LeakSearch);
            }
        }
        if leaked.len() > MAX_AT_ONCE {
            self.poll.ask(now + pause, Reason::LeakSearch);
            leaked.truncate(MAX_AT_ONCE);
        }
        leaked
    }
}

/// How old a leaked ENI must be; `None` if this node searches for none. A node whose pods are all on the
/// primary ENI makes no ENIs, so its cluster leaks none.
pub(super) fn leak_age(cx: Context<'_>) -> Option<Duration> {
    let makes_enis = cx.policy.families.policy().carriers == Carriers::All;
    let may_remove = cx.may_change().is_some();
    cx.policy.timing.leak_age.filter(|_| cx.node.cluster.is_some() && makes_enis && may_remove)
}

/// Between the two searches that must both find an ENI.
fn pause(age: Duration) -> Duration {
    age / 6
}

/// Deletes leaked ENIs. One that cannot be deleted now, or fails to be, is found again tomorrow.
pub(super) fn remove(
    leaked: Vec<EniId>,
    may_change: MayChange,
    calls: &mut Calls,
    journal: &mut Journal,
    pressure: Pressure,
    now: Timestamp,
) {
    for eni in leaked {
        let is_held = calls.hold(Action::DeleteEni, pressure, now).is_some();
        if !is_held && journal.hold(now).is_none() && !calls.is_busy(&eni) {
            calls.start(Ec2Call::DeleteEni { eni }, Reason::Leaked, may_change, journal, now);
        }
    }
}
