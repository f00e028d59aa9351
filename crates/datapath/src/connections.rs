//! The kernel's tracked connections of pods' addresses.
//!
//! A client whose SYN a Service has sent to a pod repeats it for two minutes after the pod has gone
//! (`nf_conntrack_tcp_timeout_syn_sent`). The tracked connection leads that SYN to the next pod with
//! the address, past the rules of the Service.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, Nla as _};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};
use rustix::io::Errno;

use crate::KernelError;
use crate::netfilter::Netfilter;

/// The number of tracked connections in the namespace; absent where nothing is tracked.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

// From the kernel's `linux/netfilter/nfnetlink_conntrack.h`.
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

/// Makes the kernel forget the connections from and to `addresses`, in the calling thread's
/// namespace. Returns how many there were.
///
/// Blocks while the kernel lists all connections, some microseconds each: 0.3 s for 60,000 on a busy
/// machine. Costs one small read where nothing is tracked.
///
/// # Errors
///
/// [`KernelError`] if the list cannot be read or changed.
pub fn forget(addresses: &BTreeSet<IpAddr>) -> Result<usize, KernelError> {
    let (ipv4, ipv6): (BTreeSet<_>, BTreeSet<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv4());
    let mut n_forgotten = 0;
    for (family, addresses) in
        [(NetfilterProtoFamily::IPv4, ipv4), (NetfilterProtoFamily::IPv6, ipv6)]
    {
        if !addresses.is_empty() {
            n_forgotten += forget_where(family, |connection| {
                sources(connection).any(|source| addresses.contains(&source))
            })?;
        }
    }
    Ok(n_forgotten)
}

/// Which connections to a port of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// Those that nobody translates. To forget one of them loses nothing.
    NotYet,
    /// Those that lead to the pod.
    ToPod,
}

/// Makes the kernel forget UDP connections to the node's ports, each given with the pod's end. As [`forget`].
pub(crate) fn forget_udp(
    ports: &BTreeSet<(u16, SocketAddr)>,
    which: Forwarded,
) -> Result<usize, KernelError> {
    let mut n_forgotten = 0;
    for (family, is_v4) in [(NetfilterProtoFamily::IPv4, true), (NetfilterProtoFamily::IPv6, false)]
    {
        let of_family: BTreeSet<_> =
            ports.iter().filter(|(_, pod)| pod.is_ipv4() == is_v4).collect();
        if of_family.is_empty() {
            continue;
        }
        n_forgotten += forget_where(family, |connection| {
            let Some((asked, answering)) = udp_ends(connection) else { return false };
            match which {
                Forwarded::NotYet => {
                    asked == answering && of_family.iter().any(|(port, _)| *port == asked.port())
                }
                Forwarded::ToPod => of_family.contains(&&(asked.port(), answering)),
            }
        })?;
    }
    Ok(n_forgotten)
}

/// The end that the opener asks and the one that answers, of a UDP connection whose opener keeps its own address and port.
/// If the opener is translated, only if the other end is, too.
fn udp_ends(connection: &[ConntrackAttribute]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut original, mut reply) = (None, None);
    for attribute in connection {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = udp_tuple(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = udp_tuple(tuple),
            _ => {}
        }
    }
    let ((opener, asked), (answering, answered)) = (original?, reply?);
    (asked != answering || opener == answered).then_some((asked, answering))
}

/// Source and destination.
fn udp_tuple(tuple: &[Tuple]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut source, mut destination) = (None, None);
    let (mut protocol, mut source_port, mut destination_port) = (None, None, None);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => source = Some(*address),
                        IPTuple::DestinationAddress(address) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(number) => protocol = Some(*number),
                        ProtoTuple::SourcePort(port) => source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => destination_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let source = SocketAddr::new(source?, source_port?);
    let destination = SocketAddr::new(destination?, destination_port?);
    (protocol == Some(Protocol::Udp)).then_some((source, destination))
}

/// Makes the kernel forget the connections of `family` for which `matches` holds. Returns how many there were.
fn forget_where(
    family: NetfilterProtoFamily,
    matches: impl Fn(&[ConntrackAttribute]) -> bool,
) -> Result<usize, KernelError> {
    let count = fs::read_to_string(COUNT).unwrap_or_default();
    if matches!(count.trim(), "" | "0") {
        return Ok(0);
    }
    let netfilter = Netfilter::open_for(family)?;
    let mut matching = Vec::new();
    netfilter.request(ConntrackMessage::Get(Vec::new()), NLM_F_DUMP, |message| {
        let Some(connection) = attributes(message) else { return };
        if matches(&connection) {
            matching.push(identity(connection));
        }
    })?;
    let mut n_forgotten = 0;
    for connection in matching {
        n_forgotten += usize::from(delete(&netfilter, connection)?);
    }
    Ok(n_forgotten)
}

/// The addresses of both ends: the opener's, and the one that answers, after translation.
fn sources(connection: &[ConntrackAttribute]) -> impl Iterator<Item = IpAddr> {
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
        IPTuple::SourceAddress(address) => Some(*address),
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
fn delete(netfilter: &Netfilter, connection: Vec<ConntrackAttribute>) -> Result<bool, KernelError> {
    match netfilter.request(ConntrackMessage::Delete(connection), NLM_F_ACK, drop) {
        Err(error) if error.is(Errno::NOENT) => Ok(false),
        answer => answer.map(|()| true),
    }
}

fn attributes(message: NetfilterMessageInner) -> Option<Vec<ConntrackAttribute>> {
    match message {
        NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => Some(attributes),
        _ => None,
    }
}
