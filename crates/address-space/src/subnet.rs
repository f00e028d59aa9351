//! What a subnet has left: free addresses, free aligned /28 for prefixes, and the largest free block.
//!
//! It must not know what is little or much.

use std::net::IpAddr;

use ipam::id::{SubnetId, VpcId};
use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use crate::inventory::{Interface, Place, ReservationKind, Subnet, name};
use crate::percent;
use crate::span::{Span, free, merged, size, total};

/// Addresses of an IPv4 prefix of an ENI.
pub(crate) const PREFIX_SIZE: u64 = 16;
/// AWS keeps the first four addresses of a subnet for itself, and the last one. Source: AWS, "Subnet CIDR blocks".
const FIRST_KEPT: u64 = 4;
const LAST_KEPT: u64 = 1;

/// An IPv4 subnet and its room. All numbers are counts of IPv4 addresses unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubnetUse {
    /// Its id.
    pub id: SubnetId,
    /// Its name, or its id.
    pub name: String,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its owner and Region.
    pub place: Place,
    /// Its zone.
    pub zone: String,
    /// Its range.
    pub cidr: Ipv4Net,
    /// What is in use, and what is left.
    pub room: Room,
}

/// The room of a [`SubnetUse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Room {
    /// All but the five that AWS keeps.
    pub usable: u64,
    /// In use by EC2's count, or by the interfaces if EC2 has given no count.
    pub used: u64,
    /// The share of `used` in `usable`.
    pub percent: u64,
    /// `usable` without `used`.
    pub free: u64,
    /// In use by EC2's count but on no interface of the inventory. If there are any, the blocks below may be fewer.
    pub unseen: u64,
    /// Free /28 that EC2 can give as prefixes: those in reservations of kind `prefix`, or without any such reservation
    /// those outside of all others.
    pub free_prefixes: u64,
    /// The largest aligned range without an address in use or a reservation of kind `explicit`.
    pub largest_free: Option<Ipv4Net>,
    /// Ranges with addresses in use, for the map.
    #[serde(skip)]
    pub(crate) taken: Vec<Span>,
}

/// The room of `subnet`; `None` if it has no IPv4. `interfaces` are those in it.
pub(crate) fn subnet_use<'a>(
    subnet: &Subnet,
    interfaces: impl Iterator<Item = &'a Interface>,
) -> Option<SubnetUse> {
    let cidr = subnet.cidr?;
    let Subnet { id, vpc, place, zone, tags, .. } = subnet;
    Some(SubnetUse {
        id: id.clone(),
        name: name(tags, id.as_str()).to_owned(),
        vpc: vpc.clone(),
        place: place.clone(),
        zone: zone.clone(),
        cidr,
        room: room(subnet, cidr, interfaces),
    })
}

fn room<'a>(
    subnet: &Subnet,
    cidr: Ipv4Net,
    interfaces: impl Iterator<Item = &'a Interface>,
) -> Room {
    let whole = Span::of(cidr);
    let own = Span {
        start: whole.start + FIRST_KEPT.min(whole.len()),
        end: whole.end.saturating_sub(LAST_KEPT).max(whole.start),
    };
    let taken = interfaces.flat_map(spans).map(|span| span.and(own)).collect();
    let taken = merged(taken);
    let kept = [Span { end: own.start, ..whole }, Span { start: own.end, ..whole }];
    let blocked: Vec<Span> = taken.iter().copied().chain(kept).collect();

    let seen = total(&taken);
    let usable = own.len();
    let by_ec2 = subnet.free_addresses.map(|free| usable.saturating_sub(free.into()));
    // EC2's count lags by seconds. An address that is seen is in use whatever the count says.
    let used = by_ec2.unwrap_or(seen).max(seen);

    let reserved = |wanted: ReservationKind| {
        let ours = subnet.reservations.iter().filter(move |one| one.kind == wanted);
        ours.filter_map(|one| v4(one.cidr)).map(|net| Span::of(net).and(whole))
    };
    let explicit: Vec<Span> = reserved(ReservationKind::Explicit).collect();
    let at_large = free(whole, blocked.iter().copied().chain(explicit).collect());
    let for_prefixes: Vec<Span> = reserved(ReservationKind::Prefix).collect();
    let free_prefixes = if for_prefixes.is_empty() {
        n_prefixes(&at_large)
    } else {
        merged(for_prefixes).into_iter().map(|span| n_prefixes(&free(span, blocked.clone()))).sum()
    };
    // Nobody knows where the addresses are that are not seen. They may be in as few blocks as hold them.
    let unseen = used - seen;
    let at_most = if unseen == 0 { u64::MAX } else { usable.saturating_sub(used) / PREFIX_SIZE };
    Room {
        usable,
        used,
        percent: percent(used, usable),
        free: usable - used.min(usable),
        unseen,
        free_prefixes: free_prefixes.min(at_most),
        largest_free: largest(&at_large),
        taken,
    }
}

/// The IPv4 addresses and prefixes of an interface.
fn spans(interface: &Interface) -> impl Iterator<Item = Span> {
    let addresses = interface.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(Span::of_address(*address)),
        IpAddr::V6(_) => None,
    });
    addresses.chain(interface.prefixes.iter().filter_map(|prefix| v4(*prefix)).map(Span::of))
}

