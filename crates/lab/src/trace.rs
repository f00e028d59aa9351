//! The load on a cluster: pods that are created and deleted, nodes that join and leave.
//!
//! A pod goes to the ready node with the fewest pods, and of several such nodes to the oldest.
//! While no node has a place, pods wait in the order of their creation.

mod csv;
mod shapes;

use std::time::Duration;

pub use self::csv::{CsvError, parse_csv};
pub use self::shapes::{
    batch_jobs, burst, churn, heavy_tailed, joining, node_replacement, one_per, rolling_deployment,
    scale_in, varying,
};

/// One event of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceStep {
    /// Time since the start of the trace.
    pub at: Duration,
    /// The event.
    pub action: TraceAction,
}

/// The events of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceAction {
    /// Pods are created.
    Create {
        /// How many.
        pods: u32,
        /// The pod's life from its address on. `None` for pods that stay.
        life: Option<Duration>,
    },
    /// Some staying pods are deleted, chosen at random.
    Delete {
        /// How many; all pods if there are fewer.
        pods: u32,
    },
    /// Every staying pod is replaced: once a new one has its address, an old one is deleted and
    /// another new one is created.
    Roll {
        /// How many pods are created in advance.
        surge: u32,
    },
    /// Nodes start.
    Join {
        /// How many.
        nodes: u32,
    },
    /// The oldest nodes are drained: they get no more pods, and their pods are deleted and, if
    /// staying, created again. Their instances end half a minute later.
    Drain {
        /// How many; the last node is never drained.
        nodes: u32,
    },
    /// Others take addresses of a subnet.
    Occupy {
        /// The index in [`VpcSpec::subnets`](crate::spec::VpcSpec::subnets).
        subnet: usize,
        /// How many; all that are free if there are fewer.
        addresses: u32,
    },
    /// Others release their addresses of a subnet.
    Vacate {
        /// The index in [`VpcSpec::subnets`](crate::spec::VpcSpec::subnets).
        subnet: usize,
    },
}

/// All events, ascending by time.
pub type Trace = Vec<TraceStep>;
