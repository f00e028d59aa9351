//! Compares a pod's link with what was made. Changes nothing.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;

use super::add::{WITHOUT_IPV6, ipv6_is_off};
use super::objects::{self, LinkObjects, all};
use super::{ParentError, PodExpectation, PodIpv6};
use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::netns::{Netns, NetnsError};
use crate::route::{self, Filter};
use crate::{
    InterfaceName, MacAddr, Neighbour, Owner, Route, RouteTable, Rule, SysctlReadError, address,
    neighbour, rule, sysctl,
};

/// The first difference between a pod's link and what was made, or why they were not compared.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The pod's namespace cannot be used.
    #[error("use the pod's network namespace")]
    Netns(#[source] NetnsError),
    /// The node's netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// Something could not be read.
    #[error("read {what}")]
    Read {
        /// The list or object.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The pod's end is gone.
    #[error("interface {ifname} is not in {}", netns.display())]
    NoInterface {
        /// Its name.
        ifname: InterfaceName,
        /// Path of the pod's namespace.
        netns: PathBuf,
    },
    /// The host's end is gone.
    #[error("link {host_name} is not on the node")]
    NoHostLink {
        /// Its name.
        host_name: InterfaceName,
    },
    /// The host's end bears another owner's mark, or the two links are not a pair.
    #[error("link {host_name} is not {owner}'s")]
    NotOurs {
        /// Its name.
        host_name: InterfaceName,
        /// The expected owner.
        owner: Owner,
    },
    /// The pod's interface is not the owner's `ipvlan` child.
    #[error("{ifname} is not the ipvlan child of {owner}")]
    NoChild {
        /// Its name.
        ifname: InterfaceName,
        /// The expected owner.
        owner: Owner,
    },
    /// What a child of the address's ENI needs was not found.
    #[error(transparent)]
    Parent(#[from] ParentError),
    /// The child is another device's.
    #[error("{ifname} is no child of {device}, which has the pod's address")]
    OtherParent {
        /// Its name.
        ifname: InterfaceName,
        /// The device of the address's ENI.
        device: String,
    },
    /// The child's mode is another one. All children of a device have the mode of the last one that was made.
    #[error("{ifname} is in mode {found}, not {expected}")]
    Mode {
        /// Its name.
        ifname: InterfaceName,
        /// The configured one.
        expected: String,
        /// The kernel's.
        found: String,
    },
    /// The node cannot find the pod's child: the namespace has no number.
    #[error("the kernel has no number for {}", netns.display())]
    NoNumber {
        /// Path of the pod's namespace.
        netns: PathBuf,
    },
    /// An end was set down.
    #[error("{name} is down")]
    Down {
        /// Its name.
        name: InterfaceName,
    },
    /// The pod's end has another hardware address.
    #[error("{name} has hardware address {found}, not {expected}")]
    Mac {
        /// Its name.
        name: InterfaceName,
        /// The recorded one.
        expected: MacAddr,
        /// The kernel's.
        found: MacAddr,
    },
    /// An end has another MTU.
    #[error("{name} has MTU {found}, not {expected}")]
    Mtu {
        /// Its name.
        name: InterfaceName,
        /// The recorded one, in bytes.
        expected: u32,
        /// The kernel's, in bytes.
        found: u32,
    },
    /// The pod's end lacks an address.
    #[error("{device} has no address {address}")]
    NoAddress {
        /// The pod's end.
        device: InterfaceName,
        /// The address.
        address: IpNet,
    },
    /// A route in the pod's namespace is gone or changed.
    #[error("the pod has no route {route} dev {device}")]
    NoRoute {
        /// The route.
        route: Route,
        /// The pod's end.
        device: InterfaceName,
    },
    /// The rule that sends packets from a further interface's address by that interface is gone.
    #[error("the pod has no rule {rule}")]
    NoPodRule {
        /// The rule.
        rule: Rule,
    },
    /// Whether IPv6 is on could not be read.
    #[error("read whether the pod has IPv6")]
    Sysctl(#[source] SysctlReadError),
    /// IPv6 was switched off, and is on again.
    #[error("the pod has IPv6 again: net.ipv6.conf.{interfaces}.disable_ipv6 is not 1")]
    Ipv6On {
        /// An interface's name, or `all` or `default`.
        interfaces: String,
    },
    /// The neighbour entry that ties the gateway to the host's end is gone or changed.
    #[error("the pod has no neighbour {neighbour} dev {device}")]
    NoNeighbour {
        /// The entry.
        neighbour: Neighbour,
        /// The pod's end.
        device: InterfaceName,
    },
    /// The node's route to the pod is gone or changed.
    #[error("the node has no route {route} dev {device}")]
    NoHostRoute {
        /// The route.
        route: Route,
        /// The host's end.
        device: InterfaceName,
    },
    /// The host itself has the pod's address, so packets to the pod end at the host.
    #[error("the host itself has the pod's address {address}")]
    OnHost {
        /// The address.
        address: IpAddr,
    },
    /// A rule for the pod is gone.
    #[error("the node has no rule {rule}")]
    NoRule {
        /// The rule.
        rule: Rule,
    },
    /// A rule at the priority of ours sends the pod's packets elsewhere.
    #[error("the node has a rule {rule}")]
    StrayRule {
        /// The rule.
        rule: Rule,
    },
}

/// Compares a pod's link with what was made. Additions by others are no difference: further
/// addresses, routes and neighbours, traffic control, sysctls.
///
/// Costs as much as the node has rules.
///
/// # Errors
///
/// [`CheckError`], the first difference.
pub async fn check(expected: &PodExpectation) -> Result<(), CheckError> {
    let netns = Netns::open(&expected.netns).map_err(CheckError::Netns)?;
    let pod_side = netns.netlink().map_err(CheckError::Netns)?;
    let host_side = Netlink::open().map_err(CheckError::Socket)?;
    let (host, pod) = check_links(expected, &host_side, &pod_side).await?;
    let PodExpectation { addresses, node_local, routes, .. } = expected;
    let objects = LinkObjects::of(addresses, *node_local, (&host, &pod), *routes);
    check_pod(expected, &pod_side, &pod, &objects).await?;
    check_ipv6(expected, &netns)?;
    check_host(expected, &host_side, &host, &objects).await
}

async fn check_links(
    expected: &PodExpectation,
    host_side: &Netlink,
    pod_side: &Netlink,
) -> Result<(Link, Link), CheckError> {
    let PodExpectation { netns, ifname, host_name, owner, mac, .. } = expected;
    let read = read("a link");
    let pod = link::by_name(pod_side, ifname.as_str())
        .await
        .map_err(read)?
        .ok_or_else(|| CheckError::NoInterface { ifname: ifname.clone(), netns: netns.clone() })?;
    let host = link::by_name(host_side, host_name.as_str())
        .await
        .map_err(read)?
        .ok_or_else(|| CheckError::NoHostLink { host_name: host_name.clone() })?;
    let marked_by_other = host.owner.as_deref().is_some_and(|mark| mark != owner.as_str());
    if marked_by_other || pod.peer != Some(host.index) {
        return Err(CheckError::NotOurs { host_name: host_name.clone(), owner: owner.clone() });
    }
    check_mac(ifname, &pod, *mac)?;
    check_end(expected, ifname, &pod)?;
    check_end(expected, host_name, &host)?;
    Ok((host, pod))
}

pub(super) fn check_mac(
    name: &InterfaceName,
    link: &Link,
    mac: Option<MacAddr>,
) -> Result<(), CheckError> {
    match mac {
        Some(expected) if expected != link.mac => {
            Err(CheckError::Mac { name: name.clone(), expected, found: link.mac })
        }
        _ => Ok(()),
    }
}

pub(super) fn check_end(
    expected: &PodExpectation,
    name: &InterfaceName,
    link: &Link,
) -> Result<(), CheckError> {
    if !link.up {
        return Err(CheckError::Down { name: name.clone() });
    }
    match expected.mtu {
        Some(expected) if expected != link.mtu => {
            Err(CheckError::Mtu { name: name.clone(), expected, found: link.mtu })
        }
        _ => Ok(()),
    }
}

async fn check_pod(
    expected: &PodExpectation,
    netlink: &Netlink,
    pod: &Link,
    objects: &LinkObjects,
) -> Result<(), CheckError> {
    let device = || expected.ifname.clone();
    let found = address::list(netlink, pod.index).await.map_err(read("the pod's addresses"))?;
    if let Some(address) = missing(&objects.addresses, &found) {
        return Err(CheckError::NoAddress { device: device(), address: *address });
    }
    let table = objects.pod_routes.first().map_or(RouteTable::MAIN, |route| route.table);
    let found =
        routes(&families(expected), netlink, pod, table).await.map_err(read("the pod's routes"))?;
    if let Some(route) = missing(&objects.pod_routes, &found) {
        return Err(CheckError::NoRoute { route: route.clone(), device: device() });
    }
    let found = rules(expected, netlink).await.map_err(read("the pod's rules"))?;
    if let Some(rule) = missing(&objects.pod_rules, &found) {
        return Err(CheckError::NoPodRule { rule: *rule });
    }
    let found = neighbour::list(netlink, pod.index).await.map_err(read("the pod's neighbours"))?;
    if let Some(neighbour) = missing(&objects.neighbours, &found) {
        return Err(CheckError::NoNeighbour { neighbour: *neighbour, device: device() });
    }
    Ok(())
}

/// What [`switch_ipv6_off`](super::MadeLink::switch_ipv6_off) has set, and what the pod's end has from that.
pub(super) fn check_ipv6(expected: &PodExpectation, netns: &Netns) -> Result<(), CheckError> {
    match expected.ipv6 {
        PodIpv6::AsItIs => return Ok(()),
        PodIpv6::Off => {}
    }
    for interfaces in WITHOUT_IPV6.into_iter().chain([expected.ifname.as_str()]) {
        let value = netns.run(|| sysctl::get(&ipv6_is_off(interfaces)));
        match value.map_err(CheckError::Netns)? {
            Ok(value) if value == "1" => {}
            Ok(_) => return Err(CheckError::Ipv6On { interfaces: interfaces.to_owned() }),
            // The kernel has no IPv6 at all.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(CheckError::Sysctl(error)),
        }
    }
    Ok(())
}

async fn check_host(
    expected: &PodExpectation,
    netlink: &Netlink,
    host: &Link,
    objects: &LinkObjects,
) -> Result<(), CheckError> {
    let found = routes(&families(expected), netlink, host, RouteTable::MAIN).await;
    let found = found.map_err(read("the node's routes"))?;
    if let Some(route) = missing(&objects.host_routes, &found) {
        let device = expected.host_name.clone();
        return Err(CheckError::NoHostRoute { route: route.clone(), device });
    }
    for address in all(&expected.addresses, expected.node_local) {
        let reading = route::is_local(netlink, address).await;
        if reading.map_err(read("the route to the pod"))? {
            return Err(CheckError::OnHost { address });
        }
    }
    let found = rules(expected, netlink).await.map_err(read("the node's rules"))?;
    if let Some(rule) = missing(&objects.rules, &found) {
        return Err(CheckError::NoRule { rule: *rule });
    }
    match stray(expected, &objects.rules, &found) {
        Some(rule) => Err(CheckError::StrayRule { rule }),
        None => Ok(()),
    }
}

/// A rule for one of the pod's addresses, at a priority of ours, that is not wanted.
fn stray(expected: &PodExpectation, wanted: &[Rule], found: &[Rule]) -> Option<Rule> {
    let of_pod =
        |found: &&Rule| expected.addresses.iter().any(|pod| objects::is_of_pod(found, pod.address));
    found.iter().filter(of_pod).find(|found| !wanted.contains(found)).copied()
}

/// All rules of the namespace.
async fn rules(expected: &PodExpectation, netlink: &Netlink) -> Result<Vec<Rule>, KernelError> {
    let mut found = Vec::new();
    for family in families(expected) {
        let listed = rule::list(netlink, family).await?;
        found.extend(listed.into_iter().map(|listed| listed.rule));
    }
    Ok(found)
}

/// The routes over `link` in `table`.
pub(super) async fn routes(
    families: &[AddressFamily],
    netlink: &Netlink,
    link: &Link,
    table: RouteTable,
) -> Result<Vec<Route>, KernelError> {
    let mut found = Vec::new();
    for family in families.iter().copied() {
        let filter = Filter { family, table, device: Some(link.index) };
        found.extend(route::list(netlink, filter).await?);
    }
    Ok(found)
}

/// The families of the pod's addresses, each once.
pub(super) fn families(expected: &PodExpectation) -> Vec<AddressFamily> {
    let mut families: Vec<_> =
        all(&expected.addresses, expected.node_local).map(address::family).collect();
    families.sort_by_key(|family| u8::from(*family));
    families.dedup();
    families
}

pub(super) fn missing<'a, T: PartialEq>(wanted: &'a [T], found: &[T]) -> Option<&'a T> {
    wanted.iter().find(|wanted| !found.contains(wanted))
}

pub(super) fn read(what: &'static str) -> impl Fn(KernelError) -> CheckError + Copy {
    move |source| CheckError::Read { what, source }
}
