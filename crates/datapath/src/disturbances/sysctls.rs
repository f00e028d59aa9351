//! The kernel's notifications of changed sysctls. It has them for few: reverse path filtering and forwarding.

use std::io;

use futures::Stream;
use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};
use rustix::io::Errno;

use super::Disturbance;

/// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF` of the kernel's `linux/rtnetlink.h`.
const GROUPS: [u32; 2] = [24, 25];
/// The message of a new value (`RTM_NEWNETCONF`).
const NEW: u16 = 80;
/// Length in bytes of the header before the attributes (`netconfmsg`), with its padding.
const HEADER: usize = 4;
// Attributes (`NETCONFA_…` of the kernel's `linux/netconf.h`).
const INDEX: u16 = 1;
const FORWARDING: u16 = 2;
const REVERSE_PATH: u16 = 3;
/// The index that stands for all devices (`NETCONFA_IFINDEX_ALL`).
const ALL: [u8; 4] = (-1_i32).to_ne_bytes();

/// [`Disturbance::Sysctl`] for each change that may concern the host, in the calling thread's namespace.
pub(super) fn changes() -> io::Result<impl Stream<Item = Disturbance> + Send + Unpin> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    for group in GROUPS {
        socket.socket_ref().add_membership(group)?;
    }
    Ok(Box::pin(futures::stream::unfold(socket, async |socket| {
        loop {
            match socket.recv_from_full().await {
                Ok((bytes, _kernel)) if concerns_host(&bytes) => {
                    return Some((Disturbance::Sysctl, socket));
                }
                Ok(_of_others) => {}
                Err(fault) if Errno::from_io_error(&fault) == Some(Errno::NOBUFS) => {
                    return Some((Disturbance::Missed, socket));
                }
                Err(_fault) => return None,
            }
        }
    })))
}

/// A notification is a message of its own. That of a new device, such as a pod's, has all values and is nobody's change.
/// Each pod's link forwards in its own way.
fn concerns_host(bytes: &[u8]) -> bool {
    let Ok(message) = NetlinkBuffer::new_checked(bytes) else { return false };
    if message.message_type() != NEW {
        return false;
    }
    let attributes = NlasIterator::new(message.payload().get(HEADER..).unwrap_or_default());
    let attributes: Vec<_> = attributes.filter_map(Result::ok).collect();
    let [first, changed] = attributes.as_slice() else { return false };
    match changed.kind() {
        REVERSE_PATH => true,
        FORWARDING => first.kind() == INDEX && first.value() == ALL,
        _ => false,
    }
}
