//! The user's policy, EC2's limits, and the node's identity. Validated once.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::Ipv4Net;
use mac::MacAddr;
use serde::{Deserialize, Serialize};

use crate::block::{Block, BlockKind, Family};
use crate::connection_tracking::ConnectionTracking;
use crate::id::{BootId, InstanceId};
use crate::record::PodIpv6;

/// Pods that need no address of their own, since they share the node's network: the CNI's own
/// and kube-proxy's. Source: AWS, "Maximum Pods per instance type".
pub const HOST_NETWORK_PODS: u32 = 2;

/// How many addresses to keep ready. The settings' precedence is resolved when this is made.
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
    /// overrides the target of the block kind. With IPv6 the settings have no effect.
    /// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`.
    #[must_use]
    pub fn resolve(kind: BlockKind, settings: WarmSettings) -> Self {
        let WarmSettings { warm_eni, warm_ip, minimum_ip, warm_prefix } = settings;
        match kind {
            // A second /80 comes only when the first has no free address left.
            BlockKind::V6Prefix => Targets::Ip { warm: 1, minimum: 0 },
            BlockKind::V4Address | BlockKind::V4Prefix if warm_ip != 0 || minimum_ip != 0 => {
                Targets::Ip { warm: warm_ip, minimum: minimum_ip }
            }
            BlockKind::V4Address => Targets::WarmEni(warm_eni),
            BlockKind::V4Prefix => Targets::WarmPrefix(warm_prefix),
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

/// Where the addresses of one family come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyPolicy {
    /// The kind of block that EC2 is asked for.
    pub kind: BlockKind,
    /// The kind that EC2 is asked for instead, of the same family. It is for instances that take no blocks of
    /// `kind`, and for waiting pods if the subnets have none.
    pub fallback: Option<BlockKind>,
    /// How much to keep ready.
    pub targets: Targets,
    /// Which ENIs carry the addresses.
    pub carriers: Carriers,
}

/// Which ENIs carry pods' addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriers {
    /// All of ours.
    All,
    /// The primary ENI alone.
    Primary,
}

impl FamilyPolicy {
    /// Blocks of `kind` as amazon-vpc-cni-k8s uses them: prefixes fall back on single addresses, and IPv6
    /// pods are on the primary ENI.
    #[must_use]
    pub fn new(kind: BlockKind, settings: WarmSettings) -> Self {
        let fallback = match kind {
            BlockKind::V4Prefix => Some(BlockKind::V4Address),
            BlockKind::V4Address | BlockKind::V6Prefix => None,
        };
        let carriers = match kind.family() {
            Family::V4 => Carriers::All,
            Family::V6 => Carriers::Primary,
        };
        Self { kind, fallback, targets: Targets::resolve(kind, settings), carriers }
    }

    /// Whether an ENI carries pods' addresses.
    #[must_use]
    pub fn is_carried_by(self, is_primary: bool) -> bool {
        match self.carriers {
            Carriers::All => true,
            Carriers::Primary => is_primary,
        }
    }
}

/// The address families of pods, each with its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    V4(FamilyPolicy),
    /// IPv6 alone.
    V6(FamilyPolicy),
    /// Both: a pod has an address of each.
    Dual {
        /// IPv4.
        v4: FamilyPolicy,
        /// IPv6. The primary ENI carries it, whatever ENI carries a pod's IPv4 address.
        v6: FamilyPolicy,
        /// What a pod needs to start.
        needs: Needs,
    },
}

/// What a pod needs to start on a node with both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// An address of each family.
    Each,
    /// An address of any family. A pod gets one of each if the missing one comes within its patience.
    Any,
}

impl Families {
    /// Pods have addresses of one family.
    #[must_use]
    pub fn single(policy: FamilyPolicy) -> Self {
        match policy.kind.family() {
            Family::V4 => Families::V4(policy),
            Family::V6 => Families::V6(policy),
        }
    }

    /// Pods have addresses of both families: IPv4 as `v4` says, and IPv6 from a /80 on the primary ENI.
    #[must_use]
    pub fn dual(v4: FamilyPolicy, needs: Needs) -> Self {
        let v6 = FamilyPolicy::new(BlockKind::V6Prefix, WarmSettings::default());
        Families::Dual { v4, v6, needs }
    }

    /// The policy of the only family, or of IPv4 where there are two. It decides how many ENIs there are and how
    /// many pods fit: a /80 has addresses for all.
    #[must_use]
    pub fn policy(self) -> FamilyPolicy {
        match self {
            Families::V4(policy) | Families::V6(policy) | Families::Dual { v4: policy, .. } => {
                policy
            }
        }
    }

    /// The policy of each family, IPv4 first.
    pub fn policies(self) -> impl Iterator<Item = FamilyPolicy> + Clone {
        let (first, second) = match self {
            Families::V4(policy) | Families::V6(policy) => (policy, None),
            Families::Dual { v4, v6, .. } => (v4, Some(v6)),
        };
        std::iter::once(first).chain(second)
    }

