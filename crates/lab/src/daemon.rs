//! The seam between the simulation and a node's daemon: what the one tells, what the other wants
//! done. Two daemons stand behind it: [`tidepool`](crate::tidepool), which is our engine, and
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

/// How long it takes to make a record durable, with either daemon: a small file's `fsync` on an
/// EBS volume.
pub(crate) const FSYNC: Duration = Duration::from_millis(2);

/// One try to start a pod; a pod that is tried again gets another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SandboxId {
    /// The pod's place among all pods.
    pub(crate) pod: usize,
    /// Counts from 1.
    pub(crate) attempt: u32,
}

/// An ENI as the instance's metadata show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataEni {
    pub(crate) id: EniId,
    /// Without the ENI's own address.
    pub(crate) addresses: BTreeSet<Ipv4Net>,
    pub(crate) prefixes: BTreeSet<Ipv4Net>,
}

/// A moment that a daemon waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A save, by its number, is durable.
    Saved(u64),
    /// The daemon wants to look again.
    Tick,
    /// A sleep of a script, by its number, is over.
    Slept(u64),
}

/// What a daemon is told.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// The daemon starts.
    Start,
    /// A sandbox needs an address; the caller goes away at `deadline`.
    Add { sandbox: SandboxId, deadline: Timestamp },
    /// The caller of the Add has gone away.
    Cancel(SandboxId),
    /// A sandbox has gone.
    Del(SandboxId),
    /// What EC2 answered to the call of this tag.
    Reply { tag: u64, result: Result<Box<Response>, ApiError> },
    /// A moment has come.
    Timer(Timer),
    /// Whether the device of an ENI is there and set up, or not there yet.
    Device { eni: EniId, is_there: bool },
    /// What the metadata show.
    Metadata { tag: u64, enis: Vec<MetadataEni> },
}

/// What a daemon wants done.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Answer an Add so much later: with an address, or a code that says why not.
    Answer { sandbox: SandboxId, answer: Result<Ipv4Addr, &'static str>, after: Duration },
    /// Call EC2, again while it throttles or fails.
    Call { tag: u64, request: Box<Request>, retryer: Retryer },
    /// Tell when it is `at`.
    Timer { timer: Timer, at: Timestamp },
    /// Tell when the device of an ENI, known by its own address, is there and set up.
    AwaitDevice { eni: EniId, address: Ipv4Addr },
    /// Read the instance's metadata.
    ReadMetadata { tag: u64 },
}

/// How the daemon's SDK is set to repeat a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retryer {
    /// In all, at least 1.
    pub(crate) attempts: u32,
    /// The longest wait before the second; each further one is up to twice as long.
    pub(crate) first_wait: Duration,
}

/// A node's daemon.
pub(crate) trait Daemon {
    /// Takes something in and says what follows from it.
    fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Command>;

    /// Whether the node may be given pods.
    fn ready(&self, now: Timestamp) -> bool;
}
