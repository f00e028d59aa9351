//! What must not be tried again before when, and why. Knows no calls, only what they are about.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::call::{Action, CallErrorKind};
use crate::event::RefusalCode;
use crate::id::{EniId, InstanceId};
use crate::time::Timestamp;

/// What a failure is held against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// An action as such: throttled, or not permitted.
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
            CallErrorKind::Throttled => Self::new(1_000, 60_000),
            CallErrorKind::NotFound => Self::new(500, 30_000),
            CallErrorKind::InUse | CallErrorKind::DeviceIndexTaken => Self::new(1_000, 30_000),
            CallErrorKind::OutcomeUnknown => Self::new(1_000, 60_000),
            // A policy change takes minutes to be made and to reach EC2.
            CallErrorKind::AccessDenied => Self::new(60_000, 600_000),
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
        | CallErrorKind::OutcomeUnknown
        | CallErrorKind::Rejected => RefusalCode::Ec2Failing,
    }
}

/// All failures that have not been followed by a success.
#[derive(Debug, Clone)]
pub(crate) struct Retries {
    seed: u64,
    holds: BTreeMap<Subject, Hold>,
}

impl Retries {
    /// The waits of each instance differ a little, so that nodes that were throttled together do
    /// not come back together.
    pub(crate) fn new(instance: &InstanceId) -> Self {
        Self { seed: fnv1a(instance.as_str().as_bytes()), holds: BTreeMap::new() }
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
        let wait = self.jittered(pace.wait(attempts), attempts);
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

    /// Up to a quarter longer than `wait`, the same for the same instance and attempt.
    pub(crate) fn jittered(&self, wait: Duration, attempts: u32) -> Duration {
        let mut bytes = self.seed.to_le_bytes().to_vec();
        bytes.extend(attempts.to_le_bytes());
        let share = fnv1a(&bytes) >> 56;
        wait + wait.mul_f64(f64::from(u32::try_from(share).unwrap_or(0)) / 1024.0)
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_cap_and_start_over_after_success() {
        let mut retries = Retries::new(&InstanceId::try_from("i-1").unwrap());
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

    #[test]
    fn nodes_do_not_come_back_together() {
        let wait = |instance: usize| {
            let id = InstanceId::try_from(format!("i-{instance}")).unwrap();
            Retries::new(&id).jittered(Duration::from_secs(64), 1)
        };
        let waits: std::collections::BTreeSet<_> = (0..500).map(wait).collect();
        assert!(waits.len() > 200, "{} different waits of 500", waits.len());
        assert_eq!(wait(7), wait(7));
    }
}
