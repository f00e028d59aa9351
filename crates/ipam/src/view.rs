//! The pool at one moment, for people and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mac::MacAddr;

use crate::block::{Block, BlockKind};
use crate::call::Action;
use crate::id::{AttachmentKey, EniId, SecurityGroupId, SubnetId};
use crate::policy::Limits;
use crate::record::Assignment;
use crate::time::Timestamp;

/// The whole pool at one moment, ordered so that the same pool prints the same.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolView {
    /// Where pods' addresses come from on this instance; those of IPv4 with both families.
    pub kind: BlockKind,
    /// What EC2 allows.
    pub limits: Limits,
    /// What the daemon may change at EC2.
    pub changes: Changes,
    /// Our ENIs, by device index; those not yet attached come last.
    pub enis: Vec<EniView>,
    /// ENIs on this instance that are not ours to manage, and why not.
    pub foreign: BTreeMap<EniId, ForeignReason>,
    /// The blocks that EC2 describes on our ENIs and that no pod gets.
    pub unused_blocks: BTreeSet<Block>,
    /// What each attachment holds.
    pub assignments: BTreeMap<AttachmentKey, Assignment>,
    /// The withheld addresses, each with its link: a pod uses them in a way that the record does not know.
    pub quarantined: BTreeMap<IpAddr, String>,
    /// The addresses of our ENIs that the host itself has, each with the name of its link. No packet to them reaches
    /// a pod.
    pub host_addresses: BTreeMap<IpAddr, String>,
    /// How many sandboxes the container runtime has, ready or not; `None` if it has not answered the last
    /// time, or is not asked.
    pub sandboxes: Option<usize>,
    /// Pods' addresses that EC2 describes on no ENI of this instance, each with the ENI on record.
    pub lost: BTreeMap<IpAddr, EniId>,
    /// Our ENIs that have yet to get the primary ENI's security groups, each with those that it has.
    pub other_groups: BTreeMap<EniId, BTreeSet<SecurityGroupId>>,
    /// The blocks of our ENIs on which the metadata service differs from EC2's later answer. EC2's answer
    /// counts.
    pub refuted_hints: BTreeMap<EniId, BTreeSet<Block>>,
    /// The sums for [`kind`](Self::kind)'s family.
    pub counts: Counts,
    /// IPv6 on a node with both families.
    pub second: Option<FamilyView>,
    /// The name of the ENIConfig that says where new ENIs go, whether or not it can be used; `None` without custom
    /// networking, or before the API server has named it.
    pub eni_config: Option<String>,
    /// The most that there can be.
    pub capacity: Capacity,
    /// The subnets that carry our ENIs or may carry the next one, as EC2 described them last.
    pub subnets: BTreeMap<SubnetId, SubnetRoom>,
    /// For how long the node's own token buckets have held each action back. A pause counts once it has ended.
    pub held_back: BTreeMap<Action, Duration>,
    /// The calls under way at EC2, one phrase each.
    pub in_flight: Vec<String>,
    /// The obstacles that keep the pool from its target, one phrase each, with the reason.
    pub blocked: Vec<String>,
}

/// What the daemon may change at EC2 at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// What targets and pods want.
    ByTargets,
    /// What pods want, since the node is cordoned. Addresses and prefixes go back, and ENIs stay.
    Cordoned,
    /// Nothing: `DISABLE_NETWORK_RESOURCE_PROVISIONING`.
    Off,
    /// Nothing, and the metadata service answers in place of EC2: `ENABLE_IMDS_ONLY_MODE`.
    ImdsOnly,
}

impl Changes {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ByTargets, Self::Cordoned, Self::Off, Self::ImdsOnly];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Changes::ByTargets => "by_targets",
            Changes::Cordoned => "cordoned",
            Changes::Off => "off",
            Changes::ImdsOnly => "imds_only",
        }
    }
}

