//! A picture of the pool for people, metrics and the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::block::Block;
use crate::id::{AttachmentKey, EniId, SubnetId};
use crate::policy::Mode;
use crate::record::Assignment;
use crate::sighting::SeenLink;
use crate::time::Timestamp;

/// The whole pool at one moment, ordered so that the same pool prints the same.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolView {
    /// Addresses or prefixes.
    pub mode: Mode,
    /// Our ENIs, by device index; those not yet attached come last.
    pub enis: Vec<EniView>,
    /// ENIs on this instance that are not ours to manage, and why not.
    pub foreign: BTreeMap<EniId, ForeignReason>,
    /// What EC2 shows on our ENIs and no pod gets.
    pub left_alone: BTreeSet<Block>,
    /// What each attachment holds.
    pub assignments: BTreeMap<AttachmentKey, Assignment>,
    /// The addresses that are withheld since a pod uses them of which nothing is on record, or not
    /// that; each with the pod's link.
    pub quarantined: BTreeMap<IpAddr, String>,
    /// The links of sandboxes that the container runtime has forgotten, by their addresses: to be taken down
    /// as soon as the address is on record for nobody.
    pub leftovers: BTreeMap<IpAddr, SeenLink>,
    /// How many sandboxes the container runtime has, ready or not; `None` if it has not answered when it was
    /// asked last, or nobody is to ask it.
    pub sandboxes: Option<usize>,
    /// The addresses that are pods' by the record and, by EC2's word, on no ENI of this instance; each
    /// with the ENI that the record has it on.
    pub lost: BTreeMap<IpAddr, EniId>,
    /// Where the metadata service tells otherwise than EC2 has told since: the blocks of our ENIs that
    /// one of them shows and the other does not. EC2's word counts.
    pub belied: BTreeMap<EniId, BTreeSet<Block>>,
    /// The sums.
    pub counts: Counts,
    /// The most that there can be.
    pub most: Most,
    /// What is under way at EC2, one phrase each.
    pub in_flight: Vec<String>,
    /// What keeps the pool from its target, one phrase each, with the reason.
    pub blocked: Vec<String>,
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
    pub mac: String,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its own address.
    pub primary_address: Ipv4Addr,
    /// Whether it is the instance's primary ENI.
    pub primary: bool,
    /// How far it has come.
    pub stage: EniStage,
    /// What it carries.
    pub blocks: BTreeMap<Block, BlockUse>,
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
    /// Its tags say that it is another instance's.
    OtherInstance,
    /// Nothing says whose it is, and what is untagged is not to be managed.
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
    /// No longer gives out addresses; on its way back to EC2.
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
    /// Pods'.
    pub assigned: BTreeSet<IpAddr>,
    /// Resting, each until then.
    pub cooling: BTreeMap<IpAddr, Timestamp>,
    /// Withheld: a pod uses them of which nothing is on record.
    pub quarantined: BTreeSet<IpAddr>,
    /// The rest; ready for a pod if the ENI is ready.
    pub free: u64,
}

/// Sums over all of our ENIs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Addresses that EC2 has assigned for pods.
    pub total: u64,
    /// Given to pods.
    pub assigned: u64,
    /// Resting.
    pub cooling: u64,
    /// Withheld: in use by pods of which nothing is on record.
    pub quarantined: u64,
    /// None of these.
    pub free: u64,
    /// Prefixes.
    pub prefixes: u64,
    /// Adds that wait.
    pub waiting: u64,
}

/// What the instance can have under the policy, as far as EC2's refusals have not taught better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Most {
    /// ENIs of ours; those that are not ours take places away.
    pub enis: u16,
    /// Addresses for pods on all of them.
    pub addresses: u64,
}
