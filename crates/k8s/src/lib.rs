//! The Kubernetes API server, as far as one node needs it: watches of the node's own objects, and what follows from
//! them as plain data. Memory does not grow with the cluster.
//!
//! No pod waits for the API server. Whatever it does or fails to do becomes [`News`]. This package must not know
//! addresses, EC2 calls or the daemon.

mod client;
mod eni_config;
mod events;
mod following;
mod node;
mod patching;
mod pods;
mod watching;

use std::collections::{BTreeMap, BTreeSet};

use ipam::eni_config::EniConfigAnswer;
use ipam::id::Pod;

pub use client::{Access, Cluster, ConnectError};
pub use events::{About, Queue, Report, Reports, send_events};
pub use following::{SettingsMaps, Wanted, follow};
pub use patching::{NetworkCondition, PatchFault};
pub use pods::follow_pods;

/// Something that the API server has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The ENIConfig of this node.
    EniConfig(EniConfigAnswer),
    /// What the `ConfigMap`s of settings say, both of them. A map that is not there is empty.
    Settings {
        /// For all nodes.
        cluster: BTreeMap<String, String>,
        /// For the group of this node.
        group: BTreeMap<String, String>,
    },
    /// Whether the Node is cordoned. Only changes are told.
    Cordoned(bool),
    /// The pods that are bound to this node, need an address of their own and have not started.
    PodsExpected(BTreeSet<Pod>),
    /// How a part of the work at the API server goes.
    Health {
        /// Which part.
        of: &'static str,
        /// Why it fails; `None` if it works.
        fault: Option<Fault>,
    },
}

/// Why a part of the work at the API server fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In one line.
    pub why: String,
    /// Whether the service account lacks the permission.
    pub is_forbidden: bool,
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self { why, is_forbidden: false }
    }
}
