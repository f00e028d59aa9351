//! The kernel's notifications of changes to tables of ours, or to that of amazon-vpc-cni-k8s.

use std::io;

use futures::Stream;
use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};
use rustix::io::Errno;

use super::{incumbent, table};

/// The group of nftables' notifications (`NFNLGRP_NFTABLES` of the kernel's `linux/netfilter/nfnetlink.h`).
const GROUP: u32 = 7;
/// How much the kernel may keep for us, in bytes. Other programs replace tables of megabytes at once.
const BUFFER: usize = 1 << 20;
/// Length in bytes of the header before the attributes (`nfgenmsg`).
const HEADER: usize = 4;
/// The attribute that names the table, in the messages of tables, chains, rules, sets and elements alike.
const TABLE: u16 = 1;

/// An item for each change from now on, in the calling thread's namespace, whoever makes it. Also for notifications that
/// were lost, because they came faster than they were read. The stream ends if the socket fails.
///
/// # Errors
///
/// If no netlink socket can be opened.
pub fn changes() -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    of_tables(&[table::NAME, incumbent::TABLE])
}

/// As [`changes`], for tables with these names of any family.
pub(crate) fn of_tables(
    names: &'static [&'static str],
) -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_ref().add_membership(GROUP)?;
    // The kernel takes less if the administrator has set less.
    let _ = socket.socket_ref().set_rx_buf_sz(BUFFER);
    Ok(Box::pin(futures::stream::unfold(socket, move |socket| async move {
        loop {
            match socket.recv_from_full().await {
                Ok((bytes, _kernel)) if concerns(names, &bytes) => return Some(((), socket)),
                Ok(_of_others) => {}
                Err(fault) if Errno::from_io_error(&fault) == Some(Errno::NOBUFS) => {
                    return Some(((), socket));
                }
                Err(_fault) => return None,
            }
        }
    })))
}

/// Whether one of the messages names one of the tables. What cannot be read may do so.
fn concerns(names: &[&str], mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(bytes) else { return true };
        let attributes = message.payload().get(HEADER..).unwrap_or_default();
        let mut attributes = NlasIterator::new(attributes).filter_map(Result::ok);
        let table = attributes.find(|attribute| attribute.kind() == TABLE);
        let name = table.as_ref().map(|table| table.value().trim_ascii_end());
        let name = name.and_then(|name| name.split(|byte| *byte == 0).next());
        if names.iter().any(|ours| name == Some(ours.as_bytes())) {
            return true;
        }
        let length = usize::try_from(message.length()).ok();
        let length = length.and_then(|length| length.checked_next_multiple_of(4));
        bytes = length.filter(|n| *n > 0).and_then(|n| bytes.get(n..)).unwrap_or_default();
    }
    false
}
