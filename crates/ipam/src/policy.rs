//! What the user wants (targets) and what EC2 allows (limits), validated once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::block::Block;
use crate::call::Ask;
use crate::id::{BootId, InstanceId};

/// What pods' addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Single secondary addresses.
    SecondaryIp,
    /// /28 prefixes (`ENABLE_PREFIX_DELEGATION`).
    Prefix,
    /// /80 prefixes on the primary ENI (`ENABLE_IPv6`).
    Ipv6,
}

impl Mode {
    /// A request for `n` blocks of its kind.
    #[must_use]
    pub fn ask(self, n: u16) -> Ask {
        match self {
            Mode::SecondaryIp => Ask::Addresses(n),
            Mode::Prefix => Ask::Prefixes(n),
            Mode::Ipv6 => Ask::Ipv6Prefixes(n),
        }
    }

    /// Addresses in one block of its kind: 1, 16 or 2^48.
    #[must_use]
    pub fn block_size(self) -> u64 {
        self.ask(1).block_size()
    }

    /// Whether pods may have addresses of `block`: single addresses serve beside /28 prefixes, and
    /// what is left of them serves when prefixes are no longer wanted.
    #[must_use]
    pub fn serves(self, block: Block) -> bool {
        block.is_ipv6() == (self == Mode::Ipv6)
    }
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
    /// overrides the target of the mode. With IPv6 there is nothing to choose.
    /// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`.
    #[must_use]
    pub fn resolve(mode: Mode, settings: WarmSettings) -> Self {
        let WarmSettings { warm_eni, warm_ip, minimum_ip, warm_prefix } = settings;
        match mode {
            // A second /80 is asked for when the first has no address left to spare.
            Mode::Ipv6 => Targets::Ip { warm: 1, minimum: 0 },
            Mode::SecondaryIp | Mode::Prefix if warm_ip != 0 || minimum_ip != 0 => {
                Targets::Ip { warm: warm_ip, minimum: minimum_ip }
            }
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
    /// How long the pool may be too small before EC2 is called, so that pods which come together
    /// are served by one call; ten times as long while the next pod would find an address.
    pub grow_delay: Duration,
    /// How long the pool must have been too large before something goes back. Whole ENIs
    /// stay ten times as long, and what was given back too soon is kept longer the next time.
    pub shrink_delay: Duration,
    /// How long an ENI is kept at least.
    pub min_eni_age: Duration,
    /// How old an ENI of the cluster must be that is attached nowhere for any node to remove it;
    /// longer than a node takes to attach what it has made. `None`: none is removed.
    pub leak_age: Option<Duration>,
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
    /// What pods' addresses come from on this instance, which may not take the /28 prefixes that
    /// are `wanted`.
    #[must_use]
    pub fn mode(self, wanted: Mode) -> Mode {
        match wanted {
            Mode::Prefix if !self.prefixes => Mode::SecondaryIp,
            mode => mode,
        }
    }

    /// ENIs for pods that this instance may have under `policy`.
    #[must_use]
    pub fn enis_allowed(self, policy: &Policy) -> u16 {
        let enis = self.enis.min(policy.max_enis.unwrap_or(u16::MAX));
        match policy.mode {
            Mode::SecondaryIp | Mode::Prefix => enis,
            // IPv6 pods are routed through the primary ENI alone.
            Mode::Ipv6 => enis.min(1),
        }
    }

    /// Addresses for pods that this instance holds at most under `policy`, were there pods enough.
    #[must_use]
    pub fn capacity(self, policy: &Policy) -> u32 {
        let blocks = u64::from(self.enis_allowed(policy)) * u64::from(self.blocks_per_eni());
        u32::try_from(blocks * policy.mode.block_size()).unwrap_or(u32::MAX)
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
    /// Since when it runs: what EC2 said of its ENIs before that may be long untrue.
    pub boot: BootId,
    /// For example `m5.large`.
    pub instance_type: String,
    /// `CLUSTER_NAME`: marks ENIs as this cluster's.
    pub cluster: Option<String>,
    /// `ADDITIONAL_ENI_TAGS`.
    pub eni_tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`: whether an attached ENI without any owner's mark is ours.
    pub manage_untagged: bool,
}
