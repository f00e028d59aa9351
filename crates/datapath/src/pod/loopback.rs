//! The interface `lo` of a pod's namespace, which a new namespace has and which is down at first.

use std::path::PathBuf;

use crate::link;
use crate::netlink::KernelError;
use crate::netns::{Netns, NetnsError};

/// Index of `lo` in every namespace (the kernel's `LOOPBACK_IFINDEX`).
pub(super) const INDEX: u32 = 1;

/// `lo` could not be set up or read.
#[derive(Debug, thiserror::Error)]
pub enum LoopbackError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refuses.
    #[error("{step} lo in {}", netns.display())]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// Path of the namespace.
        netns: PathBuf,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
}

/// Sets `lo` up. The kernel gives it its addresses then.
///
/// # Errors
///
/// [`LoopbackError`].
pub async fn raise_loopback(netns: &Netns) -> Result<(), LoopbackError> {
    let netlink = netns.netlink()?;
    link::set_up(&netlink, INDEX).await.map_err(refused("set up", netns))
}

/// Whether `lo` is up.
///
/// # Errors
///
/// [`LoopbackError`].
pub async fn loopback_is_up(netns: &Netns) -> Result<bool, LoopbackError> {
    let netlink = netns.netlink()?;
    let lo = link::by_index(&netlink, INDEX).await.map_err(refused("read", netns))?;
    Ok(lo.is_some_and(|lo| lo.up))
}

fn refused(step: &'static str, netns: &Netns) -> impl FnOnce(KernelError) -> LoopbackError {
    let netns = netns.path().to_owned();
    move |source| LoopbackError::Kernel { step, netns, source }
}
