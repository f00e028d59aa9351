//! What has happened, counted where it does. Knows no names of metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipam::call::{CallError, CallId, CallOutput, Ec2Call};
use ipam::event::{Answer, RefusalCode};
use ipam::time::Timestamp;

/// Shared by all who count.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Counted>);

/// Since the start of the daemon.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    pub(super) adds: u64,
    pub(super) dels: u64,
    /// Attachments.
    pub(super) collected: u64,
    /// ADDs, by code.
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) add_seconds: Histogram,
    /// Calls that have ended, by action.
    pub(super) calls: BTreeMap<&'static str, Calls>,
    under_way: BTreeMap<CallId, (&'static str, Timestamp)>,
}

/// The calls of one action.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls {
    pub(super) succeeded: Taken,
    /// By code: EC2's, or a word for what failed before EC2 could answer. There are some hundred.
    pub(super) failed: BTreeMap<String, Taken>,
}

/// How many, and how long in all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Taken {
    pub(super) n: u64,
    pub(super) ms: u64,
}

/// How often something took how long.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    /// One for each of [`BOUNDS`](Self::BOUNDS), not counted in the next, and one for all above.
    pub(super) buckets: [u64; 11],
    /// In all.
    pub(super) sum: Duration,
}

impl Histogram {
    /// Milliseconds. From a warm pool to the longest that an ADD may wait.
    pub(super) const BOUNDS: [u64; 10] = [1, 5, 25, 100, 500, 1_000, 5_000, 15_000, 30_000, 60_000];

    fn observe(&mut self, span: Duration) {
        let within = |bound: &u64| span <= Duration::from_millis(*bound);
        let bucket = Self::BOUNDS.iter().position(within).unwrap_or(Self::BOUNDS.len());
        self.buckets[bucket] += 1;
        self.sum += span;
    }
}

impl Taken {
    fn add(&mut self, span: Duration) {
        self.n += 1;
        self.ms = self.ms.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    }
}

impl Calls {
    pub(super) fn n(&self) -> u64 {
        self.succeeded.n + self.n_failed()
    }

    pub(super) fn n_failed(&self) -> u64 {
        self.failed.values().map(|taken| taken.n).sum()
    }
}

impl Counters {
    pub(crate) fn add_came(&self) {
        self.with(|counted| counted.adds += 1);
    }

    /// An ADD has been answered, this long after it came.
    pub(crate) fn add_answered(&self, answer: &Answer, span: Duration) {
        self.with(|counted| {
            counted.add_seconds.observe(span);
            if let Answer::Refused(refusal) = answer {
                counted.refuse(refusal.code);
            }
        });
    }

    pub(crate) fn del_came(&self) {
        self.with(|counted| counted.dels += 1);
    }

    /// A GC has found `n` attachments dead.
    pub(crate) fn collected(&self, n: usize) {
        self.with(|counted| counted.collected += u64::try_from(n).unwrap_or(u64::MAX));
    }

    /// A call leaves for EC2.
    pub(crate) fn call_made(&self, id: CallId, call: &Ec2Call, now: Timestamp) {
        self.with(|counted| counted.under_way.insert(id, (call.action().as_str(), now)));
    }

    /// It has ended.
    pub(crate) fn call_done(
        &self,
        id: CallId,
        result: &Result<CallOutput, CallError>,
        now: Timestamp,
    ) {
        self.with(|counted| {
            let Some((action, since)) = counted.under_way.remove(&id) else { return };
            let calls = counted.calls.entry(action).or_default();
            let taken = match result {
                Ok(_) => &mut calls.succeeded,
                Err(error) => calls.failed.entry(error.code.clone()).or_default(),
            };
            taken.add(now.since(since));
        });
    }

    /// As it is now.
    pub(super) fn read(&self) -> Counted {
        self.with(|counted| counted.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Counted) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counted {
    fn refuse(&mut self, code: RefusalCode) {
        *self.refused.entry(code.as_str()).or_default() += 1;
    }
}
