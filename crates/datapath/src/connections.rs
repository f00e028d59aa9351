//! The kernel's tracked connections of pods' addresses.
//!
//! A client whose SYN a Service has sent to a pod repeats it for two minutes after the pod has gone
//! (`nf_conntrack_tcp_timeout_syn_sent`). The tracked connection leads that SYN to the next pod with
//! the address, past the rules of the Service.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::{fs, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;

use crate::KernelError;

/// The number of tracked connections in the namespace; absent where nothing is tracked.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

// From the kernel's `linux/netfilter/nfnetlink_conntrack.h`.
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

/// Makes the kernel forget the connections from and to `addresses`, in the calling thread's
/// namespace. Returns how many there were. IPv4 only.
///
/// Blocks while the kernel lists all connections, some microseconds each: 0.3 s for 60,000 on a busy
/// machine. Costs one small read where nothing is tracked.
///
/// # Errors
///
/// [`KernelError`] if the list cannot be read or changed.
pub fn forget(addresses: &BTreeSet<Ipv4Addr>) -> Result<usize, KernelError> {
    let count = fs::read_to_string(COUNT).unwrap_or_default();
    if addresses.is_empty() || matches!(count.trim(), "" | "0") {
        return Ok(0);
    }
    let socket = open().map_err(socket_error)?;
    let mut matching = Vec::new();
    request(&socket, ConntrackMessage::Get(Vec::new()), NLM_F_DUMP, |connection| {
        if sources(&connection).any(|source| addresses.contains(&source)) {
            matching.push(identity(connection));
        }
    })?;
    let mut n_forgotten = 0;
    for connection in matching {
        n_forgotten += usize::from(delete(&socket, connection)?);
    }
    Ok(n_forgotten)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn socket_error(fault: io::Error) -> KernelError {
    Errno::from_io_error(&fault).map_or(KernelError::Disconnected, |errno| KernelError::Refused {
        errno,
        explanation: None,
    })
}

/// The addresses of both ends: the opener's, and the one that answers, after translation.
fn sources(connection: &[ConntrackAttribute]) -> impl Iterator<Item = Ipv4Addr> {
    let tuples = connection.iter().filter_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(tuple) | ConntrackAttribute::CtaTupleReply(tuple) => {
            Some(tuple)
        }
        _ => None,
    });
    let addresses = tuples.flatten().filter_map(|part| match part {
        Tuple::Ip(addresses) => Some(addresses),
        _ => None,
    });
    addresses.flatten().filter_map(|address| match address {
        IPTuple::SourceAddress(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}

/// The attributes that tell this connection from all others, also from those of the same ends.
fn identity(connection: Vec<ConntrackAttribute>) -> Vec<ConntrackAttribute> {
    let identifies = |attribute: &ConntrackAttribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => [CTA_ID, CTA_ZONE].contains(&other.kind()),
        _ => false,
    };
    connection.into_iter().filter(identifies).collect()
}

/// Returns whether the connection was still there.
fn delete(socket: &Socket, connection: Vec<ConntrackAttribute>) -> Result<bool, KernelError> {
    match request(socket, ConntrackMessage::Delete(connection), NLM_F_ACK, drop) {
        Err(error) if error.is(Errno::NOENT) => Ok(false),
        answer => answer.map(|()| true),
    }
}

/// Sends a request and passes each answer to `take`, up to an acknowledgement or the end of a dump.
fn request(
    socket: &Socket,
    message: ConntrackMessage,
    flags: u16,
    mut take: impl FnMut(Vec<ConntrackAttribute>),
) -> Result<(), KernelError> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, message));
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(socket_error)?;

    loop {
        let (bytes, _kernel) = socket.recv_from_full().map_err(socket_error)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|_| KernelError::Disconnected)?;
            let length = usize::try_from(answer.header.length).ok();
            let length = length.and_then(|length| length.checked_next_multiple_of(4));
            rest = length.and_then(|length| rest.get(length..)).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => {
                    attributes(message).into_iter().for_each(&mut take)
                }
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(KernelError::refused(error.raw_code(), None));
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(KernelError::refused(done.code, None));
                }
                NetlinkPayload::Overrun(_) => return Err(KernelError::Interrupted),
                _ => return Ok(()),
            }
        }
    }
}

fn attributes(message: NetfilterMessage) -> Option<Vec<ConntrackAttribute>> {
    match message.inner {
        NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => Some(attributes),
        _ => None,
    }
}
