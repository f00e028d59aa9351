//! Links that wait for removal: down, without addresses, routes and rules, in a group of their own.
//!
//! The kernel takes some 20 ms to remove a link, and nearly as long to remove a hundred at once. All
//! other changes of the network wait meanwhile. So a DEL only retires its link, and [`sweep`] removes
//! all retired links together. Mostly a link goes before that with its pod's namespace.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rustix::io::Errno;

use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};

/// The group of retired links (`ip link show group 1414087749`); the number is "TIDE" in ASCII. Groups
/// have no registry. The kernel puts links in group 0, and gives no group on to another link. So a link
/// gets into this group only if a program names the number.
pub(crate) const GROUP: u32 = 0x5449_4445;

/// The mark of retired links. It has no slash, so it is no owner's mark of [`crate::Owner`].
pub(crate) const MARK: &str = "tidepool: waits for removal";

/// What [`sweep`] found and did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// The names of the links that were removed.
    pub removed: Vec<String>,
    /// Links of the group that are not ours. They stay, and ours were removed one by one.
    pub foreign: Vec<String>,
}

/// Retired links are left.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    /// The links could not be listed.
    #[error("list the links")]
    List(#[source] KernelError),
    /// The links could not be removed.
    #[error("remove {n} links of group {GROUP}")]
    Remove {
        /// How many wait.
        n: usize,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
}

/// Removes all retired links of the calling thread's namespace, in one request. Any process may do so
/// at any time. Costs a dump of all links, and some 20 to 40 ms of the kernel if there are any.
///
/// # Errors
///
/// [`SweepError`]; then some are left.
pub async fn sweep() -> Result<Swept, SweepError> {
    sweep_over(&Netlink::open().map_err(SweepError::Socket)?).await
}

pub(crate) async fn sweep_over(netlink: &Netlink) -> Result<Swept, SweepError> {
    let links = link::list(netlink).await.map_err(SweepError::List)?;
    let in_group = links.into_iter().filter(|link| link.group == GROUP);
    let (retired, foreign): (Vec<_>, Vec<_>) = in_group.partition(Link::is_retired);
    let removed = remove(netlink, &retired, foreign.is_empty()).await;
    removed.map_err(|source| SweepError::Remove { n: retired.len(), source })?;
    let names = |links: Vec<Link>| links.into_iter().map(|link| link.name).collect();
    Ok(Swept { removed: names(retired), foreign: names(foreign) })
}

/// By the group only if it has no link of somebody else: that one would go too.
async fn remove(netlink: &Netlink, retired: &[Link], whole: bool) -> Result<(), KernelError> {
    match retired {
        [] => Ok(()),
        [_, ..] if whole => remove_group(netlink).await,
        [_, ..] => {
            for link in retired {
                link::delete(netlink, link.index).await?;
            }
            Ok(())
        }
    }
}

/// The links may have gone meanwhile: with their namespaces, or by another sweep.
async fn remove_group(netlink: &Netlink) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(GROUP));
    match netlink.change(RouteNetlinkMessage::DelLink(message), 0).await {
        Err(error) if error.is(Errno::NODEV) => Ok(()),
        other => other,
    }
}

/// Retires link `index`, in one request. It may be gone. The kernel removes the routes over a link that
/// goes down. The name stays: to rename a link, the kernel waits for a grace period too.
pub(crate) async fn retire(netlink: &Netlink, index: u32) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    // Without the flag itself: down.
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::Group(GROUP), LinkAttribute::IfAlias(MARK.to_owned())];
    match netlink.change(RouteNetlinkMessage::SetLink(message), 0).await {
        Err(error) if error.is(Errno::NODEV) => Ok(()),
        other => other,
    }
}
