//! What the kernel says of the pods on this node, whoever connected them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

use crate::RouteTable;
use crate::link;
use crate::netlink::{KernelError, Netlink};
use crate::route::{self, Filter, Route};

/// The host's end of a pod's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLink {
    /// Its name.
    pub name: String,
    /// Its mark, see [`crate::Owner`]; `None` for the links of amazon-vpc-cni-k8s.
    pub owner: Option<String>,
    /// The addresses that are routed to it; it has a mark if there are none.
    pub addresses: BTreeSet<IpAddr>,
}

/// The kernel could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The links could not be listed.
    #[error("list the links")]
    Links(#[source] KernelError),
    /// The routes could not be listed.
    #[error("list the routes of the main table")]
    Routes(#[source] KernelError),
}

/// All veths to which the main table routes single addresses, and those that bear a mark.
///
/// The name does not matter: whoever has routed an address to a veth has a pod there, and giving
/// that address to another pod would take it away. Costs three dumps, however many pods there are.
///
/// # Errors
///
/// [`SeenError`]; then nothing is known.
pub async fn seen() -> Result<Vec<SeenLink>, SeenError> {
    let netlink = Netlink::open().map_err(SeenError::Socket)?;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let filter = Filter { family, table: RouteTable::MAIN, device: None };
        routes.extend(route::list(&netlink, filter).await.map_err(SeenError::Routes)?);
    }
    // The links come last, so that those of all routes are among them: a link that has gone
    // meanwhile has taken its routes along.
    let links = link::list(&netlink).await.map_err(SeenError::Links)?;
    let pods = links.into_iter().filter(|link| link.is_veth).map(|link| SeenLink {
        addresses: routes.iter().filter_map(|route| alone(route, link.index)).collect(),
        name: link.name,
        owner: link.owner,
    });
    Ok(pods.filter(|link| link.owner.is_some() || !link.addresses.is_empty()).collect())
}

/// The single address that `route` leads to on the link `device` itself, if it is such a route.
fn alone(route: &Route, device: u32) -> Option<IpAddr> {
    let net = route.destination;
    let is_alone = net.prefix_len() == net.max_prefix_len();
    (is_alone && route.gateway.is_none() && route.device == device).then(|| net.addr())
}
