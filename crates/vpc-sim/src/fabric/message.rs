//! Table entries as netlink messages, and back.
//!
//! This module is pure. It must not know sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::kernel_state::{Entry, Hop};

/// Interface index of `lo`, the same in every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// Priorities of the IPv6 policy rules, after the local table: the fabric's own packets, packets of
/// known senders, drop.
const RULE_OWN: u32 = 100;
const RULE_SENDER: u32 = 200;
const RULE_DROP: u32 = 300;

/// Names of devices by interface index.
pub(super) type Names<'a> = BTreeMap<u32, &'a str>;

/// The message that adds an entry. `index` is its device's interface index, if it has a device.
pub(super) fn add(entry: &Entry, index: u32) -> RouteNetlinkMessage {
    match entry {
        Entry::Local(at) => RouteNetlinkMessage::NewAddress(address(IpNet::from(*at), LOOPBACK)),
        Entry::Neighbour { address, mac, .. } => {
            RouteNetlinkMessage::NewNeighbour(neighbour(*address, *mac, index))
        }
        Entry::Route { to, hop } => RouteNetlinkMessage::NewRoute(route(*to, hop, index)),
        Entry::Sender { from, device } => RouteNetlinkMessage::NewRule(sender(*from, device)),
    }
}

/// The message that deletes an entry.
pub(super) fn delete(entry: &Entry, index: u32) -> RouteNetlinkMessage {
    match entry {
        Entry::Local(at) => RouteNetlinkMessage::DelAddress(address(IpNet::from(*at), LOOPBACK)),
        Entry::Neighbour { address, mac, .. } => {
            RouteNetlinkMessage::DelNeighbour(neighbour(*address, *mac, index))
        }
        Entry::Route { to, hop } => RouteNetlinkMessage::DelRoute(route(*to, hop, index)),
        Entry::Sender { from, device } => RouteNetlinkMessage::DelRule(sender(*from, device)),
    }
}

/// An address without duplicate address detection: nobody else in the VPC can have it.
pub(super) fn address(net: IpNet, index: u32) -> AddressMessage {
    let mut message = match net {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
    };
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    message
}

/// The default route of a cloud image.
pub(super) fn default_route(router: IpAddr, device: &str, index: u32) -> RouteMessage {
    let everywhere = match router {
        IpAddr::V4(_) => IpNet::from(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::from(Ipv6Net::default()),
    };
    route(everywhere, &Hop::Via { address: router, device: device.to_owned() }, index)
}

/// The rules around those of [`Entry::Sender`]. Together they drop packets of all other senders.
pub(super) fn source_check_rules() -> [RuleMessage; 2] {
    let mut own = rule(RULE_OWN, RuleAction::ToTable);
    own.attributes.push(RuleAttribute::Iifname("lo".to_owned()));
    [own, rule(RULE_DROP, RuleAction::Blackhole)]
}

fn neighbour(address: IpAddr, mac: [u8; 6], index: u32) -> NeighbourMessage {
    let (family, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

fn route(to: IpNet, hop: &Hop, index: u32) -> RouteMessage {
    let mut message = match to {
        IpNet::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.addr(), to.prefix_len())
            .build(),
        IpNet::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.addr(), to.prefix_len())
            .build(),
    };
    match hop {
        Hop::Blackhole => message.header.kind = RouteType::BlackHole,
        Hop::Direct { .. } => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(index));
        }
        Hop::Via { address, .. } => {
            message.attributes.push(RouteAttribute::Oif(index));
            message.attributes.push(RouteAttribute::Gateway((*address).into()));
            message.header.flags = RouteFlags::Onlink;
        }
    }
    message
}

fn sender(from: Ipv6Net, device: &str) -> RuleMessage {
    let mut message = rule(RULE_SENDER, RuleAction::ToTable);
    message.header.src_len = from.prefix_len();
    message.attributes.push(RuleAttribute::Source(from.addr().into()));
    message.attributes.push(RuleAttribute::Iifname(device.to_owned()));
    message
}

fn rule(priority: u32, action: RuleAction) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet6;
    if action == RuleAction::ToTable {
        message.header.table = RouteHeader::RT_TABLE_MAIN;
    }
    message.header.action = action;
    message.attributes.push(RuleAttribute::Priority(priority));
    message
}

