//! Faults by rule: which calls go wrong, and how. All of it is data that an operator can send.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::id::{EniId, InstanceId};
use crate::request::Action;

/// Which calls go wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Calls of this operation, or of any if absent.
    #[serde(default)]
    pub action: Option<Action>,
    /// Which of them, counted from when the rule was added.
    pub when: When,
    /// What happens to them.
    pub effect: FaultEffect,
}

/// Which of the matching calls a rule hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The n-th from now on; 1 is the next one.
    Nth(u64),
    /// The next n.
    Next(u64),
    /// All of them.
    Each,
}

/// What a rule does to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultEffect {
    /// Refuses it; nothing happens.
    Fail {
        /// The error code. The HTTP status follows from it.
        code: String,
        /// The error text; a plain one if absent.
        #[serde(default)]
        message: Option<String>,
    },
    /// Does it and loses the answer.
    LoseReply,
    /// Does it and answers so many milliseconds later.
    Delay {
        /// Milliseconds on top of the usual latency.
        ms: u64,
    },
}

/// Names a rule that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// What happens behind the client's back, without any call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Disturbance {
    /// IMDS of an instance shows no change any more.
    FreezeImds {
        /// Whose.
        instance: InstanceId,
    },
    /// IMDS of an instance shows everything as it is, and changes again.
    ThawImds {
        /// Whose.
        instance: InstanceId,
    },
    /// Takes an ENI off its instance, by force and at once.
    DetachEni {
        /// Not a primary one.
        eni: EniId,
    },
    /// Takes addresses and prefixes from an ENI.
    Unassign {
        /// From which ENI.
        eni: EniId,
        /// Secondary addresses of either family.
        #[serde(default)]
        addresses: Vec<IpAddr>,
        /// Prefixes of either family.
        #[serde(default)]
        prefixes: Vec<IpNet>,
    },
}

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: BTreeMap<FaultId, ActiveRule>,
    n_added: u64,
}

#[derive(Debug)]
struct ActiveRule {
    rule: FaultRule,
    /// Calls that the rule was about.
    n_seen: u64,
    /// Calls that it hit.
    n_hit: u64,
}

/// What the rules do to one call.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) failure: Option<ApiError>,
    pub(crate) lose_reply: bool,
    pub(crate) delay: Duration,
}

impl Faults {
    pub(crate) fn add(&mut self, rule: FaultRule) -> FaultId {
        self.n_added += 1;
        let id = FaultId(self.n_added);
        self.rules.insert(id, ActiveRule { rule, n_seen: 0, n_hit: 0 });
        id
    }

    pub(crate) fn remove(&mut self, id: FaultId) -> bool {
        self.rules.remove(&id).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (FaultId, &FaultRule, u64)> {
        self.rules.iter().map(|(id, active)| (*id, &active.rule, active.n_hit))
    }

    /// Counts a call; `None` stands for an operation that is not modelled.
    pub(crate) fn judge(&mut self, action: Option<Action>) -> Verdict {
        let mut verdict = Verdict::default();
        for active in self.rules.values_mut() {
            if active.hits(action) {
                verdict.add(&active.rule.effect);
            }
        }
        verdict
    }
}

impl ActiveRule {
    fn hits(&mut self, action: Option<Action>) -> bool {
        if self.rule.action.is_some() && self.rule.action != action {
            return false;
        }
        self.n_seen += 1;
        let hit = match self.rule.when {
            When::Nth(n) => self.n_seen == n,
            When::Next(n) => self.n_seen <= n,
            When::Each => true,
        };
        self.n_hit += u64::from(hit);
        hit
    }
}

impl Verdict {
    fn add(&mut self, effect: &FaultEffect) {
        match effect {
            FaultEffect::Fail { code, message } => {
                let message = message.as_deref().unwrap_or("The request was made to fail.");
                self.failure.get_or_insert_with(|| ApiError::new(code, message));
            }
            FaultEffect::LoseReply => self.lose_reply = true,
            FaultEffect::Delay { ms } => self.delay += Duration::from_millis(*ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hit_the_calls_they_name() {
        let check = |action, when, expect: &[u64]| {
            let mut faults = Faults::default();
            faults.add(FaultRule { action, when, effect: FaultEffect::LoseReply });
            let calls = [Action::CreateTags, Action::CreateVpc, Action::CreateTags];
            let hit: Vec<u64> = (1..)
                .zip(calls)
                .filter(|(_, action)| faults.judge(Some(*action)).lose_reply)
                .map(|(number, _)| number)
                .collect();
            assert_eq!(hit, expect, "{action:?} {when:?}");
            assert_eq!(faults.iter().map(|(_, _, n)| n).sum::<u64>(), expect.len() as u64);
        };
        check(None, When::Each, &[1, 2, 3]);
        check(None, When::Nth(2), &[2]);
        check(Some(Action::CreateTags), When::Nth(2), &[3]);
        check(Some(Action::CreateTags), When::Next(1), &[1]);
        check(Some(Action::CreateTags), When::Next(5), &[1, 3]);
        check(Some(Action::DeleteTags), When::Each, &[]);
    }

    #[test]
    fn effects_add_up_and_the_oldest_failure_wins() {
        let mut faults = Faults::default();
        let fail = |code: &str| FaultEffect::Fail { code: code.to_owned(), message: None };
        let delay = FaultEffect::Delay { ms: 20 };
        for effect in [fail("Unavailable"), delay.clone(), fail("InternalError"), delay] {
            faults.add(FaultRule { action: None, when: When::Each, effect });
        }
        let verdict = faults.judge(None);
        let failure = verdict.failure.unwrap();
        assert_eq!((failure.code.as_str(), failure.status), ("Unavailable", 503));
        assert_eq!(verdict.delay, Duration::from_millis(40));
        assert!(faults.remove(FaultId(1)) && !faults.remove(FaultId(1)));
        assert_eq!(faults.judge(None).failure.unwrap().code, "InternalError");
    }

    #[test]
    fn rules_are_readable_as_json() {
        let check = |json: &str, expect: FaultRule| {
            assert_eq!(serde_json::from_str::<FaultRule>(json).unwrap(), expect);
        };
        check(
            r#"{"action": "AttachNetworkInterface", "when": {"nth": 2},
                "effect": {"fail": {"code": "AttachmentLimitExceeded"}}}"#,
            FaultRule {
                action: Some(Action::AttachNetworkInterface),
                when: When::Nth(2),
                effect: FaultEffect::Fail {
                    code: "AttachmentLimitExceeded".to_owned(),
                    message: None,
                },
            },
        );
        check(
            r#"{"when": "each", "effect": {"delay": {"ms": 250}}}"#,
            FaultRule { action: None, when: When::Each, effect: FaultEffect::Delay { ms: 250 } },
        );
        assert!(serde_json::from_str::<FaultRule>(r#"{"when": "each"}"#).is_err());
    }
}
