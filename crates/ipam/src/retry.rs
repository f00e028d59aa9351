//! Failed actions, until when each waits, and why. Knows actions, ENIs and subnets, but no calls.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::call::{Action, CallErrorKind};
use crate::event::RefusalCode;
use crate::id::{EniId, SubnetId};
use crate::jitter::Jitter;
use crate::time::Timestamp;

/// The actions that wait after a failed call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// An action as such: it cannot reach EC2, or its outcome is unknown.
    Action(Action),
    /// An action on one ENI. A policy may permit it on others: it may go by tags.
    Eni(EniId, Action),
    /// The creation of ENIs in one subnet.
    CreateIn(SubnetId),
}

impl Subject {
    /// The action that waits.
    pub(crate) fn action(&self) -> Action {
        match self {
            Subject::Action(action) | Subject::Eni(_, action) => *action,
            Subject::CreateIn(_) => Action::CreateEni,
        }
    }
}

/// A failure, and how long to wait after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The kind of failure, as a pod's refusal shows it.
    pub code: RefusalCode,
    /// What failed, for people.
    pub why: String,
    /// When trying again makes sense.
    pub until: Timestamp,
    /// How often it has failed in a row.
    pub attempts: u32,
}

impl Hold {
    /// The hold after one more failure. `before` is the hold of the failure before.
    fn after(
        before: Option<&Self>,
        pace: Pace,
        code: RefusalCode,
        why: String,
        jitter: Jitter,
        now: Timestamp,
    ) -> Self {
        let attempts = before.map_or(0, |hold| hold.attempts).saturating_add(1);
        let wait = jitter.lengthened(pace.wait(attempts), attempts);
        Self { code, why, until: now + wait, attempts }
    }

    /// When the failure may have passed without help; `None` if somebody must act. EC2's tokens come
    /// all the time, so a pod that waits for a throttled call is served sooner than one that comes
    /// back later.
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
            | RefusalCode::Ec2Refuses
            | RefusalCode::MaxPods
            | RefusalCode::LinkFailing
            | RefusalCode::StateUnwritable
            | RefusalCode::KernelUnread
            | RefusalCode::EniConfig
            | RefusalCode::ProvisioningOff => None,
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

    /// How soon a call of `action` is repeated after such a failure.
    pub(crate) fn of_call(action: Action, kind: CallErrorKind) -> Self {
        let is_refusal = matches!(
            kind,
            CallErrorKind::AccessDenied | CallErrorKind::Lasting | CallErrorKind::Rejected
        );
        if action == Action::SetSecurityGroups && is_refusal {
            // All ENIs of all nodes may be refused alike. No pod waits, and status and metrics name the refusal.
            Self::new(600_000, 3_600_000)
        } else {
            Self::of(kind)
        }
    }

    /// How soon a call is repeated after such a failure.
    pub(crate) const fn of(kind: CallErrorKind) -> Self {
        match kind {
            CallErrorKind::NotFound => Self::new(500, 30_000),
            CallErrorKind::InUse | CallErrorKind::DeviceIndexTaken => Self::new(1_000, 30_000),
            // A throttled action waits for its bucket; this is the upper bound.
            CallErrorKind::Throttled | CallErrorKind::OutcomeUnknown => Self::new(1_000, 60_000),
            // Asking for credentials costs EC2 nothing.
            CallErrorKind::NoCredentials => Self::new(1_000, 30_000),
            // Changing a policy or a quota takes minutes.
            CallErrorKind::AccessDenied | CallErrorKind::Lasting => Self::new(60_000, 600_000),
            // The first wait is that of amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`.
            CallErrorKind::SubnetExhausted
            | CallErrorKind::SubnetFragmented
            | CallErrorKind::AddressLimit
            | CallErrorKind::EniLimit => Self::new(120_000, 600_000),
            CallErrorKind::Rejected => Self::new(2_000, 120_000),
        }
    }
}

/// The code that a pod's refusal has after such a failure.
pub(crate) fn refusal_code(kind: CallErrorKind) -> RefusalCode {
    match kind {
        CallErrorKind::Throttled => RefusalCode::Throttled,
        CallErrorKind::SubnetExhausted => RefusalCode::SubnetExhausted,
        CallErrorKind::SubnetFragmented => RefusalCode::SubnetFragmented,
        CallErrorKind::AddressLimit => RefusalCode::AddressLimit,
        CallErrorKind::EniLimit => RefusalCode::EniLimit,
        CallErrorKind::AccessDenied => RefusalCode::AccessDenied,
        CallErrorKind::Lasting => RefusalCode::Ec2Refuses,
        CallErrorKind::DeviceIndexTaken
        | CallErrorKind::NotFound
        | CallErrorKind::InUse
        | CallErrorKind::NoCredentials
        | CallErrorKind::OutcomeUnknown
        | CallErrorKind::Rejected => RefusalCode::Ec2Failing,
    }
}

/// One thing that fails, and until when it waits.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    jitter: Jitter,
    hold: Option<Hold>,
}

impl Backoff {
    pub(crate) fn new(jitter: Jitter) -> Self {
        Self { jitter, hold: None }
    }

    pub(crate) fn fail(&mut self, pace: Pace, code: RefusalCode, why: String, now: Timestamp) {
        self.hold = Some(Hold::after(self.hold.as_ref(), pace, code, why, self.jitter, now));
    }

    pub(crate) fn clear(&mut self) {
        self.hold = None;
    }

    /// Why it must wait, if it must.
    pub(crate) fn hold(&self, now: Timestamp) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| hold.until > now)
    }
}

/// The failed calls that have not been followed by a success.
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
        let hold = Hold::after(self.holds.get(&subject), pace, code, why, self.jitter, now);
        self.holds.insert(subject, hold.clone());
        hold
    }

    pub(crate) fn clear(&mut self, subject: &Subject) {
        self.holds.remove(subject);
    }

    /// Forgets the failures of calls that go by the primary ENI's subnet or security groups.
    pub(crate) fn clear_by_primary(&mut self) {
        let goes_by_primary = |subject: &Subject| {
            matches!(subject, Subject::CreateIn(_) | Subject::Eni(_, Action::SetSecurityGroups))
        };
        self.holds.retain(|subject, _| !goes_by_primary(subject));
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
    fn backoff_doubles_to_a_cap_and_success_clears_it() {
        let mut backoff = Backoff::new(Jitter::new("i-1"));
        let now = Timestamp::from_millis(0);
        let mut wait = || {
            let pace = Pace::new(1_000, 8_000);
            backoff.fail(pace, RefusalCode::LinkFailing, String::new(), now);
            backoff.hold(now).unwrap().until.as_millis()
        };
        for least in [1_000, 2_000, 4_000, 8_000, 8_000] {
            let waited = wait();
            assert!((least..=least * 5 / 4).contains(&waited), "{waited} ms instead of {least}");
        }
        backoff.clear();
        assert_eq!(backoff.hold(now), None);
    }
}
