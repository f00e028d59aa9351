//! What pods asked of each node in one run. It says when pods had addresses, not which ones or how.

use ipam::policy::{Limits, Policy};
use ipam::time::Timestamp;

/// The pods of one node, and what the node held when it was first counted.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeLoad {
    /// EC2's limits for its instance type.
    pub limits: Limits,
    /// The daemon's policy.
    pub policy: Policy,
    /// The start of the trace, or of a node that joined later.
    pub from: Timestamp,
    /// Whether it joined after the start of the trace.
    pub joined: bool,
    /// What it held at [`from`](Self::from).
    pub held: Holding,
    /// When it was drained, if it was.
    pub drained: Option<Timestamp>,
    /// The end of its instance or of the simulation.
    pub until: Timestamp,
    /// The pods that had an address, in the order of their creation.
    pub stays: Vec<Stay>,
}

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// ENIs, with the primary one; at least 1.
    pub enis: u64,
    /// Addresses for pods.
    pub addresses: u64,
}

/// One pod's time with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// When it got its address.
    pub from: Timestamp,
    /// When it ended, or the end of the simulation.
    pub until: Timestamp,
}
