//! Compares a pod's `ipvlan` child with what was made. Changes nothing.

use super::IpvlanMode;
use super::children::is_of;
use super::objects::ChildObjects;
use super::parent::Parent;
use crate::RouteTable;
use crate::link::{self, Link};
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::pod::check::{check_end, check_ipv6, check_mac, families, missing, read, routes};
use crate::pod::{CheckError, PodExpectation};
use crate::{address, nsid};

/// Compares a pod's child with what was made, as [`crate::pod::check`] does for a pair. Of `expected`, the name of the
/// host's end and the place of the routes have no meaning here.
///
/// # Errors
///
/// [`CheckError`], the first difference.
pub async fn check_child(expected: &PodExpectation, mode: IpvlanMode) -> Result<(), CheckError> {
    let netns = Netns::open(&expected.netns).map_err(CheckError::Netns)?;
    let pod_side = netns.netlink().map_err(CheckError::Netns)?;
    let host_side = Netlink::open().map_err(CheckError::Socket)?;
    let child = find(expected, &pod_side).await?;
    let parent = Parent::find(&host_side, &expected.addresses, mode).await?;
    let Some(parent) = parent else { return Ok(()) };
    let ifname = &expected.ifname;
    if child.peer != Some(parent.device.index) {
        return Err(CheckError::OtherParent { ifname: ifname.clone(), device: parent.device.name });
    }
    if let Some(found) = child.ipvlan.filter(|found| *found != mode.kernels()) {
        let (found, expected) = (found.to_string(), mode.kernels().to_string());
        return Err(CheckError::Mode { ifname: ifname.clone(), found, expected });
    }
    check_mac(ifname, &child, expected.mac)?;
    check_end(expected, ifname, &child)?;
    check_ipv6(expected, &netns)?;
    check_objects(
        expected,
        &pod_side,
        &child,
        &ChildObjects::of(&parent.places, mode, child.index),
    )
    .await?;
    // Without a number, the kernel check does not see the child.
    match nsid::of(&host_side, &netns).await.map_err(read("the namespace's number"))? {
        Some(_) => Ok(()),
        None => Err(CheckError::NoNumber { netns: expected.netns.clone() }),
    }
}

async fn find(expected: &PodExpectation, pod_side: &Netlink) -> Result<Link, CheckError> {
    let PodExpectation { ifname, netns, owner, .. } = expected;
    let child = link::by_name(pod_side, ifname.as_str()).await.map_err(read("a link"))?;
    let gone = || CheckError::NoInterface { ifname: ifname.clone(), netns: netns.clone() };
    let child = child.ok_or_else(gone)?;
    if !is_of(&child, owner) {
        return Err(CheckError::NoChild { ifname: ifname.clone(), owner: owner.clone() });
    }
    Ok(child)
}

async fn check_objects(
    expected: &PodExpectation,
    netlink: &Netlink,
    child: &Link,
    objects: &ChildObjects,
) -> Result<(), CheckError> {
    let device = || expected.ifname.clone();
    let found = address::list(netlink, child.index).await.map_err(read("the pod's addresses"))?;
    let wanted: Vec<_> = objects.addresses.iter().map(|(net, _)| *net).collect();
    if let Some(address) = missing(&wanted, &found) {
        return Err(CheckError::NoAddress { device: device(), address: *address });
    }
    let found = routes(&families(expected), netlink, child, RouteTable::MAIN).await;
    let found = found.map_err(read("the pod's routes"))?;
    match missing(&objects.routes, &found) {
        Some(route) => Err(CheckError::NoRoute { route: route.clone(), device: device() }),
        None => Ok(()),
    }
}
