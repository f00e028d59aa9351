//! What the user wants (targets) and what EC2 allows (limits), validated once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, SecurityGroupId, SubnetId};

/// What pods' addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Single secondary addresses.
    SecondaryIp,
    /// /28 prefixes (`ENABLE_PREFIX_DELEGATION`).
    Prefix,
}

/// How much to keep ready. One of the three families is in force; the settings' precedence is
/// resolved when this is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// `WARM_ENI_TARGET`: free addresses worth this many whole ENIs (secondary mode).
    WarmEni(u16),
    /// `WARM_PREFIX_TARGET`: this many wholly free prefixes (prefix mode).
    WarmPrefix(u16),
    /// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET`: this many free, and this many in all.
    Ip {
        /// Free addresses to keep; 0 keeps none.
        warm: u32,
        /// Addresses to hold in all; 0 sets no floor.
        minimum: u32,
    },
}

impl Targets {
    /// Resolves the settings' precedence: a non-zero `WARM_IP_TARGET` or `MINIMUM_IP_TARGET`
    /// overrides the target of the mode.
    /// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`.
    #[must_use]
    pub fn resolve(mode: Mode, settings: WarmSettings) -> Self {
        let WarmSettings { warm_eni, warm_ip, minimum_ip, warm_prefix } = settings;
        if warm_ip != 0 || minimum_ip != 0 {
            return Targets::Ip { warm: warm_ip, minimum: minimum_ip };
        }
        match mode {
            Mode::SecondaryIp => Targets::WarmEni(warm_eni),
            Mode::Prefix => Targets::WarmPrefix(warm_prefix),
        }
    }
}

/// The four targets as the user sets them; 0 stands for unset where the default is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmSettings {
    /// `WARM_ENI_TARGET`.
    pub warm_eni: u16,
    /// `WARM_IP_TARGET`.
    pub warm_ip: u32,
    /// `MINIMUM_IP_TARGET`.
    pub minimum_ip: u32,
    /// `WARM_PREFIX_TARGET`.
    pub warm_prefix: u16,
}

impl Default for WarmSettings {
    /// What the incumbent's manifest sets.
    fn default() -> Self {
        Self { warm_eni: 1, warm_ip: 0, minimum_ip: 0, warm_prefix: 1 }
    }
}

/// The user's wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Addresses or prefixes.
    pub mode: Mode,
    /// How much to keep ready.
    pub targets: Targets,
    /// `MAX_ENI`: how many ENIs at most, if fewer than the instance allows.
    pub max_enis: Option<u16>,
    /// The node's pods that need an address; the pool does not grow beyond.
    pub max_pods: u32,
    /// `IP_COOLDOWN_PERIOD`: how long a released address rests.
    pub cooldown: Duration,
    /// How long an Add waits at most for an address that is on its way.
    pub add_wait: Duration,
    /// How long the pool must have been too large before something goes back.
    pub shrink_delay: Duration,
    /// How long an ENI is kept at least.
    pub min_eni_age: Duration,
}

/// What EC2 allows this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// ENIs on the default network card, the primary included.
    pub enis: u16,
    /// Addresses on an ENI: primary, secondaries and prefixes together.
    pub addresses_per_eni: u16,
    /// Whether the instance takes prefixes.
    pub prefixes: bool,
}

impl Limits {
    /// ENIs that this instance may have under `policy`.
    #[must_use]
    pub fn enis_allowed(self, policy: &Policy) -> u16 {
        self.enis.min(policy.max_enis.unwrap_or(u16::MAX))
    }

    /// Addresses for pods that this instance holds at most under `policy`, were there pods enough.
    #[must_use]
    pub fn capacity(self, policy: &Policy) -> u32 {
        let blocks = u32::from(self.enis_allowed(policy)) * u32::from(self.blocks_per_eni());
        match policy.mode {
            Mode::SecondaryIp => blocks,
            Mode::Prefix => blocks.saturating_mul(16),
        }
    }

    /// Secondary addresses or prefixes on one ENI, of whichever kind.
    #[must_use]
    pub fn blocks_per_eni(self) -> u16 {
        self.addresses_per_eni.saturating_sub(1)
    }
}

/// Who and where this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// This instance.
    pub instance: InstanceId,
    /// For example `m5.large`.
    pub instance_type: String,
    /// The subnet of the primary ENI; new ENIs go there.
    pub subnet: SubnetId,
    /// The security groups of the primary ENI; new ENIs get them.
    pub security_groups: BTreeSet<SecurityGroupId>,
    /// `CLUSTER_NAME`: marks ENIs as this cluster's.
    pub cluster: Option<String>,
    /// `ADDITIONAL_ENI_TAGS`.
    pub eni_tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`: whether an attached ENI without any owner's mark is ours.
    pub manage_untagged: bool,
}
