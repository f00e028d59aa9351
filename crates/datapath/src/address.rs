//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{KernelError, Netlink};

/// Puts `address` on link `device`. It is usable at once: duplicate address detection is skipped,
/// for EC2 gives no address twice. The kernel is kept from adding a route to the address's subnet.
pub(crate) async fn add(netlink: &Netlink, device: u32, address: IpNet) -> Result<(), KernelError> {
    let mut message = message(device, address);
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    message.attributes.push(AddressAttribute::Flags(flags));
    netlink.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).await
}

/// Takes `address` from link `device`.
pub(crate) async fn remove(
    netlink: &Netlink,
    device: u32,
    address: IpNet,
) -> Result<(), KernelError> {
    netlink.change(RouteNetlinkMessage::DelAddress(message(device, address)), 0).await
}

/// The addresses of link `device` that others can reach, of both families, in the kernel's order:
/// the first of a subnet is the one that the kernel prefers.
pub(crate) async fn list(netlink: &Netlink, device: u32) -> Result<Vec<IpNet>, KernelError> {
    let mut wanted = AddressMessage::default();
    wanted.header.index = device;
    let found = netlink.dump(RouteNetlinkMessage::GetAddress(wanted)).await?;
    Ok(found.iter().filter_map(global).collect())
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

fn global(message: &RouteNetlinkMessage) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    // IPv6 has no local address beside the address; a peer's address stands in the latter.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
