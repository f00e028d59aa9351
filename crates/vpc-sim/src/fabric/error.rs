//! Errors: one enum for a single step on the kernel, and one error for each operation of a fabric.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::Report;
use super::netns::NetnsName;

/// The name is not a valid name of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "network namespace name {0:?} is not 1 to 64 letters, digits, '-', '_' and '.': choose another"
)]
pub struct NameError(pub String);

/// Why one step on the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A namespace or file of this name already exists.
    #[error("{path:?} exists already: remove it or choose another name")]
    Exists {
        /// The file in the way.
        path: PathBuf,
    },
    /// The file of this name is not a network namespace, perhaps left by a failed `ip netns add`.
    #[error("{path:?} is not a network namespace: remove it or choose another name")]
    NotANamespace {
        /// The file in the way.
        path: PathBuf,
    },
    /// `/run/netns` could not be read, or made and shared among mount namespaces.
    #[error("prepare /run/netns for named network namespaces")]
    Directory(#[source] io::Error),
    /// A file of `/run/netns` could not be opened, mounted on or removed.
    #[error("use {path:?} for a network namespace")]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to make a namespace.
    #[error("make a network namespace")]
    Make(#[source] io::Error),
    /// The thread could not enter the namespace.
    #[error("enter a network namespace")]
    Enter(#[source] io::Error),
    /// The lock of the namespace could not be tried.
    #[error("claim a network namespace")]
    Claim(#[source] io::Error),
    /// The kernel refused the value or does not have the setting.
    #[error("write /proc/sys/net/{path}")]
    Sysctl {
        /// Path below `/proc/sys/net`.
        path: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The socket of the router's advertisements could not be opened or used.
    #[error("advertise the router over ICMPv6")]
    Advertise(#[source] io::Error),
    /// The netlink socket could not be opened.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    /// A netlink dump ended early.
    #[error("read {what}")]
    Read {
        /// For example `routes`.
        what: &'static str,
        /// The kernel's error.
        #[source]
        source: rtnetlink::Error,
    },
    /// `nft` could not be run.
    #[error("run nft for routes out of a VPC: install nftables")]
    Nft(#[source] io::Error),
    /// `nft` refused the rules of route tables.
    #[error("apply the rules of route tables with nft: {0}")]
    Rules(String),
    /// The kernel refused a change over netlink.
    #[error("{change}")]
    Change {
        /// The change and its object.
        change: String,
        /// The kernel's error.
        #[source]
        source: rtnetlink::Error,
    },
}

/// Why the fabric cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process may not make namespaces.
    #[error("the fabric needs root: start as root, or without a fabric to serve the APIs alone")]
    NotRoot,
    /// A live process has a fabric of this name.
    #[error("fabric {0} is in use by another process: choose another name for this one")]
    InUse(NetnsName),
    /// A namespace of this name exists, and no fabric made it.
    #[error("network namespace {0} is not a fabric: remove it or choose another name")]
    NotOurs(NetnsName),
    /// The remains of a crashed fabric could not be removed.
    #[error("remove what an earlier fabric left")]
    Stale(#[source] StopError),
    /// The new fabric could not be set up. The kernel must have IPv6.
    #[error("set up the fabric")]
    SetUp(#[from] KernelError),
}

/// Why the kernel does not match the snapshot. All other changes were made. The next sync retries.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Some ENIs have no device. All others match.
    #[error("attach all ENIs of the snapshot ({} failed besides this one)", .others.len())]
    Attach {
        /// The first failure, in the order of the snapshot.
        #[source]
        first: Box<AttachError>,
        /// The other failures, in the same order.
        others: Vec<AttachError>,
        /// The changes that were made.
        report: Report,
    },
    /// The fabric could not be read or changed.
    #[error("make the fabric match the snapshot")]
    Fabric(#[from] KernelError),
}

/// Why an ENI has no device.
#[derive(Debug, thiserror::Error)]
#[error("attach {eni} to {netns} as {device}")]
pub struct AttachError {
    /// The ENI's id.
    pub eni: String,
    /// The instance's namespace.
    pub netns: NetnsName,
    /// The device's name there.
    pub device: String,
    /// The step that failed.
    pub source: KernelError,
}

/// Why no listener could be opened in the fabric.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The fabric could not be entered.
    #[error("listen in the fabric")]
    Enter(#[from] KernelError),
    /// The address is taken or not the fabric's.
    #[error("listen on {address} in the fabric")]
    Bind {
        /// The requested address.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// What could not be removed. The rest was removed.
#[derive(Debug, thiserror::Error)]
#[error("remove all of the fabric ({} steps failed besides this one)", .others.len())]
pub struct StopError {
    /// The first failure, in the order of removal.
    #[source]
    pub first: KernelError,
    /// The other failures, in the same order.
    pub others: Vec<KernelError>,
}

impl StopError {
    /// Fails if there is an error.
    pub(super) fn check(errors: Vec<KernelError>) -> Result<(), Self> {
        let mut errors = errors.into_iter();
        match errors.next() {
            Some(first) => Err(Self { first, others: errors.collect() }),
            None => Ok(()),
        }
    }
}
