//! Permanent neighbour entries.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;

use crate::MacAddr;
use crate::address::family;
use crate::netlink::{KernelError, Netlink};

/// A neighbour with a fixed hardware address. Printed as `ip neigh` prints it, but without the link:
/// only its index is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its IP address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Index of the link.
    pub device: u32,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lladdr {} PERMANENT", self.address, self.mac)
    }
}

/// Adds a permanent entry, in place of any other entry for the address.
pub(crate) async fn replace(netlink: &Netlink, neighbour: &Neighbour) -> Result<(), KernelError> {
    put(netlink, neighbour, NeighbourState::Permanent).await
}

/// Adds a stale entry, so that the first packet need not wait for an answer. The kernel verifies the
/// entry itself before long.
pub(crate) async fn hint(netlink: &Netlink, neighbour: &Neighbour) -> Result<(), KernelError> {
    put(netlink, neighbour, NeighbourState::Stale).await
}

async fn put(
    netlink: &Netlink,
    neighbour: &Neighbour,
    state: NeighbourState,
) -> Result<(), KernelError> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(neighbour.address);
    message.header.ifindex = neighbour.device;
    message.header.state = state;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(neighbour.address.into()),
        NeighbourAttribute::LinkLayerAddress(neighbour.mac.octets().to_vec()),
    ];
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(RouteNetlinkMessage::NewNeighbour(message), flags).await
}

/// The permanent neighbours on link `device`, of both families.
pub(crate) async fn list(netlink: &Netlink, device: u32) -> Result<Vec<Neighbour>, KernelError> {
    let mut wanted = NeighbourMessage::default();
    wanted.attributes.push(NeighbourAttribute::IfIndex(device));
    let found = netlink.dump(RouteNetlinkMessage::GetNeighbour(wanted)).await?;
    Ok(found.iter().filter_map(permanent).collect())
}

fn permanent(message: &RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(octets) => mac = MacAddr::from_slice(octets),
            _ => {}
        }
    }
    Some(Neighbour { address: address?, mac: mac?, device: message.header.ifindex })
}
