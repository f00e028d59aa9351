//! What happens to a cluster from outside: pods that are made and deleted, nodes that come and go.
//!
//! A pod is scheduled to the ready node with the fewest pods, of those with equally many the
//! oldest; while no node has a place, it waits, first come first served.

mod csv;
mod shapes;

use std::time::Duration;

pub use self::csv::{CsvError, parse_csv};
pub use self::shapes::{
    batch_jobs, burst, churn, joining, node_replacement, one_per, rolling_deployment, scale_in,
};

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceStep {
    /// So long after the start of the trace.
    pub at: Duration,
    /// What.
    pub action: TraceAction,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceAction {
    /// So many pods are made.
    Create {
        /// How many.
        pods: u32,
        /// From its address to its end; `None` for pods that stay.
        life: Option<Duration>,
    },
    /// So many of the pods that stay are deleted, chosen at random.
    Delete {
        /// How many; all if there are fewer.
        pods: u32,
    },
    /// Every pod that stays is replaced: when a new one has its address, an old one goes and
    /// another new one is made.
    Roll {
        /// How many are made beyond those there are.
        surge: u32,
    },
    /// So many nodes are started.
    Join {
        /// How many.
        nodes: u32,
    },
    /// The oldest nodes get no pods any more; theirs are deleted, and made again if they stay.
    /// Half a minute later the instances end.
    Drain {
        /// How many; never the last one.
        nodes: u32,
    },
    /// Others take addresses of a subnet.
    Occupy {
        /// Its place in the world's list.
        subnet: usize,
        /// How many; all if there are fewer.
        addresses: u32,
    },
    /// Others give back what they took of a subnet.
    Vacate {
        /// Its place in the world's list.
        subnet: usize,
    },
}

/// All that happens, ascending by time.
pub type Trace = Vec<TraceStep>;
