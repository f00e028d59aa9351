//! All `ipvlan` children of the node's devices, in whatever namespace they are. The kernel's numbers lead to the
//! namespaces, so no path of a pod's namespace is needed, and nothing of a child is left on the node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::link::IpVlanMode;

use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::{Owner, address, nsid};

/// A child in another namespace than the node's.
#[derive(Debug)]
pub(in crate::pod) struct Child {
    nsid: i32,
    link: Link,
}

impl Child {
    /// A name for people. No link of the node has it.
    pub(in crate::pod) fn label(&self) -> String {
        format!("ipvlan@{}", self.nsid)
    }

    /// Its alias.
    pub(in crate::pod) fn mark(&self) -> Option<&str> {
        self.link.owner.as_deref()
    }

    /// Its addresses; empty if it has gone.
    pub(in crate::pod) async fn addresses(
        &self,
        netlink: &Netlink,
    ) -> Result<BTreeSet<IpAddr>, KernelError> {
        match address::list_in(netlink, self.nsid, self.link.index).await {
            Ok(found) => Ok(found.iter().map(ipnet::IpNet::addr).collect()),
            Err(error) if nsid::is_gone(&error) || link::is_gone(&error) => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }

    /// Removes it. It may be gone.
    pub(in crate::pod) async fn remove(&self, netlink: &Netlink) -> Result<(), KernelError> {
        link::delete_in(netlink, self.nsid, self.link.index).await
    }
}

/// All children. Costs a list of links for each namespace that has a number.
pub(in crate::pod) async fn list(netlink: &Netlink) -> Result<Vec<Child>, KernelError> {
    let mut found = Vec::new();
    for nsid in nsid::list(netlink).await? {
        match link::list_in(netlink, nsid).await {
            Ok(links) => found.extend(links.into_iter().map(|link| Child { nsid, link })),
            Err(error) if nsid::is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    found.retain(|child| child.link.ipvlan.is_some());
    if found.is_empty() {
        return Ok(found);
    }
    // A pod may have children of its own links.
    let node = nsid::own(netlink).await?;
    found.retain(|child| node.is_some() && child.link.peer_nsid == node);
    Ok(found)
}

/// One child of the device with index `parent`, of whatever program; the node's own namespace comes first. Costs lists
/// of links until one is found.
pub(super) async fn first_of(
    netlink: &Netlink,
    parent: u32,
) -> Result<Option<(String, IpVlanMode)>, KernelError> {
    let find = |links: Vec<Link>, node: Option<i32>| {
        let is_of = |link: &Link| link.peer == Some(parent) && link.peer_nsid == node;
        let mut children = links.into_iter().filter(is_of);
        children.find_map(|link| Some((link.name, link.ipvlan?)))
    };
    if let Some(child) = find(link::list(netlink).await?, None) {
        return Ok(Some(child));
    }
    let Some(node) = nsid::own(netlink).await? else { return Ok(None) };
    for nsid in nsid::list(netlink).await? {
        match link::list_in(netlink, nsid).await {
            Ok(links) => {
                if let Some(child) = find(links, Some(node)) {
                    return Ok(Some(child));
                }
            }
            Err(error) if nsid::is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The owner's children: one, or one more that an ADD has left before it was named.
pub(in crate::pod) async fn of(
    netlink: &Netlink,
    owner: &Owner,
) -> Result<Vec<Child>, KernelError> {
    let mut children = list(netlink).await?;
    children.retain(|child| is_of(&child.link, owner));
    Ok(children)
}

/// Whether this is a child of the owner: by its mark, or, as long as it has none, by its first name.
pub(super) fn is_of(link: &Link, owner: &Owner) -> bool {
    let by_name = || link.name == owner.first_name();
    link.ipvlan.is_some() && link.owner.as_ref().map_or_else(by_name, |mark| mark == owner.as_str())
}