    /// The policy of `family`; `None` if pods have no addresses of it.
    #[must_use]
    pub fn of(self, family: Family) -> Option<FamilyPolicy> {
        self.policies().find(|policy| policy.kind.family() == family)
    }

    /// What a pod needs to start.
    #[must_use]
    pub fn needs(self) -> Needs {
        match self {
            Families::V4(_) | Families::V6(_) => Needs::Each,
            Families::Dual { needs, .. } => needs,
        }
    }

    /// Whether pods may have addresses of `block` on an ENI. Blocks of another kind that are left from earlier
    /// settings serve too.
    #[must_use]
    pub fn serve(self, block: Block, is_primary: bool) -> bool {
        self.of(block.family()).is_some_and(|policy| policy.is_carried_by(is_primary))
    }
}

/// Where new ENIs go, and whether the primary ENI carries pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Into the primary ENI's subnet or another one tagged for pods, with the primary ENI's security groups.
    LikePrimary,
    /// Into the primary ENI's subnet, with its security groups. `ENABLE_SUBNET_DISCOVERY=false`: tags of subnets have
    /// no effect.
    PrimarySubnet,
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`: where the node's [`EniConfig`](crate::eni_config::EniConfig) says. The
    /// primary ENI carries no pods.
    ByEniConfig,
}

impl Placement {
    /// How many ENIs carry no pods.
    fn n_without_pods(self) -> u16 {
        match self {
            Placement::LikePrimary | Placement::PrimarySubnet => 0,
            Placement::ByEniConfig => 1,
        }
    }
}

/// What the daemon changes at EC2, and whose answers it goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisioning {
    /// `AWS_MANAGE_ENIS_NON_SCHEDULABLE=true`: the pool follows its targets at any time.
    Always,
    /// The pool follows its targets while pods may be scheduled on the node. On a cordoned node it grows for pods that
    /// ask, and gives back addresses and prefixes, but no ENI.
    WhileSchedulable,
    /// `DISABLE_NETWORK_RESOURCE_PROVISIONING`: nothing is changed. Somebody else attaches ENIs and assigns addresses, and
    /// describes of EC2 show them.
    Off,
    /// `ENABLE_IMDS_ONLY_MODE`: nothing is changed, and the metadata service answers in place of EC2.
    ImdsOnly,
}

/// How long things take or wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// `IP_COOLDOWN_PERIOD`: how long a released address rests.
    pub cooldown: Duration,
    /// How long an Add waits at most for an address that is on its way.
    pub add_wait: Duration,
    /// How long the pool may be too small before EC2 is called, so that one call serves pods that come
    /// together. Ten times as long while the next pod would find an address.
    pub grow_delay: Duration,
    /// How long the pool must have been too large before something goes back. Whole ENIs stay ten times
    /// as long. What was given back too soon stays longer the next time.
    pub shrink_delay: Duration,
    /// How long an ENI stays at least.
    pub min_eni_age: Duration,
    /// How old an unattached ENI of the cluster must be for any node to remove it; longer than a node
    /// takes to attach a new ENI. `None`: none is removed.
    pub leak_age: Option<Duration>,
}

/// What the user wants. It may change while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where pods' addresses come from.
    pub families: Families,
    /// Where new ENIs go.
    pub placement: Placement,
    /// What is changed at EC2.
    pub provisioning: Provisioning,
    /// `MAX_ENI`: how many ENIs at most, if fewer than the instance allows.
    pub max_enis: Option<u16>,
    /// The most pods of the node that need an address; the pool does not grow beyond.
    pub max_pods: u32,
    /// `TIDEPOOL_DELEGATED_PREFIXES`: how many prefixes containers beside the pods use; `None` leaves what is on
    /// record.
    pub delegated_prefixes: Option<u16>,
    /// The time-outs that new ENIs get in place of the primary ENI's.
    pub connection_tracking: ConnectionTracking,
    /// `AWS_VPC_ENI_MTU`: the MTU of all ENIs, in bytes.
    pub mtu: u16,
    /// `DISABLE_POD_V6`: what becomes of IPv6 in new pods without an IPv6 address.
    pub pod_ipv6: PodIpv6,
    /// How pods on IPv4 reach what is outside the VPC, and are reached from there.
    pub nat: NatPolicy,
    /// How long things take or wait.
    pub timing: Timing,
}

/// How pods on IPv4 reach what is outside the VPC, and are reached from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatPolicy {
    /// How their packets are translated; `None` with `AWS_VPC_K8S_CNI_EXTERNALSNAT`, if something else does it.
    pub source: Option<SourceNatPolicy>,
    /// `AWS_VPC_CNI_NODE_PORT_SUPPORT`: node ports of the primary ENI lead to pods on all ENIs.
    pub node_ports: bool,
    /// `AWS_VPC_K8S_CNI_CONNMARK`: the bits that mark connections which leave by the primary ENI.
    pub mark: NonZeroU32,
    /// `AWS_EXTERNAL_SERVICE_CIDRS`: ranges that all pods reach by the main route table.
    pub by_main_table: BTreeSet<Ipv4Net>,
    /// `AWS_VPC_K8S_CNI_VETHPREFIX`: with what the names of pods' host links start.
    pub pod_links: String,
    /// How pods reach the family that their VPC addresses are not of.
    pub egress: EgressPolicy,
}

/// How pods reach the family that their VPC addresses are not of: by a node-local address, which the node translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressPolicy {
    /// `ENABLE_V4_EGRESS`, `ENABLE_V6_EGRESS`: the family that new pods reach so, if any. Running pods keep what they
    /// have.
    pub to: Option<Family>,
    /// `AWS_VPC_K8S_CNI_RANDOMIZESNAT`: how source ports are chosen.
    pub ports: SourcePorts,
}

/// How pods' packets are translated that leave the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceNatPolicy {
    /// `AWS_VPC_K8S_CNI_RANDOMIZESNAT`: how their source ports are chosen.
    pub ports: SourcePorts,
    /// `AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS`: further ranges to which pods keep their addresses.
    pub excluded: BTreeSet<Ipv4Net>,
}

/// How source ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourcePorts {
    /// `none`: the pod's own port if it is free.
    Kept,
    /// `hashrandom`: by a hash of both ends.
    Hashed,
    /// `prng`: by the kernel's random numbers.
    Random,
}

impl Default for NatPolicy {
    /// What the incumbent's manifest sets.
    fn default() -> Self {
        let mark = const { NonZeroU32::new(0x80).expect("it is not zero") };
        Self {
            source: Some(SourceNatPolicy { ports: SourcePorts::Random, excluded: BTreeSet::new() }),
            node_ports: true,
            mark,
            by_main_table: BTreeSet::new(),
            pod_links: "eni".to_owned(),
            egress: EgressPolicy { to: None, ports: SourcePorts::Random },
        }
    }
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
    /// The families on this instance: IPv4 with its fallback where it takes no /28 prefixes.
    #[must_use]
    pub fn families(self, policy: &Policy) -> Families {
        let here = |wanted: FamilyPolicy| match wanted.kind {
            BlockKind::V4Prefix if !self.prefixes => FamilyPolicy {
                kind: wanted.fallback.unwrap_or(wanted.kind),
                fallback: None,
                ..wanted
            },
            BlockKind::V4Prefix | BlockKind::V4Address | BlockKind::V6Prefix => wanted,
        };
        match policy.families {
            Families::V4(v4) => Families::V4(here(v4)),
            Families::V6(v6) => Families::V6(here(v6)),
            Families::Dual { v4, v6, needs } => {
                Families::Dual { v4: here(v4), v6: here(v6), needs }
            }
        }
    }

    /// The most ENIs for pods that this instance may have under `policy`.
    #[must_use]
    pub fn enis_allowed(self, policy: &Policy) -> u16 {
        let places = self.enis_for(policy, policy.families.policy());
        places.saturating_sub(policy.placement.n_without_pods())
    }

    /// The most ENIs of ours with addresses of `family`. The primary ENI counts even if it carries no pods.
    pub(crate) fn enis_for(self, policy: &Policy, family: FamilyPolicy) -> u16 {
        let enis = self.enis.min(policy.max_enis.unwrap_or(u16::MAX));
        match family.carriers {
            Carriers::All => enis,
            Carriers::Primary => enis.min(1),
        }
    }

    /// The most addresses for pods that this instance holds under `policy`, if there are enough pods.
    #[must_use]
    pub fn capacity(self, policy: &Policy) -> u32 {
        let blocks = u64::from(self.enis_allowed(policy)) * u64::from(self.blocks_per_eni());
        let size = policy.families.policy().kind.size();
        u32::try_from(blocks.saturating_mul(size)).unwrap_or(u32::MAX)
    }

    /// The most pods that this instance runs under `policy`: those with an address of their own, and those of the host's
    /// network. A kubelet that admits more gets pods without addresses.
    #[must_use]
    pub fn max_pods(self, policy: &Policy) -> u32 {
        self.capacity(policy).saturating_add(HOST_NETWORK_PODS).min(policy.max_pods)
    }

    /// The most secondary addresses or prefixes on one ENI, both together.
    #[must_use]
    pub fn blocks_per_eni(self) -> u16 {
        self.addresses_per_eni.saturating_sub(1)
    }
}

/// The identity of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// This instance.
    pub instance: InstanceId,
    /// The present boot of its machine. EC2's answers from an earlier boot may be long outdated.
    pub boot: BootId,
    /// Hardware address of its primary ENI.
    pub primary_mac: MacAddr,
    /// The IPv4 range of the primary ENI's subnet in the metadata service's answer. It serves while EC2 does not
    /// describe the subnets.
    pub subnet_cidr: Option<Ipv4Net>,
    /// For example `m5.large`.
    pub instance_type: String,
    /// `CLUSTER_NAME`: marks ENIs as this cluster's.
    pub cluster: Option<String>,
    /// `ADDITIONAL_ENI_TAGS`.
    pub eni_tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`: whether an attached ENI without any owner's mark is ours.
    pub manage_untagged: bool,
}