pub(crate) fn v4(net: IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    }
}

fn n_prefixes(free: &[Span]) -> u64 {
    free.iter().map(|span| span.n_aligned(PREFIX_SIZE)).sum()
}

fn largest(free: &[Span]) -> Option<Ipv4Net> {
    let blocks = free.iter().filter_map(|span| span.largest_block());
    // Of blocks with one size the first.
    blocks.min_by_key(|block| (std::cmp::Reverse(size(*block)), *block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Reservation;

    /// The room of 10.0.0.0/`length` with one interface that has these addresses and prefixes. A reservation is
    /// written `prefix 10.0.0.64/26`.
    fn room_of(length: u8, free: Option<u32>, blocks: &[&str], reserved: &[&str]) -> Room {
        let (prefixes, addresses): (Vec<&str>, Vec<&str>) =
            blocks.iter().partition(|block| block.contains('/'));
        let subnet = Subnet {
            id: "subnet-1".try_into().unwrap(),
            vpc: "vpc-1".try_into().unwrap(),
            place: Place::default(),
            zone: "a".to_owned(),
            cidr: Some(Ipv4Net::new([10, 0, 0, 0].into(), length).unwrap()),
            ipv6_cidr: None,
            free_addresses: free,
            reservations: reserved
                .iter()
                .map(|text| {
                    let (kind, cidr) = text.split_once(' ').unwrap();
                    let kind = serde_json::from_value(kind.into()).unwrap();
                    Reservation { cidr: cidr.parse().unwrap(), kind }
                })
                .collect(),
            tags: [].into(),
        };
        let interface = Interface {
            id: "eni-1".try_into().unwrap(),
            subnet: subnet.id.clone(),
            kind: "interface".to_owned(),
            description: String::new(),
            attachment: None,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
            tags: [].into(),
        };
        room(&subnet, subnet.cidr.unwrap(), std::iter::once(&interface))
    }

    #[test]
    fn prefixes_need_aligned_room_outside_of_reservations() {
        let check = |blocks: &[&str], reserved: &[&str], prefixes: u64, largest: &str| {
            let room = room_of(24, None, blocks, reserved);
            let found = room.largest_free.map_or(String::new(), |block| block.to_string());
            assert_eq!(
                (room.free_prefixes, &*found),
                (prefixes, largest),
                "{blocks:?} {reserved:?}"
            );
        };
        // The first and the last /28 have addresses of AWS.
        check(&[], &[], 14, "10.0.0.64/26");
        check(&["10.0.0.70"], &[], 13, "10.0.0.128/26");
        check(&["10.0.0.70", "10.0.0.64/28", "10.0.0.128/28"], &[], 12, "10.0.0.32/27");
        check(&[], &["explicit 10.0.0.64/26"], 10, "10.0.0.128/26");
        check(&[], &["explicit 10.0.0.72/29"], 13, "10.0.0.128/26");
        // Prefixes come from the reservation alone as soon as there is one.
        check(&["10.0.0.40"], &["prefix 10.0.0.64/26"], 4, "10.0.0.64/26");
        check(
            &["10.0.0.64/28"],
            &["prefix 10.0.0.64/26", "explicit 10.0.0.128/25"],
            3,
            "10.0.0.32/27",
        );
        check(&[], &["prefix 10.0.0.0/28"], 0, "10.0.0.64/26");
        let all: Vec<String> = (0..16).map(|n| format!("10.0.0.{}", n * 16 + 5)).collect();
        check(&all.iter().map(String::as_str).collect::<Vec<_>>(), &[], 0, "10.0.0.8/29");
    }

    #[test]
    fn count_of_ec2_shows_what_the_reader_does_not_see() {
        let check = |free, blocks: &[&str], used, unseen| {
            let room = room_of(24, free, blocks, &[]);
            assert_eq!((room.usable, room.used, room.unseen), (251, used, unseen), "{free:?}");
            assert_eq!(room.free, 251 - used);
        };
        check(None, &["10.0.0.9", "10.0.0.16/28"], 17, 0);
        check(Some(234), &["10.0.0.9", "10.0.0.16/28"], 17, 0);
        check(Some(200), &["10.0.0.9"], 51, 50);
        // An older count.
        check(Some(251), &["10.0.0.9"], 1, 0);
        assert_eq!(room_of(24, Some(40), &[], &[]).free_prefixes, 2);
        // An address of IPv6, and one of another subnet.
        check(None, &["2600::1", "10.0.1.9", "2600::/80"], 0, 0);
    }

    #[test]
    fn smallest_and_largest_subnet_have_room() {
        assert_eq!(
            (room_of(28, None, &[], &[]).usable, room_of(28, None, &[], &[]).free_prefixes),
            (11, 0)
        );
        let large = room_of(16, None, &[], &[]);
        assert_eq!((large.usable, large.free_prefixes), (65_531, 4094));
        // EC2 makes none so small. A file may say so.
        assert_eq!(room_of(32, None, &[], &[]).usable, 0);
    }
}
