//! The host ends of all pods' links on this node, of any plugin, and the `ipvlan` children of its devices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

use super::ipvlan::children;
use crate::RouteTable;
use crate::link;
use crate::netlink::{KernelError, Netlink};
use crate::route::{self, Filter, Route};

/// The host's end of a pod's link, or a pod's `ipvlan` child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Its name. For an `ipvlan` child, one that no link of the node has.
    pub name: String,
    /// Its mark, see [`crate::Owner`]. `None` for links of amazon-vpc-cni-k8s.
    pub owner: Option<String>,
    /// The addresses that are routed to it, or that the child has; may be empty if it has a mark.
    pub addresses: BTreeSet<IpAddr>,
}

/// The kernel could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostLinksError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The links could not be listed.
    #[error("list the links")]
    Links(#[source] KernelError),
    /// The routes could not be listed.
    #[error("list the routes of the main table")]
    Routes(#[source] KernelError),
    /// The `ipvlan` children could not be listed.
    #[error("list the ipvlan children in pods' namespaces")]
    Children(#[source] KernelError),
}

/// All veths to which the main table routes single addresses, all veths with a mark, and the `ipvlan` children of the
/// node's devices in other namespaces.
///
/// The name does not matter. An address that is routed to a veth belongs to a pod there, and another
/// pod with the same address would cut that pod off. So would one with the address of a child. Retired links are left
/// out. Costs four dumps, and one for each namespace that has a number.
///
/// # Errors
///
/// [`HostLinksError`] if a list cannot be read.
pub async fn host_links() -> Result<Vec<HostLink>, HostLinksError> {
    let netlink = Netlink::open().map_err(HostLinksError::Socket)?;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let filter = Filter { family, table: RouteTable::MAIN, device: None };
        routes.extend(route::list(&netlink, filter).await.map_err(HostLinksError::Routes)?);
    }
    // The links are listed last, so that the list has the link of every route: a link that goes
    // meanwhile takes its routes along.
    let links = link::list(&netlink).await.map_err(HostLinksError::Links)?;
    let pods = links.into_iter().filter(|link| link.is_veth && !link.is_retired());
    let pods = pods.map(|link| HostLink {
        addresses: routes.iter().filter_map(|route| single_address(route, link.index)).collect(),
        name: link.name,
        owner: link.owner,
    });
    let children = of_children(&netlink).await.map_err(HostLinksError::Children)?;
    let all = pods.chain(children);
    Ok(all.filter(|link| link.owner.is_some() || !link.addresses.is_empty()).collect())
}

async fn of_children(netlink: &Netlink) -> Result<Vec<HostLink>, KernelError> {
    let mut links = Vec::new();
    for child in children::list(netlink).await? {
        let (name, owner) = (child.label(), child.mark().map(str::to_owned));
        links.push(HostLink { name, owner, addresses: child.addresses(netlink).await? });
    }
    Ok(links)
}

/// The address that `route` leads to, if that is one address, directly on the link `device`.
fn single_address(route: &Route, device: u32) -> Option<IpAddr> {
    let net = route.destination;
    let is_single = net.prefix_len() == net.max_prefix_len();
    (is_single && route.gateway.is_none() && route.device == device).then(|| net.addr())
}
