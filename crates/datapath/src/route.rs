//! Unicast routes with one destination, one link and at most one gateway.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::RouteTable;
use crate::address::family;
use crate::netlink::{KernelError, Netlink};

/// A unicast route. Printed as `ip route` takes it, but without the link: only its index is known
/// here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination; of length 0 for the default route.
    pub destination: IpNet,
    /// The router; `None` for a destination on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the link, in the route's namespace.
    pub device: u32,
    /// The table that has it.
    pub table: RouteTable,
}

impl Route {
    /// To one address on the link itself, in the main table.
    pub(crate) fn to_host(address: IpAddr, device: u32) -> Self {
        Self { destination: address.into(), gateway: None, device, table: RouteTable::MAIN }
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(self.destination.addr()),
            destination_prefix_length: self.destination.prefix_len(),
            // The protocol of `ip route` and Go's netlink package: `ip` prints any other.
            protocol: RouteProtocol::Boot,
            scope: if self.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link },
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        let mut attributes =
            vec![RouteAttribute::Oif(self.device), RouteAttribute::Table(self.table.number())];
        if self.destination.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.addr().into()));
        }
        attributes.extend(self.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        message.attributes = attributes;
        message
    }

    fn from_answer(answer: &RouteNetlinkMessage) -> Option<Self> {
        match answer {
            RouteNetlinkMessage::NewRoute(message) => Self::from_message(message),
            _ => None,
        }
    }

    /// `None` for routes of other kinds: local, broadcast, multipath, …
    pub(crate) fn from_message(message: &RouteMessage) -> Option<Self> {
        if message.header.kind != RouteType::Unicast {
            return None;
        }
        let unspecified = match message.header.address_family {
            AddressFamily::Inet => IpAddr::from([0; 4]),
            AddressFamily::Inet6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        let (mut destination, mut gateway, mut device) = (unspecified, None, None);
        let mut table = u32::from(message.header.table);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
                RouteAttribute::Oif(index) => device = Some(*index),
                RouteAttribute::Table(number) => table = *number,
                _ => {}
            }
        }
        Some(Self {
            destination: IpNet::new(destination, message.header.destination_prefix_length).ok()?,
            gateway,
            device: device?,
            table: RouteTable::from(table),
        })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination.prefix_len() {
            0 => f.write_str("default")?,
            length if length == self.destination.max_prefix_len() => {
                write!(f, "{}", self.destination.addr())?;
            }
            _ => write!(f, "{}", self.destination)?,
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " table {}", self.table)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// A default route. The kernel prefers the one with the smallest metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) route: Route,
    pub(crate) metric: u32,
}

impl DefaultRoute {
    fn from_answer(answer: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
        let route = Route::from_message(message).filter(|it| it.destination.prefix_len() == 0)?;
        let metric = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
        Some(Self { route, metric: metric.unwrap_or(0) })
    }
}

/// Adds `route`. The kernel refuses it if the table has a route to the same destination.
pub(crate) async fn add(netlink: &Netlink, route: &Route) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRoute(route.message());
    netlink.change(message, NLM_F_CREATE | NLM_F_EXCL).await
}

/// Adds `route`, in place of the table's route to the same destination.
pub(crate) async fn replace(netlink: &Netlink, route: &Route) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRoute(route.message());
    netlink.change(message, NLM_F_CREATE | NLM_F_REPLACE).await
}

