//! What can go wrong: one enum for a single step on the kernel, and one error for each thing that
//! a fabric is asked to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::Report;
use super::netns::NetnsName;

/// The name cannot be that of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "network namespace name {0:?} is not 1 to 64 letters, digits, '-', '_' and '.': choose another"
)]
pub struct NameError(pub String);

/// Why one step on the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// There is a namespace or a file of this name already.
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
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel makes no new namespace for us.
    #[error("make a network namespace")]
    Make(#[source] io::Error),
    /// The thread could not go into the namespace.
    #[error("enter a network namespace")]
    Enter(#[source] io::Error),
    /// Whether another process holds the namespace could not be found out.
    #[error("claim a network namespace")]
    Claim(#[source] io::Error),
    /// The kernel refused the value or does not have the setting.
    #[error("write /proc/sys/net/{path}")]
    Sysctl {
        /// Below `/proc/sys/net`.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No netlink socket.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    /// A netlink dump ended early.
    #[error("read {what}")]
    Read {
        /// Such as `routes`.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// A change over netlink was refused.
    #[error("{change}")]
    Change {
        /// What was tried and on what.
        change: String,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
}

/// Why there is no fabric.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process may not make namespaces.
    #[error("the fabric needs root: start as root, or without a fabric to serve the APIs alone")]
    NotRoot,
    /// A live process has a fabric of this name.
    #[error("fabric {0} is in use by another process: choose another name for this one")]
    InUse(NetnsName),
    /// There is a namespace of this name that no fabric has left.
    #[error("network namespace {0} is not a fabric: remove it or choose another name")]
    NotOurs(NetnsName),
    /// What a predecessor has left could not be removed.
    #[error("remove what an earlier fabric left")]
    Stale(#[source] StopError),
    /// The new fabric could not be set up. The kernel must have IPv6.
    #[error("set up the fabric")]
    SetUp(#[from] KernelError),
}

/// Why the kernel does not match the snapshot. What could be done was done; the next call tries the
/// rest again.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Some ENIs have no device, all others are as they should be.
    #[error("attach all ENIs of the picture ({} failed besides this one)", .others.len())]
    Attach {
        /// The first in the order of the snapshot.
        #[source]
        first: Box<AttachError>,
        /// The rest, in the same order.
        others: Vec<AttachError>,
        /// What was changed all the same.
        report: Report,
    },
    /// The fabric could not be read or changed.
    #[error("make the fabric match the picture")]
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
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What could not be removed; the rest was.
#[derive(Debug, thiserror::Error)]
#[error("remove all of the fabric ({} steps failed besides this one)", .others.len())]
pub struct StopError {
    /// In the order in which they were tried.
    #[source]
    pub first: KernelError,
    /// The rest, in the same order.
    pub others: Vec<KernelError>,
}

impl StopError {
    /// Fails if there is any error.
    pub(super) fn check(errors: Vec<KernelError>) -> Result<(), Self> {
        let mut errors = errors.into_iter();
        match errors.next() {
            Some(first) => Err(Self { first, others: errors.collect() }),
            None => Ok(()),
        }
    }
}