/// The entry for an address of `lo`. `None` for the loopback address.
pub(super) fn read_address(message: &AddressMessage) -> Option<Entry> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) if !address.is_loopback() => {
            Some(Entry::Local(*address))
        }
        _ => None,
    })
}

/// The entry for a permanent neighbour of a device in `names`.
pub(super) fn read_neighbour(message: &NeighbourMessage, names: &Names<'_>) -> Option<Entry> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::from(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::from(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    let device = (*names.get(&message.header.ifindex)?).to_owned();
    Some(Entry::Neighbour { address: address?, mac: mac?, device })
}

/// The entry for a static route of the main table. The kernel made all other routes itself.
pub(super) fn read_route(message: &RouteMessage, names: &Names<'_>) -> Option<Entry> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.protocol != RouteProtocol::Static {
        return None;
    }
    let (mut to, mut gateway, mut device) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => device = names.get(index).map(|&name| name.to_owned()),
            _ => {}
        }
    }
    // The kernel omits the destination of a default route.
    let to = to.unwrap_or(match header.address_family {
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    });
    let to = IpNet::new(to, header.destination_prefix_length).ok()?;
    let hop = match (header.kind, gateway) {
        (RouteType::BlackHole, _) => Hop::Blackhole,
        (_, None) => Hop::Direct { device: device? },
        (_, Some(address)) => Hop::Via { address, device: device? },
    };
    Some(Entry::Route { to, hop })
}

/// The entry for an IPv6 rule that allows a sender.
pub(super) fn read_rule(message: &RuleMessage) -> Option<Entry> {
    // The kernel omits the source if it is every source.
    let (mut priority, mut from, mut device) = (0, Ipv6Addr::UNSPECIFIED, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Source(IpAddr::V6(address)) => from = *address,
            RuleAttribute::Iifname(name) => device = Some(name.clone()),
            _ => {}
        }
    }
    let from = Ipv6Net::new(from, message.header.src_len).ok()?;
    (priority == RULE_SENDER).then_some(Entry::Sender { from, device: device? })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::from(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::from(*v6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &RouteNetlinkMessage) -> Option<Entry> {
        let names = BTreeMap::from([(7, "f-1")]);
        match message {
            RouteNetlinkMessage::NewAddress(message) => read_address(message),
            RouteNetlinkMessage::NewNeighbour(message) => read_neighbour(message, &names),
            RouteNetlinkMessage::NewRoute(message) => read_route(message, &names),
            RouteNetlinkMessage::NewRule(message) => read_rule(message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn added_entry_is_read_back() {
        let check = |entry: Entry| assert_eq!(read(&add(&entry, 7)), Some(entry));
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let device = || "f-1".to_owned();
        let (v4, v6) = (IpAddr::from([10, 0, 0, 9]), IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 9]));
        check(Entry::Local(v4));
        check(Entry::Local(v6));
        check(Entry::Neighbour { address: v4, mac: [2, 0, 0, 0, 0, 1], device: device() });
        check(Entry::Neighbour { address: v6, mac: [2, 0, 0, 0, 0, 1], device: device() });
        for to in [net("10.0.1.64/28"), net("2600:1f::/80"), net("10.0.1.1/32")] {
            check(Entry::Route { to, hop: Hop::Blackhole });
            check(Entry::Route { to, hop: Hop::Direct { device: device() } });
        }
        for (to, address) in [(net("10.0.1.64/28"), v4), (net("2600:1f::/80"), v6)] {
            check(Entry::Route { to, hop: Hop::Via { address, device: device() } });
        }
        check(Entry::Sender { from: "2600:1f::/80".parse().unwrap(), device: device() });
        check(Entry::Sender { from: Ipv6Net::default(), device: device() });
    }

    #[test]
    fn kernel_made_routes_and_rules_are_no_entries() {
        let names = Names::new();
        let to: IpNet = "10.0.0.0/16".parse().unwrap();
        let mut kernel = route(to, &Hop::Blackhole, 0);
        assert!(read_route(&kernel, &names).is_some());
        kernel.header.protocol = RouteProtocol::Kernel;
        assert_eq!(read_route(&kernel, &names), None);
        assert_eq!(read_address(&address("127.0.0.1/8".parse().unwrap(), LOOPBACK)), None);
        for rule in source_check_rules() {
            assert_eq!(read_rule(&rule), None);
        }
        let direct = route(to, &Hop::Direct { device: "f-1".to_owned() }, 7);
        assert_eq!(read_route(&direct, &names), None, "not our device");
    }
}