/// Removes `route`, whoever added it; it may be gone already.
pub(crate) async fn remove(netlink: &Netlink, route: &Route) -> Result<(), KernelError> {
    let mut message = route.message();
    // Unset, these match any.
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::NoWhere;
    match netlink.change(RouteNetlinkMessage::DelRoute(message), 0).await {
        Err(error) if error.is(Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// Which routes to list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    pub(crate) family: AddressFamily,
    pub(crate) table: RouteTable,
    /// Over this link only.
    pub(crate) device: Option<u32>,
}

/// The unicast routes that pass `filter`. The kernel filters.
pub(crate) async fn list(netlink: &Netlink, filter: Filter) -> Result<Vec<Route>, KernelError> {
    Ok(dump(netlink, filter).await?.iter().filter_map(Route::from_answer).collect())
}

/// The unicast routes of `family` in all tables.
pub(crate) async fn list_all(
    netlink: &Netlink,
    family: AddressFamily,
) -> Result<Vec<Route>, KernelError> {
    let mut wanted = RouteMessage::default();
    wanted.header.address_family = family;
    let found = netlink.dump(RouteNetlinkMessage::GetRoute(wanted)).await?;
    Ok(found.iter().filter_map(Route::from_answer).collect())
}

/// The default routes of `family` in `table`.
pub(crate) async fn defaults(
    netlink: &Netlink,
    family: AddressFamily,
    table: RouteTable,
) -> Result<Vec<DefaultRoute>, KernelError> {
    let filter = Filter { family, table, device: None };
    Ok(dump(netlink, filter).await?.iter().filter_map(DefaultRoute::from_answer).collect())
}

async fn dump(netlink: &Netlink, filter: Filter) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
    let mut wanted = RouteMessage::default();
    wanted.header.address_family = filter.family;
    wanted.attributes.push(RouteAttribute::Table(filter.table.number()));
    wanted.attributes.extend(filter.device.map(RouteAttribute::Oif));
    match netlink.dump(RouteNetlinkMessage::GetRoute(wanted)).await {
        // A table exists once it has had a route.
        Err(error) if error.is(Errno::NOENT) => Ok(Vec::new()),
        other => other,
    }
}

/// The route that the kernel would use for `address`, if that route leads to this address only. Costs
/// one lookup.
pub(crate) async fn to_host(
    netlink: &Netlink,
    address: IpAddr,
) -> Result<Option<Route>, KernelError> {
    match look_up(netlink, address, RouteFlags::FibMatch).await {
        Ok(found) => {
            let route = Route::from_answer(&found);
            Ok(route.filter(|route| route.destination == IpNet::from(address)))
        }
        Err(error) if error.is(Errno::NETUNREACH) || error.is(Errno::HOSTUNREACH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the kernel delivers packets for `address` locally.
pub(crate) async fn is_local(netlink: &Netlink, address: IpAddr) -> Result<bool, KernelError> {
    let found = look_up(netlink, address, RouteFlags::empty()).await?;
    let RouteNetlinkMessage::NewRoute(found) = found else { return Ok(false) };
    Ok(found.header.kind == RouteType::Local)
}

async fn look_up(
    netlink: &Netlink,
    address: IpAddr,
    flags: RouteFlags,
) -> Result<RouteNetlinkMessage, KernelError> {
    let mut wanted = RouteMessage::default();
    wanted.header.address_family = family(address);
    wanted.header.destination_prefix_length = IpNet::from(address).prefix_len();
    wanted.header.flags = flags;
    wanted.attributes.push(RouteAttribute::Destination(address.into()));
    netlink.get(RouteNetlinkMessage::GetRoute(wanted)).await
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable as _, Parseable as _};
    use proptest::prelude::*;

    use super::*;

    fn any_route() -> impl Strategy<Value = Route> {
        let v4 = (any::<[u8; 4]>(), 0..=32u8, any::<Option<[u8; 4]>>())
            .prop_map(|(to, length, over)| (to.into(), length, over.map(IpAddr::from)));
        let v6 = (any::<[u8; 16]>(), 0..=128u8, any::<Option<[u8; 16]>>())
            .prop_map(|(to, length, over)| (to.into(), length, over.map(IpAddr::from)));
        (prop_oneof![v4, v6], any::<u32>(), 2u32..).prop_map(
            |((to, length, gateway), device, table): ((IpAddr, _, _), _, _)| Route {
                destination: IpNet::new(to, length).unwrap().trunc(),
                gateway,
                device,
                table: RouteTable::from(table),
            },
        )
    }

    proptest! {
        #[test]
        fn route_message_parses_back_to_the_same_route(route in any_route()) {
            let message = route.message();
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let read = RouteMessage::parse(&bytes[..]).unwrap();
            prop_assert_eq!(Route::from_message(&read), Some(route));
        }
    }
}
