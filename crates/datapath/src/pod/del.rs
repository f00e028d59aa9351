//! Removes a pod's link from the node, or its `ipvlan` child. The pod's namespace may be gone: no path of it is needed.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

use super::ipvlan::children::{self, Child};
use super::{Goes, PodRemoval, PodRemoved, remove_rules};
use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::netns::Netns;
use crate::retired::{self, SweepError};
use crate::route::{self, Filter};
use crate::{InterfaceName, Removal, RouteTable};

/// Some of a pod's link could not be removed. The rest was.
#[derive(Debug)]
pub struct DelPodError {
    /// Name of the host's end.
    pub host_name: InterfaceName,
    /// Each step that failed; never empty.
    pub failures: Vec<DelPodFailure>,
}

impl fmt::Display for DelPodError {
    /// Has the text of every failure, since a chain of sources holds one only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remove pod link {}", self.host_name)?;
        for (n, failure) in self.failures.iter().enumerate() {
            let separator = if n == 0 { ": " } else { "; " };
            write!(f, "{separator}{failure}")?;
            if let Some(source) = std::error::Error::source(failure) {
                write!(f, ": {source}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for DelPodError {}

/// A step of a removal that failed.
#[derive(Debug, thiserror::Error)]
pub enum DelPodFailure {
    /// The node's netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The host's end could not be looked up by its name or index.
    #[error("look up the link")]
    ReadLink(#[source] KernelError),
    /// The host's end could not be looked up by its mark.
    #[error("list the links")]
    ListLinks(#[source] KernelError),
    /// The `ipvlan` child could not be looked up by its mark.
    #[error("list the ipvlan children in pods' namespaces")]
    ListChildren(#[source] KernelError),
    /// The `ipvlan` child could not be removed.
    #[error("remove the ipvlan child")]
    RemoveChild(#[source] KernelError),
    /// The addresses that are routed to the host's end could not be read.
    #[error("list the routes over the link")]
    ListRoutes(#[source] KernelError),
    /// The route to an address, which tells its present owner, could not be read.
    #[error("look up the route to {address}")]
    ReadRoute {
        /// The address.
        address: IpAddr,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The rules for an address could not be removed.
    #[error("remove the rules for {address}")]
    RemoveRules {
        /// The address.
        address: IpAddr,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The route to an address could not be removed.
    #[error("remove the route to {address}")]
    RemoveRoute {
        /// The address.
        address: IpAddr,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The host's end could not be set down and marked for removal.
    #[error("retire the link")]
    RetireLink(#[source] KernelError),
    /// The links that wait for removal could not be listed.
    #[error("list the retired links")]
    ListRetired(#[source] KernelError),
    /// The links that wait for removal could not be removed.
    #[error("remove the retired links")]
    RemoveRetired(#[source] KernelError),
}

impl From<SweepError> for DelPodFailure {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::Socket(source) => Self::Socket(source),
            SweepError::List(source) => Self::ListRetired(source),
            SweepError::Remove { source, .. } => Self::RemoveRetired(source),
        }
    }
}

/// Removes the rules and routes of a pod's addresses, and the host's end of its link, or retires that
/// end. It may be repeated.
///
/// 1. The owner's mark decides which link it is, whatever the link's name. Where no link has the mark, an `ipvlan`
///    child may have it. Only where neither has it, it is the link of that name, if that one has no mark.
/// 2. A link with another owner's mark belongs to a newer sandbox, and stays.
/// 3. An address that is routed to another link belongs to another pod now, and stays too.
///
/// Costs a dump of all links if the link of that name does not have the mark, and another one if the
/// link goes now. If no link has the mark, it costs a dump for each namespace that has a number too. A child goes at
/// once, which takes the kernel some 20 ms.
///
/// # Errors
///
/// [`DelPodError`] with all steps that failed. Every other step was done.
pub async fn del(removal: &PodRemoval) -> Result<PodRemoved, DelPodError> {
    let mut failures = Vec::new();
    let done = match Netlink::open() {
        Ok(netlink) => {
            let link = find(&netlink, removal, &mut failures).await;
            remove(&netlink, removal, &link, &mut failures).await
        }
        Err(error) => {
            failures.push(DelPodFailure::Socket(error));
            PodRemoved { link: Removal::Absent, addresses: Vec::new() }
        }
    };
    remove_source_rules(removal, &done, &mut failures).await;
    result(removal, done, failures)
}

/// As [`del`], for the link with this index. Another link of the owner stays, and its addresses too.
pub(super) async fn undo(
    netlink: &Netlink,
    removal: &PodRemoval,
    index: u32,
) -> Result<PodRemoved, DelPodError> {
    let mut failures = Vec::new();
    let link = link::by_index(netlink, index).await.unwrap_or_else(|error| {
        failures.push(DelPodFailure::ReadLink(error));
        None
    });
    let link = link.map_or(Found::Absent, Found::Ours);
    let done = remove(netlink, removal, &link, &mut failures).await;
    remove_source_rules(removal, &done, &mut failures).await;
    result(removal, done, failures)
}

/// Rules in the pod's namespace outlive the link. Without that namespace there are none.
async fn remove_source_rules(
    removal: &PodRemoval,
    done: &PodRemoved,
    failures: &mut Vec<DelPodFailure>,
) {
    let Some(Ok(netns)) = removal.netns.as_deref().map(Netns::open) else { return };
    // Rules of the node are not the pod's.
    let is_own = Netns::current().and_then(|own| netns.is_same(&own));
    let (Ok(false), Ok(pod)) = (is_own, netns.netlink()) else { return };
    for (address, _) in &done.addresses {
        if let Err(source) = super::remove_source_rules(&pod, *address).await {
            failures.push(DelPodFailure::RemoveRules { address: *address, source });
        }
    }
}

fn result(
    removal: &PodRemoval,
    done: PodRemoved,
    failures: Vec<DelPodFailure>,
) -> Result<PodRemoved, DelPodError> {
    if failures.is_empty() {
        Ok(done)
    } else {
        Err(DelPodError { host_name: removal.host_name.clone(), failures })
    }
}

async fn remove(
    netlink: &Netlink,
    removal: &PodRemoval,
    link: &Found,
    failures: &mut Vec<DelPodFailure>,
) -> PodRemoved {
    let ours = link.ours();
    let mut addresses = Vec::new();
    for address in addresses_of(netlink, removal, ours, failures).await {
        match remove_address(netlink, address, ours).await {
            Ok(removed) => addresses.push((address, removed)),
            Err(failure) => failures.push(failure),
        }
    }
    let was_there = retire(netlink, link, failures).await;
    if removal.goes == Goes::Now {
        let swept = retired::sweep_over(netlink).await;
        failures.extend(swept.err().map(DelPodFailure::from));
    }
    PodRemoved { link: was_there, addresses }
}

/// The host's end, as far as it exists.
enum Found {
    Ours(Link),
    /// The owner's children; never empty.
    Children(Vec<Child>),
    /// Another owner has the name.
    NotOurs,
    Absent,
}

impl Found {
    fn ours(&self) -> Option<&Link> {
        match self {
            Found::Ours(link) => Some(link),
            Found::Children(_) | Found::NotOurs | Found::Absent => None,
        }
    }
}

async fn find(netlink: &Netlink, removal: &PodRemoval, failures: &mut Vec<DelPodFailure>) -> Found {
    let named = link::by_name(netlink, removal.host_name.as_str()).await;
    let named = named.unwrap_or_else(|error| {
        failures.push(DelPodFailure::ReadLink(error));
        None
    });
    if let Some(link) = named.clone().filter(|link| link.is_of(&removal.owner)) {
        return Found::Ours(link);
    }
    let links = link::list(netlink).await.unwrap_or_else(|error| {
        failures.push(DelPodFailure::ListLinks(error));
        Vec::new()
    });
    if let Some(link) = links.into_iter().find(|link| link.is_of(&removal.owner)) {
        return Found::Ours(link);
    }
    let children = children::of(netlink, &removal.owner).await.unwrap_or_else(|error| {
        failures.push(DelPodFailure::ListChildren(error));
        Vec::new()
    });
    match named {
        _ if !children.is_empty() => Found::Children(children),
        // amazon-vpc-cni-k8s sets no mark.
        Some(link) if link.is_veth && link.owner.is_none() => Found::Ours(link),
        Some(link) if link.is_retired() => Found::Absent,
        Some(_) => Found::NotOurs,
        None => Found::Absent,
    }
}

/// The addresses given, or else the addresses that are routed to the link.
async fn addresses_of(
    netlink: &Netlink,
    removal: &PodRemoval,
    ours: Option<&Link>,
    failures: &mut Vec<DelPodFailure>,
) -> Vec<IpAddr> {
    let Some(link) = ours.filter(|_| removal.addresses.is_empty()) else {
        return removal.addresses.clone();
    };
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let filter = Filter { family, table: RouteTable::MAIN, device: Some(link.index) };
        match route::list(netlink, filter).await {
            Ok(routes) => found.extend(routes),
            Err(error) => failures.push(DelPodFailure::ListRoutes(error)),
        }
    }
    let is_single = |net: &ipnet::IpNet| net.prefix_len() == net.max_prefix_len();
    found
        .into_iter()
        .map(|route| route.destination)
        .filter(is_single)
        .map(|net| net.addr())
        .collect()
}

async fn remove_address(
    netlink: &Netlink,
    address: IpAddr,
    ours: Option<&Link>,
) -> Result<Removal, DelPodFailure> {
    let route = route::to_host(netlink, address)
        .await
        .map_err(|source| DelPodFailure::ReadRoute { address, source })?;
    if route.as_ref().is_some_and(|route| ours.is_none_or(|link| link.index != route.device)) {
        return Ok(Removal::NotOurs);
    }
    let rules = remove_rules(netlink, address)
        .await
        .map_err(|source| DelPodFailure::RemoveRules { address, source })?;
    failpoint::pass("unlink", "unruled");
    if let Some(route) = &route {
        route::remove(netlink, route)
            .await
            .map_err(|source| DelPodFailure::RemoveRoute { address, source })?;
    }
    failpoint::pass("unlink", "unrouted");
    Ok(if rules == 0 && route.is_none() { Removal::Absent } else { Removal::Removed })
}

async fn retire(netlink: &Netlink, link: &Found, failures: &mut Vec<DelPodFailure>) -> Removal {
    match link {
        Found::Absent => Removal::Absent,
        Found::NotOurs => Removal::NotOurs,
        Found::Children(children) => {
            for child in children {
                if let Err(error) = child.remove(netlink).await {
                    failures.push(DelPodFailure::RemoveChild(error));
                }
            }
            Removal::Removed
        }
        Found::Ours(link) => {
            if let Err(error) = retired::retire(netlink, link.index).await {
                failures.push(DelPodFailure::RetireLink(error));
            }
            failpoint::pass("unlink", "retired");
            Removal::Removed
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn del_error_text_names_every_failure() {
        let source = || KernelError::Refused { errno: Errno::PERM, explanation: None };
        let error = DelPodError {
            host_name: "eni0".parse().unwrap(),
            failures: vec![
                DelPodFailure::RemoveRules {
                    address: IpAddr::from([10, 0, 2, 20]),
                    source: source(),
                },
                DelPodFailure::RetireLink(source()),
            ],
        };
        assert_eq!(
            error.to_string(),
            "remove pod link eni0: remove the rules for 10.0.2.20: Operation not permitted (os error \
             1); retire the link: Operation not permitted (os error 1)"
        );
    }
}
