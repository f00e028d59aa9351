//! A picture of the pool for people, metrics and the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::block::Block;
use crate::id::{AttachmentKey, EniId, SubnetId};
use crate::policy::Mode;
use crate::record::Assignment;
use crate::time::Timestamp;

/// The whole pool at one moment, ordered so that the same pool prints the same.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolView {
    /// Addresses or prefixes.
    pub mode: Mode,
    /// Our ENIs, by device index; those not yet attached come last.
    pub enis: Vec<EniView>,
    /// ENIs on this instance that are not ours to manage.
    pub foreign: BTreeSet<EniId>,
    /// What each attachment holds.
    pub assignments: BTreeMap<AttachmentKey, Assignment>,
    /// The addresses that are withheld since a pod uses them of which nothing is on record, or not
    /// that; each with the pod's link.
    pub quarantined: BTreeMap<IpAddr, String>,
    /// The sums.
    pub counts: Counts,
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
