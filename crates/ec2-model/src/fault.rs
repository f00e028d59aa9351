//! Faults by rule: which calls go wrong, and how. All of it is data that an operator can send.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use ipnet::IpNet;

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