/// One ENI of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniView {
    /// Its id.
    pub id: EniId,
    /// Its place on the instance; `None` while it is not attached.
    pub device_index: Option<u16>,
    /// Its network card.
    pub network_card: u16,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its own address.
    pub primary_address: IpAddr,
    /// Whether it is the instance's primary ENI.
    pub primary: bool,
    /// How far it has come.
    pub stage: EniStage,
    /// The blocks that it carries for pods.
    pub blocks: BTreeMap<Block, BlockUse>,
    /// The prefixes on record that containers beside the pods use.
    pub delegated: BTreeSet<Block>,
    /// The range of its subnet; `None` until EC2 has described it.
    pub subnet_cidr: Option<IpNet>,
    /// Whether a tag keeps new pods off it.
    pub is_excluded: bool,
}

/// How much room for IPv4 addresses a subnet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetRoom {
    /// Free single addresses in EC2's answer, without those granted to this node since.
    pub free_addresses: u32,
    /// The most aligned /28 that can be free. EC2 does not report them, so this is a sixteenth of the free addresses;
    /// 0 while the subnet refuses prefixes.
    pub free_prefixes: u32,
    /// The free addresses in EC2's answer itself.
    pub described: u32,
    /// When the describe began.
    pub described_at: Timestamp,
}

/// Why an ENI on this instance is not ours to manage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignReason {
    /// A user keeps the daemon off it, with the tag `node.k8s.amazonaws.com/no_manage`.
    NoManageTag,
    /// It is a trunk, an EFA or of another kind that serves no pods.
    Kind,
    /// It is on another network card.
    NetworkCard,
    /// By its tags it is another instance's.
    OtherInstance,
    /// It has no owner's tag, and untagged ENIs are not to be managed.
    Untagged,
}

impl ForeignReason {
    /// One word for machines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ForeignReason::NoManageTag => "no_manage_tag",
            ForeignReason::Kind => "kind",
            ForeignReason::NetworkCard => "network_card",
            ForeignReason::OtherInstance => "other_instance",
            ForeignReason::Untagged => "untagged",
        }
    }
}

/// The life of an ENI of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EniStage {
    /// Exists, unattached; the attach is next or under way.
    Attaching,
    /// Attached; the kernel's side is being set up, or the device has not come yet.
    Linking,
    /// Attached and verified: its addresses may be given out.
    Ready,
    /// Gives out no addresses any more; on its way back to EC2.
    Draining,
}

impl EniStage {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EniStage::Attaching => "attaching",
            EniStage::Linking => "linking",
            EniStage::Ready => "ready",
            EniStage::Draining => "draining",
        }
    }
}

/// How the addresses of a block are used. Together they are all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockUse {
    /// Pods' addresses.
    pub assigned: BTreeSet<IpAddr>,
    /// Resting addresses, each with the end of its rest.
    pub cooling: BTreeMap<IpAddr, Timestamp>,
    /// Withheld addresses: a pod that is not on record uses them.
    pub quarantined: BTreeSet<IpAddr>,
    /// All others; ready for a pod if the ENI is ready.
    pub free: u64,
}

/// One family of pods' addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyView {
    /// Where its addresses come from.
    pub kind: BlockKind,
    /// Its sums.
    pub counts: Counts,
}

/// Sums over all of our ENIs, for one family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Addresses that EC2 has assigned for pods.
    pub total: u64,
    /// Given to pods.
    pub assigned: u64,
    /// Resting.
    pub cooling: u64,
    /// Withheld: in use by pods that are not on record.
    pub quarantined: u64,
    /// None of these.
    pub free: u64,
    /// Prefixes.
    pub prefixes: u64,
    /// Prefixes that containers beside the pods use. They count in none of the other sums.
    pub delegated: u64,
    /// Adds that wait.
    pub waiting: u64,
    /// Pods that are bound to the node and ask for an address soon. The pool has one ready for each, or asks EC2 for it.
    pub expected: u64,
}

/// The most that the instance can have under the policy, as far as EC2's refusals have not shown less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Our ENIs; foreign ENIs take places away.
    pub enis: u16,
    /// Addresses for pods on all of them.
    pub addresses: u64,
    /// Pods: with those addresses, and on the host's network. It is never above the policy's max pods.
    pub pods: u64,
}
