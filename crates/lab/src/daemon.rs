//! The interface between the simulation and a node's daemon: inputs and commands. There are two
//! daemons: [`tidepool`](crate::tidepool), which runs our engine, and
//! [`incumbent`](crate::incumbent).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use ec2_model::error::ApiError;
use ec2_model::id::EniId;
use ec2_model::request::Request;
use ec2_model::response::Response;
use ipam::time::Timestamp;
use ipnet::Ipv4Net;

/// The time to make a record durable, for both daemons: `fsync` of a small file on an EBS volume.
pub(crate) const FSYNC: Duration = Duration::from_millis(2);

/// One attempt to start a pod. Each attempt has its own sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SandboxId {
    /// The pod's index among all pods.
    pub(crate) pod: usize,
    /// Counts from 1.
    pub(crate) attempt: u32,
}

/// An ENI as IMDS shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataEni {
    pub(crate) id: EniId,
    /// Secondary addresses, without the primary.
    pub(crate) addresses: BTreeSet<Ipv4Net>,
    pub(crate) prefixes: BTreeSet<Ipv4Net>,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The save with this number is durable.
    Saved(u64),
    /// The engine asked to be woken.
    Tick,
    /// A script's sleep, by the script's number, is over.
    Slept(u64),
}

/// An input of a daemon.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// The daemon starts.
    Start,
    /// A sandbox needs an address. Its caller gives up at `deadline`.
    Add { sandbox: SandboxId, deadline: Timestamp },
    /// The pods that are bound to the node and have not started, by their indexes among all pods.
    Bound(BTreeSet<usize>),
    /// The caller of an Add gave up.
    Cancel(SandboxId),
    /// A sandbox has ended.
    Del(SandboxId),
    /// EC2's answer to the call with this tag.
    Reply { tag: u64, result: Result<Box<Response>, ApiError> },
    /// A timer has expired.
    Timer(Timer),
    /// Whether the device of an ENI is there and set up.
    Device { eni: EniId, is_there: bool },
    /// The ENIs in the instance's metadata.
    Metadata { tag: u64, enis: Vec<MetadataEni> },
}

/// A command of a daemon.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Answer an Add after a delay, with an address or an error code.
    Answer { sandbox: SandboxId, answer: Result<Ipv4Addr, &'static str>, after: Duration },
    /// Call EC2, and retry while it throttles or fails.
    Call { tag: u64, request: Box<Request>, retryer: Retryer },
    /// Start a timer.
    Timer { timer: Timer, at: Timestamp },
    /// Report when the device of an ENI is there and set up. `address` is the ENI's primary
    /// address.
    AwaitDevice { eni: EniId, address: Ipv4Addr },
    /// Read the instance's metadata.
    ReadMetadata { tag: u64 },
}

/// The retry settings of the daemon's SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retryer {
    /// Attempts in total, at least 1.
    pub(crate) attempts: u32,
    /// The longest wait before the second attempt. Each further wait is up to twice as long.
    pub(crate) first_wait: Duration,
}

/// A node's daemon.
pub(crate) trait Daemon {
    /// Handles an input and returns the resulting commands.
    fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Command>;

    /// Whether the node is ready for pods.
    fn ready(&self, now: Timestamp) -> bool;
}
