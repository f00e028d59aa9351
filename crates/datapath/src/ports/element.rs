//! The maps and sets of the table, and what leads to a pod as their elements. Pure: it must not know netlink.
//!
//! The kernel pads each part of a key or value to four bytes. The numbers of types are nftables' own: `nft` needs them to
//! print an element.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use super::{Forward, Protocol};

/// A map or set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    /// Ports of all IPv4 addresses of the node.
    Any4,
    /// Ports of single IPv4 addresses.
    Address4,
    /// Ports of all IPv6 addresses.
    Any6,
    /// Ports of single IPv6 addresses.
    Address6,
    /// Sources with a pod that could not answer them: the pod itself, and the node's loopback address.
    Masqueraded4,
    /// The same for IPv6, which has no way back to the loopback address.
    Masqueraded6,
}

/// A part of a key or value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
}

impl Part {
    /// Its number in nftables, and its length in bytes with the padding.
    fn facts(self) -> (u32, u32) {
        match self {
            Part::Ipv4 => (7, 4),
            Part::Ipv6 => (8, 16),
            Part::Protocol => (12, 4),
            Part::Port => (13, 4),
        }
    }
}

/// The type's number and the length of a key or value with these parts.
pub(super) fn type_and_length(parts: &[Part]) -> (u32, u32) {
    /// The number of each part has so many bits.
    const BITS: u32 = 6;
    parts.iter().fold((0, 0), |(number, length), part| {
        let (of_part, bytes) = part.facts();
        ((number << BITS) | of_part, length + bytes)
    })
}

impl Set {
    pub(super) const ALL: [Set; 6] =
        [Set::Any4, Set::Address4, Set::Any6, Set::Address6, Set::Masqueraded4, Set::Masqueraded6];

    pub(super) fn name(self) -> &'static str {
        match self {
            Set::Any4 => "any4",
            Set::Address4 => "address4",
            Set::Any6 => "any6",
            Set::Address6 => "address6",
            Set::Masqueraded4 => "masqueraded4",
            Set::Masqueraded6 => "masqueraded6",
        }
    }

    pub(super) fn key(self) -> &'static [Part] {
        match self {
            Set::Any4 | Set::Any6 => &[Part::Protocol, Part::Port],
            Set::Address4 => &[Part::Ipv4, Part::Protocol, Part::Port],
            Set::Address6 => &[Part::Ipv6, Part::Protocol, Part::Port],
            Set::Masqueraded4 => &[Part::Ipv4, Part::Ipv4],
            Set::Masqueraded6 => &[Part::Ipv6, Part::Ipv6],
        }
    }

    /// The parts of a map's value; empty for a set.
    pub(super) fn value(self) -> &'static [Part] {
        match self {
            Set::Any4 | Set::Address4 => &[Part::Ipv4, Part::Port],
            Set::Any6 | Set::Address6 => &[Part::Ipv6, Part::Port],
            Set::Masqueraded4 | Set::Masqueraded6 => &[],
        }
    }
}

/// An element as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) set: Set,
    pub(super) key: Vec<u8>,
    /// Empty in a set.
    pub(super) value: Vec<u8>,
}

/// Where the kernel takes only one element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(Set, Vec<u8>);

/// All elements by which these lead to their pod.
pub(super) fn elements(forwards: &BTreeSet<Forward>) -> BTreeSet<Element> {
    let to_pod = forwards.iter().map(Element::of);
    let pods: BTreeSet<IpAddr> = forwards.iter().map(|forward| forward.pod.ip()).collect();
    to_pod.chain(pods.into_iter().flat_map(masqueraded)).collect()
}

fn masqueraded(pod: IpAddr) -> Vec<Element> {
    let of = |set, source: IpAddr| Element {
        set,
        key: [bytes(source), bytes(pod)].concat(),
        value: Vec::new(),
    };
    match pod {
        IpAddr::V4(_) => {
            vec![of(Set::Masqueraded4, pod), of(Set::Masqueraded4, Ipv4Addr::LOCALHOST.into())]
        }
        IpAddr::V6(_) => vec![of(Set::Masqueraded6, pod)],
    }
}

