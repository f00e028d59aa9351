//! What must not be tried again before when, and why. Knows no calls, only what they are about.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::call::{Action, CallErrorKind};
use crate::event::RefusalCode;
use crate::id::EniId;
use crate::jitter::Jitter;
use crate::time::Timestamp;

/// What a failure is held against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// An action as such: not permitted, or its outcome is unknown.
    Action(Action),
    /// An action on one ENI.
    Eni(EniId, Action),
    /// The kernel's side of the ENIs.
    Host,
    /// Intents, because the record could not be written.
    Record,
}

/// A failure that is waited out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The kind of failure, as a pod is told.
    pub code: RefusalCode,
    /// What failed, for people.
    pub why: String,
    /// When trying again makes sense.
    pub until: Timestamp,
    /// How often it has failed in a row.
    pub attempts: u32,
}

impl Hold {
    /// From when on a pod that waits may hope that it has gone by; `None` if somebody must do
    /// something about it. EC2's tokens come all the time, so a pod that waits for a throttled
    /// call is served sooner than one that comes back later.
    pub(crate) fn passes_at(&self) -> Option<Timestamp> {
        match self.code {
            RefusalCode::Throttled => Some(Timestamp::default()),
            RefusalCode::Ec2Failing => Some(self.until),
            RefusalCode::Starting
            | RefusalCode::Attaching
            | RefusalCode::SubnetExhausted
            | RefusalCode::SubnetFragmented
            | RefusalCode::EniLimit
            | RefusalCode::AddressLimit
            | RefusalCode::AllCooling
            | RefusalCode::AccessDenied
            | RefusalCode::MaxPods
            | RefusalCode::LinkFailing
            | RefusalCode::StateUnwritable => None,
        }
    }
}

/// First wait and longest wait; each is twice the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    first: Duration,
    longest: Duration,
}

impl Pace {
    pub(crate) const fn new(first_ms: u64, longest_ms: u64) -> Self {
        Self { first: Duration::from_millis(first_ms), longest: Duration::from_millis(longest_ms) }
    }

    /// The wait after `attempts` failures in a row, the first being 1.
    pub(crate) fn wait(self, attempts: u32) -> Duration {
        let factor = 1_u32 << attempts.saturating_sub(1).min(20);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// How patiently a call is repeated that failed in this way.
    pub(crate) const fn of(kind: CallErrorKind) -> Self {
        match kind {
            CallErrorKind::NotFound => Self::new(500, 30_000),
            CallErrorKind::InUse | CallErrorKind::DeviceIndexTaken => Self::new(1_000, 30_000),
            // What is throttled is held up by its bucket; this is how long it may be.
            CallErrorKind::Throttled | CallErrorKind::OutcomeUnknown => Self::new(1_000, 60_000),
            // To ask for them costs EC2 nothing.
            CallErrorKind::NoCredentials => Self::new(1_000, 30_000),
            // A policy change takes minutes to be made and to reach EC2.
            CallErrorKind::AccessDenied => Self::new(60_000, 600_000),
            // The first wait is that of amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`.
            CallErrorKind::SubnetExhausted
            | CallErrorKind::SubnetFragmented
            | CallErrorKind::AddressLimit
            | CallErrorKind::EniLimit => Self::new(120_000, 600_000),
            CallErrorKind::Rejected => Self::new(2_000, 120_000),
        }
    }
}

/// What a pod is told of a call that failed in this way.
pub(crate) fn refusal_code(kind: CallErrorKind) -> RefusalCode {
    match kind {
        CallErrorKind::Throttled => RefusalCode::Throttled,
        CallErrorKind::SubnetExhausted => RefusalCode::SubnetExhausted,
        CallErrorKind::SubnetFragmented => RefusalCode::SubnetFragmented,
        CallErrorKind::AddressLimit => RefusalCode::AddressLimit,
        CallErrorKind::EniLimit => RefusalCode::EniLimit,
        CallErrorKind::AccessDenied => RefusalCode::AccessDenied,
        CallErrorKind::DeviceIndexTaken
        | CallErrorKind::NotFound
        | CallErrorKind::InUse
        | CallErrorKind::NoCredentials
        | CallErrorKind::OutcomeUnknown
        | CallErrorKind::Rejected => RefusalCode::Ec2Failing,
    }
}

/// All failures that have not been followed by a success.
#[derive(Debug, Clone)]
pub(crate) struct Retries {
    jitter: Jitter,
    holds: BTreeMap<Subject, Hold>,
}

impl Retries {
    pub(crate) fn new(jitter: Jitter) -> Self {
        Self { jitter, holds: BTreeMap::new() }
    }

    pub(crate) fn fail(
        &mut self,
        subject: Subject,
        pace: Pace,
        code: RefusalCode,
        why: String,
        now: Timestamp,
    ) -> Hold {
        let attempts = self.holds.get(&subject).map_or(0, |hold| hold.attempts).saturating_add(1);
        let wait = self.jitter.lengthened(pace.wait(attempts), attempts);
        let hold = Hold { code, why, until: now + wait, attempts };
        self.holds.insert(subject, hold.clone());
        hold
    }

    pub(crate) fn clear(&mut self, subject: &Subject) {
        self.holds.remove(subject);
    }

    /// Forgets an ENI that is gone.
    pub(crate) fn forget(&mut self, eni: &EniId) {
        self.holds.retain(|subject, _| !matches!(subject, Subject::Eni(id, _) if id == eni));
    }

    /// Why `subject` must wait, if it must.
    pub(crate) fn hold(&self, subject: &Subject, now: Timestamp) -> Option<&Hold> {
        self.holds.get(subject).filter(|hold| hold.until > now)
    }

    /// How `subject` has failed, if that has not been followed by a success.
    pub(crate) fn failure(&self, subject: &Subject) -> Option<&Hold> {
        self.holds.get(subject)
    }

    /// All that must wait.
    pub(crate) fn holds(&self, now: Timestamp) -> impl Iterator<Item = (&Subject, &Hold)> {
        self.holds.iter().filter(move |(_, hold)| hold.until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_cap_and_start_over_after_success() {
        let mut retries = Retries::new(Jitter::new("i-1"));
        let now = Timestamp::from_millis(0);
        let mut wait = || {
            let pace = Pace::new(1_000, 8_000);
            let why = String::new();
            let hold = retries.fail(Subject::Host, pace, RefusalCode::LinkFailing, why, now);
            hold.until.as_millis()
        };
        for least in [1_000, 2_000, 4_000, 8_000, 8_000] {
            let waited = wait();
            assert!((least..=least * 5 / 4).contains(&waited), "{waited} ms instead of {least}");
        }
        retries.clear(&Subject::Host);
        assert_eq!(retries.hold(&Subject::Host, now), None);
    }
}
