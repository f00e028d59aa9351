//! Fault rules: the calls that fail, and how. Rules are data that an operator can send.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::id::{EniId, InstanceId};
use crate::request::{Action, Request, Wanted};

/// A rule that makes some calls fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The operation. Any operation if absent.
    #[serde(default)]
    pub action: Option<Action>,
    /// Which calls of the operation, counted from when the rule was added.
    pub when: When,
    /// What happens to these calls.
    pub effect: FaultEffect,
}

/// Which of the matching calls a rule hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The n-th call; 1 is the next one.
    Nth(u64),
    /// The next n calls.
    Next(u64),
    /// All calls.
    Each,
}

/// What a rule does to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultEffect {
    /// EC2 refuses the call. Nothing changes.
    Fail {
        /// The error code. It determines the HTTP status.
        code: String,
        /// The error text. A generic text if absent.
        #[serde(default)]
        message: Option<String>,
    },
    /// EC2 executes the call; the answer is lost.
    LoseReply,
    /// EC2 executes the call and answers later.
    Delay {
        /// Milliseconds in addition to the configured latency.
        ms: u64,
    },
    /// EC2 assigns fewer addresses or prefixes than the call asks for, and answers with success and
    /// those that it has assigned. Calls other than AssignPrivateIpAddresses and
    /// AssignIpv6Addresses are executed as they are.
    PartialAssign {
        /// The most addresses or prefixes that the call gets.
        at_most: NonZeroU16,
    },
}

/// The id of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// A change behind the client's back, without a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Disturbance {
    /// IMDS of an instance stops showing changes.
    FreezeImds {
        /// The instance.
        instance: InstanceId,
    },
    /// IMDS of an instance shows the current state, and changes again.
    ThawImds {
        /// The instance.
        instance: InstanceId,
    },
    /// Detaches an ENI by force, at once.
    DetachEni {
        /// The ENI. It must not be a primary one.
        eni: EniId,
    },
    /// Unassigns addresses and prefixes from an ENI.
    Unassign {
        /// The ENI.
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
    /// Calls that matched the rule's operation.
    n_seen: u64,
    /// Calls that the rule hit.
    n_hit: u64,
}

/// The combined effects of all rules on one call.
#[derive(Debug, Default)]
pub(crate) struct RuleEffects {
    pub(crate) failure: Option<ApiError>,
    pub(crate) lose_reply: bool,
    pub(crate) delay: Duration,
    pub(crate) assign_at_most: Option<NonZeroU16>,
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

    /// Counts a call and combines the effects of the rules that hit it. `None` means an operation
    /// that the model does not have.
    pub(crate) fn effects_on(&mut self, action: Option<Action>) -> RuleEffects {
        let mut effects = RuleEffects::default();
        for active in self.rules.values_mut() {
            if active.hits(action) {
                effects.add(&active.rule.effect);
            }
        }
        effects
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

impl RuleEffects {
    fn add(&mut self, effect: &FaultEffect) {
        match effect {
            FaultEffect::Fail { code, message } => {
                let message = message.as_deref().unwrap_or("The request was made to fail.");
                self.failure.get_or_insert_with(|| ApiError::new(code, message));
            }
            FaultEffect::LoseReply => self.lose_reply = true,
            FaultEffect::Delay { ms } => self.delay += Duration::from_millis(*ms),
            FaultEffect::PartialAssign { at_most } => {
                let least = self.assign_at_most.map_or(*at_most, |other| other.min(*at_most));
                self.assign_at_most = Some(least);
            }
        }
    }

    /// The request that EC2 executes instead of `request`.
    pub(crate) fn executed(&self, mut request: Request) -> Request {
        let Some(at_most) = self.assign_at_most else { return request };
        if let Request::AssignPrivateIpAddresses(assign) = &mut request {
            cut(&mut assign.wanted, at_most);
        } else if let Request::AssignIpv6Addresses(assign) = &mut request {
            cut(&mut assign.wanted, at_most);
        }
        request
    }
}

fn cut<A, P>(wanted: &mut Wanted<A, P>, at_most: NonZeroU16) {
    let at_most = at_most.get();
    for count in [&mut wanted.address_count, &mut wanted.prefix_count] {
        *count = count.map(|n| n.min(at_most.into()));
    }
    wanted.addresses.truncate(at_most.into());
    wanted.prefixes.truncate(at_most.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_hits_the_calls_it_names() {
        let check = |action, when, expect: &[u64]| {
            let mut faults = Faults::default();
            faults.add(FaultRule { action, when, effect: FaultEffect::LoseReply });
            let calls = [Action::CreateTags, Action::CreateVpc, Action::CreateTags];
            let hit: Vec<u64> = (1..)
                .zip(calls)
                .filter(|(_, action)| faults.effects_on(Some(*action)).lose_reply)
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
    fn effects_add_up_and_oldest_failure_wins() {
        let mut faults = Faults::default();
        let fail = |code: &str| FaultEffect::Fail { code: code.to_owned(), message: None };
        let delay = FaultEffect::Delay { ms: 20 };
        for effect in [fail("Unavailable"), delay.clone(), fail("InternalError"), delay] {
            faults.add(FaultRule { action: None, when: When::Each, effect });
        }
        let effects = faults.effects_on(None);
        let failure = effects.failure.unwrap();
        assert_eq!((failure.code.as_str(), failure.status), ("Unavailable", 503));
        assert_eq!(effects.delay, Duration::from_millis(40));
        assert!(faults.remove(FaultId(1)) && !faults.remove(FaultId(1)));
        assert_eq!(faults.effects_on(None).failure.unwrap().code, "InternalError");
    }

    #[test]
    fn rule_parses_from_json() {
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
        check(
            r#"{"when": {"next": 1}, "effect": {"partial_assign": {"at_most": 2}}}"#,
            FaultRule {
                action: None,
                when: When::Next(1),
                effect: FaultEffect::PartialAssign { at_most: NonZeroU16::new(2).unwrap() },
            },
        );
        let nothing = r#"{"when": "each", "effect": {"partial_assign": {"at_most": 0}}}"#;
        assert!(serde_json::from_str::<FaultRule>(nothing).is_err());
        assert!(serde_json::from_str::<FaultRule>(r#"{"when": "each"}"#).is_err());
    }
}