impl Element {
    pub(super) fn of(forward: &Forward) -> Self {
        let Forward { protocol, host, host_port, pod } = forward;
        let set = match (host, pod) {
            (None, SocketAddr::V4(_)) => Set::Any4,
            (None, SocketAddr::V6(_)) => Set::Any6,
            (Some(_), SocketAddr::V4(_)) => Set::Address4,
            (Some(_), SocketAddr::V6(_)) => Set::Address6,
        };
        let mut key = host.map(bytes).unwrap_or_default();
        key.extend([number(*protocol), 0, 0, 0]);
        key.extend(port(host_port.get()));
        let value = [bytes(pod.ip()), port(pod.port()).to_vec()].concat();
        Self { set, key, value }
    }

    /// What it leads to; `None` for an element of a set, and for one that is not ours.
    pub(super) fn forward(&self) -> Option<Forward> {
        let (host, rest) = match self.set {
            Set::Any4 | Set::Any6 => (None, self.key.as_slice()),
            Set::Address4 => self.key.split_at_checked(4).map(|(host, rest)| (Some(host), rest))?,
            Set::Address6 => {
                self.key.split_at_checked(16).map(|(host, rest)| (Some(host), rest))?
            }
            Set::Masqueraded4 | Set::Masqueraded6 => return None,
        };
        let [protocol, 0, 0, 0, high, low, 0, 0] = *rest else { return None };
        let (pod, pod_port) = self.value.split_at_checked(self.value.len().checked_sub(4)?)?;
        let [pod_high, pod_low, 0, 0] = *pod_port else { return None };
        let host = match host {
            Some(host) => Some(address(host)?),
            None => None,
        };
        Some(Forward {
            protocol: self::protocol(protocol)?,
            host,
            host_port: NonZeroU16::new(u16::from_be_bytes([high, low]))?,
            pod: SocketAddr::new(address(pod)?, u16::from_be_bytes([pod_high, pod_low])),
        })
    }

    pub(super) fn place(&self) -> Place {
        Place(self.set, self.key.clone())
    }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = || <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    v4.or_else(|_| v6()).ok()
}

fn port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// As in the IP header.
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| self::number(*protocol) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(host: Option<&str>, pod: &str) -> Forward {
        Forward {
            protocol: Protocol::Sctp,
            host: host.map(|host| host.parse().unwrap()),
            host_port: NonZeroU16::new(8080).unwrap(),
            pod: pod.parse().unwrap(),
        }
    }

    #[test]
    fn element_of_each_map_is_read_back() {
        for (host, pod, set) in [
            (None, "10.0.0.20:80", Set::Any4),
            (Some("10.0.0.10"), "10.0.0.20:80", Set::Address4),
            (None, "[fd00::20]:80", Set::Any6),
            (Some("fd00::10"), "[fd00::20]:80", Set::Address6),
        ] {
            let forward = forward(host, pod);
            let element = Element::of(&forward);
            assert_eq!(element.set, set);
            let length = |parts| usize::try_from(type_and_length(parts).1).unwrap();
            assert_eq!(element.key.len(), length(set.key()));
            assert_eq!(element.value.len(), length(set.value()));
            assert_eq!(element.forward(), Some(forward));
        }
    }

    #[test]
    fn element_that_is_not_ours_is_no_forward() {
        let good = Element::of(&forward(Some("10.0.0.10"), "10.0.0.20:80"));
        for key in [vec![], vec![10, 0, 0], vec![10, 0, 0, 1, 1, 0, 0, 0, 0, 80, 0, 0]] {
            assert_eq!(Element { key, ..good.clone() }.forward(), None);
        }
        for value in [vec![], vec![1], vec![1, 2, 3, 0, 80, 0, 0]] {
            assert_eq!(Element { value, ..good.clone() }.forward(), None);
        }
    }

    #[test]
    fn pod_and_loopback_address_are_masqueraded() {
        let keys = |pod: &str, set| {
            let all = elements(&[forward(None, pod)].into());
            let of_set = all.into_iter().filter(|element| element.set == set);
            of_set.map(|element| element.key).collect::<Vec<_>>()
        };
        let (own, loopback) = (vec![10, 0, 0, 20, 10, 0, 0, 20], vec![127, 0, 0, 1, 10, 0, 0, 20]);
        assert_eq!(keys("10.0.0.20:80", Set::Masqueraded4), [own, loopback]);
        assert_eq!(keys("[fd00::20]:80", Set::Masqueraded6).len(), 1);
    }
}
