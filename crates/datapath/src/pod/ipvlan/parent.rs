//! The device whose child a pod's interface is, and what the node knows of the networks there. Changes nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::link::IpVlanMode;

use super::{IpvlanMode, children};
use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::pod::PodAddress;
use crate::{RouteTable, address, route};

/// Why addresses cannot be on an `ipvlan` child.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// Something of the node could not be read.
    #[error("read {what}")]
    Read {
        /// The list or object.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The table of the address's ENI leads nowhere, or not over one device.
    #[error("table {table} has no default route for {address}")]
    NoDefaultRoute {
        /// The pod's address.
        address: IpAddr,
        /// The ENI's table.
        table: RouteTable,
    },
    /// The device of the default route is gone.
    #[error("the device of {address}'s default route is gone")]
    NoDevice {
        /// The pod's address.
        address: IpAddr,
    },
    /// The ENI's device has no address in the subnet of the pod's, so the subnet is unknown.
    #[error("{device} has no address in the subnet of {address}")]
    NoSubnet {
        /// The pod's address.
        address: IpAddr,
        /// The ENI's device.
        device: String,
    },
    /// The pod's addresses are on two ENIs, and a child has one parent.
    #[error(
        "{first} is on {first_device}, and {second} on {second_device}: an ipvlan child has one parent"
    )]
    TwoParents {
        /// An address of the pod.
        first: IpAddr,
        /// The device of its ENI.
        first_device: String,
        /// Its other address.
        second: IpAddr,
        /// The device of that one's ENI.
        second_device: String,
    },
    /// On layer 3 the node's main table routes what the pod sends, and that leads out of the primary ENI.
    #[error(
        "{address} is on the ENI of table {table}: ipvlan in mode l3s needs one of the primary ENI"
    )]
    NotOnPrimary {
        /// The pod's address.
        address: IpAddr,
        /// The ENI's table.
        table: RouteTable,
    },
    /// The device has a child of another mode. The kernel would give all children the mode of a new one.
    #[error(
        "{device} has the ipvlan child {child} in mode {theirs}: one in mode {ours} would change it, and all others of {device}"
    )]
    OtherMode {
        /// The ENI's device.
        device: String,
        /// The child's name, in its own namespace.
        child: String,
        /// The child's mode.
        theirs: String,
        /// That of the pod.
        ours: String,
    },
}

/// A pod's address and the networks around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: IpAddr,
    /// The subnet of an IPv4 address, as its ENI's device has it.
    pub(super) subnet: Option<IpNet>,
    /// The subnet's router.
    pub(super) gateway: Option<IpAddr>,
}

/// The device whose child the pod gets.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) device: Link,
    /// One for each of the pod's addresses.
    pub(super) places: Vec<Place>,
}

impl Parent {
    /// Costs two or three requests for each address, and one list of the device's addresses.
    pub(super) async fn find(
        netlink: &Netlink,
        addresses: &[PodAddress],
        mode: IpvlanMode,
    ) -> Result<Option<Self>, ParentError> {
        let mut parent: Option<Self> = None;
        for pod in addresses {
            if mode == IpvlanMode::L3s && pod.table != RouteTable::MAIN {
                let PodAddress { address, table } = *pod;
                return Err(ParentError::NotOnPrimary { address, table });
            }
            let (device, place) = place(netlink, pod, mode).await?;
            parent = Some(match parent {
                None => Self { device, places: vec![place] },
                Some(known) => known.with(device, place)?,
            });
        }
        Ok(parent)
    }

    fn with(mut self, device: Link, place: Place) -> Result<Self, ParentError> {
        if let Some(first) = self.places.first().filter(|_| device.index != self.device.index) {
            return Err(ParentError::TwoParents {
                first: first.address,
                first_device: self.device.name,
                second: place.address,
                second_device: device.name,
            });
        }
        self.places.push(place);
        Ok(self)
    }
}

/// A new child would change the mode of the others. Costs lists of links until a child of the device is found.
pub(super) async fn refuse_other_mode(
    netlink: &Netlink,
    device: &Link,
    mode: IpvlanMode,
) -> Result<(), ParentError> {
    let found = children::first_of(netlink, device.index).await;
    let found = found.map_err(read("the children of the ENI's device"))?;
    let Some((child, theirs)) = found.filter(|(_, theirs)| *theirs != mode.kernels()) else {
        return Ok(());
    };
    let device = device.name.clone();
    let (theirs, ours) = (name(theirs), name(mode.kernels()));
    Err(ParentError::OtherMode { device, child, theirs, ours })
}

/// As `ip` has it.
fn name(mode: IpVlanMode) -> String {
    match mode {
        IpVlanMode::L2 => "l2".to_owned(),
        IpVlanMode::L3 => "l3".to_owned(),
        IpVlanMode::L3S => "l3s".to_owned(),
        other => format!("{other:?}"),
    }
}

async fn place(
    netlink: &Netlink,
    pod: &PodAddress,
    mode: IpvlanMode,
) -> Result<(Link, Place), ParentError> {
    let PodAddress { address, table } = *pod;
    let found = route::defaults(netlink, address::family(address), table).await;
    let found = found.map_err(read("the default routes"))?;
    let first = found.into_iter().min_by_key(|default| default.metric);
    let first = first.ok_or(ParentError::NoDefaultRoute { address, table })?.route;
    let device = link::by_index(netlink, first.device).await.map_err(read("the ENI's device"))?;
    let device = device.ok_or(ParentError::NoDevice { address })?;
    let mut place = Place { address, subnet: None, gateway: None };
    if mode == IpvlanMode::L2 {
        place.gateway = first.gateway;
        let gateway = first.gateway.ok_or(ParentError::NoDefaultRoute { address, table })?;
        if address.is_ipv4() {
            let own = address::list(netlink, device.index).await;
            let own = own.map_err(read("the addresses of the ENI's device"))?;
            place.subnet = subnet(&own, address, gateway);
            let unknown = || ParentError::NoSubnet { address, device: device.name.clone() };
            place.subnet.ok_or_else(unknown)?;
        }
    }
    Ok((device, place))
}

/// The subnet among the networks of a device that has both the address and its router.
fn subnet(networks: &[IpNet], address: IpAddr, gateway: IpAddr) -> Option<IpNet> {
    let has_both = |net: &&IpNet| net.contains(&address) && net.contains(&gateway);
    networks.iter().find(has_both).map(IpNet::trunc)
}

fn read(what: &'static str) -> impl FnOnce(KernelError) -> ParentError {
    move |source| ParentError::Read { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnet_has_the_pods_address_and_its_router() {
        let check = |networks: &[&str], expect: Option<&str>| {
            let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
            let found =
                subnet(&networks, IpAddr::from([10, 0, 2, 20]), IpAddr::from([10, 0, 2, 1]));
            assert_eq!(found, expect.map(|text| text.parse().unwrap()), "{networks:?}");
        };
        check(&["10.0.2.5/24"], Some("10.0.2.0/24"));
        check(&["10.0.3.5/24", "10.0.2.5/20"], Some("10.0.0.0/20"));
        // Somebody's address of the same range, without the router.
        check(&["10.0.2.16/28", "10.0.2.5/24"], Some("10.0.2.0/24"));
        check(&["10.0.3.5/24", "10.0.2.20/32"], None);
        check(&[], None);
    }
}
