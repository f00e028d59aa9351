//! The kernel's tracked connections of pods' addresses.
//!
//! A client whose SYN a Service has sent to a pod repeats it for two minutes after the pod has gone
//! (`nf_conntrack_tcp_timeout_syn_sent`). The tracked connection leads that SYN to the next pod with
//! the address, past the rules of the Service.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, Nla as _};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, Tuple};
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
    let count = fs::read_to_string(COUNT).unwrap_or_default();
    if addresses.is_empty() || matches!(count.trim(), "" | "0") {
        return Ok(0);
    }
    let (ipv4, ipv6): (BTreeSet<_>, BTreeSet<_>) =
        addresses.iter().partition(|address| address.is_ipv4());
    let ipv4 = forget_of(NetfilterProtoFamily::IPv4, &ipv4)?;
    Ok(ipv4 + forget_of(NetfilterProtoFamily::IPv6, &ipv6)?)
}

/// As [`forget`], for addresses of one family.
fn forget_of(
    family: NetfilterProtoFamily,
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, KernelError> {
    if addresses.is_empty() {
        return Ok(0);
    }
    let netfilter = Netfilter::open_for(family)?;
    let mut matching = Vec::new();
    netfilter.request(ConntrackMessage::Get(Vec::new()), NLM_F_DUMP, |message| {
        let Some(connection) = attributes(message) else { return };
        if sources(&connection).any(|source| addresses.contains(&source)) {
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
