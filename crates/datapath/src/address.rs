//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{KernelError, Netlink};

/// Puts `address` on link `device`. It is usable at once: duplicate address detection is skipped,
/// since EC2 gives no address twice. The kernel adds no route to the address's subnet.
pub(crate) async fn add(netlink: &Netlink, device: u32, address: IpNet) -> Result<(), KernelError> {
    let mut message = message(device, address);
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    message.attributes.push(AddressAttribute::Flags(flags));
    netlink.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).await
}

/// Removes `address` from link `device`.
pub(crate) async fn remove(
    netlink: &Netlink,
    device: u32,
    address: IpNet,
) -> Result<(), KernelError> {
    netlink.change(RouteNetlinkMessage::DelAddress(message(device, address)), 0).await
}

/// The addresses of link `device` with global scope, of both families. They come in the kernel's
/// order: it prefers the first one of a subnet.
pub(crate) async fn list(netlink: &Netlink, device: u32) -> Result<Vec<IpNet>, KernelError> {
    let mut wanted = AddressMessage::default();
    wanted.header.index = device;
    let found = netlink.dump(RouteNetlinkMessage::GetAddress(wanted)).await?;
    Ok(found.iter().filter_map(from_answer).map(|(_, address)| address).collect())
}

/// As [`list`], in another namespace by its number, see [`crate::nsid`].
pub(crate) async fn list_in(
    netlink: &Netlink,
    nsid: i32,
    device: u32,
) -> Result<Vec<IpNet>, KernelError> {
    let mut wanted = AddressMessage::default();
    wanted.header.index = device;
    wanted.attributes.push(AddressAttribute::TargetNetNsId(nsid));
    let found = netlink.dump(RouteNetlinkMessage::GetAddress(wanted)).await?;
    Ok(found.iter().filter_map(from_answer).map(|(_, address)| address).collect())
}

/// As [`list`], of all links: each address with the index of its link.
pub(crate) async fn list_all(netlink: &Netlink) -> Result<Vec<(u32, IpNet)>, KernelError> {
    let found = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
    Ok(found.iter().filter_map(from_answer).collect())
}

fn message(device: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = device;
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message
}

fn from_answer(answer: &RouteNetlinkMessage) -> Option<(u32, IpNet)> {
    match answer {
        RouteNetlinkMessage::NewAddress(message) => global(message),
        _ => None,
    }
}

/// An address of global scope, with the index of its link.
pub(crate) fn global(message: &AddressMessage) -> Option<(u32, IpNet)> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    // IPv4 has both: on a point-to-point link `Address` is the peer's. IPv6 has `Address` only.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some((message.header.index, address))
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
