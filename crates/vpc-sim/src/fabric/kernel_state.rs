//! The kernel state for a snapshot: the devices, and the entries of the fabric's tables.
//!
//! This module is pure. Its siblings read the kernel and apply the difference. It must not know
//! netlink.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::gateway::{OUTSIDE_MAC, OUTSIDE_V4, Outside};
use super::netns::NetnsName;
use super::snapshot::{AttachedEni, Instance, VpcSnapshot, router};

/// Instance metadata, on link-local addresses that are the same in every VPC
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>).
pub(super) const IMDS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The VPC's IPv6 router, the same in every subnet. amazon-vpc-cni-k8s relies on it too.
pub(super) const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);

/// The devices and table entries of a whole fabric.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KernelState {
    /// Links in the order in which they are made.
    pub(super) links: Vec<Link>,
    /// The entries of the fabric's tables for these links.
    pub(super) entries: BTreeSet<Entry>,
}

/// A veth pair: one end in the fabric, the other in an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Name of the fabric's end. It follows from the MAC, so it is always the same.
    pub(super) name: String,
    /// The place of the other end.
    pub(super) label: Label,
    /// MAC address of the instance's end.
    pub(super) mac: [u8; 6],
    /// Whether its packets must have one of its addresses as their source.
    pub(super) source_check: bool,
    /// Whether the router advertises itself on it.
    pub(super) advertised: bool,
    /// The boot configuration, for the primary ENI only.
    pub(super) boot: Option<Boot>,
}

/// The ENI of a fabric device. The kernel keeps it as the device's alias. The alias also marks a
/// completed setup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) eni: String,
    pub(super) netns: NetnsName,
    /// Name of the instance's end.
    pub(super) device: String,
}

/// What a cloud image configures on the primary ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    /// IPv4 addresses with the subnet's prefix length; IPv6 addresses with /128, as DHCPv6 gives
    /// them.
    pub(super) addresses: Vec<IpNet>,
}

impl Link {
    /// Settings of the fabric's end, below `/proc/sys/net`. Netlink cannot read them, so they are
    /// written each time.
    pub(super) fn sysctls(&self) -> [(String, &'static str); 2] {
        let name = &self.name;
        [
            // Otherwise ARP answers wait for a random time of up to 0.8 s.
            (format!("ipv4/neigh/{name}/proxy_delay"), "0"),
            (format!("ipv4/conf/{name}/rp_filter"), if self.source_check { "1" } else { "0" }),
        ]
    }
}

impl Boot {
    /// Settings of the instance's end, below `/proc/sys/net`. The image's network daemon reads
    /// advertisements itself, so that the kernel must not, and its default route is there already.
    pub(super) fn sysctls(&self, device: &str) -> [(String, &'static str); 1] {
        [(format!("ipv6/conf/{device}/accept_ra"), "0")]
    }

    /// Next hops of the default routes, one per family that has an address.
    pub(super) fn routers(&self) -> impl Iterator<Item = IpAddr> {
        let next_hop = |net: &IpNet| match net {
            IpNet::V4(net) => IpAddr::V4(router(*net)),
            IpNet::V6(_) => IpAddr::V6(ROUTER_V6),
        };
        self.addresses.iter().map(next_hop).collect::<BTreeSet<_>>().into_iter()
    }
}

/// An entry of one of the fabric's tables. Entries sort in the order in which they must be added: a
/// route needs its neighbour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// An address of the fabric itself.
    Local(IpAddr),
    /// A fixed neighbour. The fabric need not ask for the next hop's MAC, and only the ENI can be
    /// it.
    Neighbour { address: IpAddr, mac: [u8; 6], device: String },
    /// The route to these addresses.
    Route { to: IpNet, hop: Hop },
    /// Allows these IPv6 source addresses from this device. IPv4 has strict `rp_filter` for this;
    /// IPv6 has no such setting.
    Sender { from: Ipv6Net, device: String },
}

/// The next hop of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hop {
    /// The packet is dropped silently.
    Blackhole,
    /// To the neighbour with the packet's destination address.
    Direct { device: String },
    /// To this neighbour.
    Via { address: IpAddr, device: String },
}

impl KernelState {
    pub(super) fn of(snapshot: &VpcSnapshot) -> Self {
        let outside = snapshot.routing.outside.as_ref().map(Outside::instance);
        let instances = || snapshot.instances.iter().chain(&outside);
        let enis = || instances().flat_map(|instance| &instance.enis);
        let mut entries = BTreeSet::from(IMDS.map(Entry::Local));
        entries.extend(enis().filter_map(|eni| Some(Entry::Local(eni.router()?.into()))));
        entries.extend(snapshot.cidrs.iter().map(|&to| Entry::Route { to, hop: Hop::Blackhole }));
        entries.extend(enis().flat_map(delivery));
        if outside.is_some() {
            entries.extend(default_routes());
        }
        Self { links: instances().flat_map(links).collect(), entries }
    }
}

impl Entry {
    /// The fabric's device that the entry needs.
    pub(super) fn device(&self) -> Option<&str> {
        match self {
            Self::Local(_) | Self::Route { hop: Hop::Blackhole, .. } => None,
            Self::Neighbour { device, .. }
            | Self::Route { hop: Hop::Direct { device } | Hop::Via { device, .. }, .. }
            | Self::Sender { device, .. } => Some(device),
        }
    }
}

/// The primary ENI comes first, so that it gets the lowest interface index, as on a real instance.
fn links(instance: &Instance) -> Vec<Link> {
    let mut enis: Vec<&AttachedEni> = instance.enis.iter().collect();
    enis.sort_by_key(|eni| (!eni.is_primary, eni.network_card, eni.device_index));
    let link = |eni: &AttachedEni| Link {
        name: fabric_device(eni.mac),
        label: Label {
            eni: eni.id.clone(),
            netns: instance.netns.clone(),
            device: instance_device(eni.network_card, eni.device_index),
        },
        mac: eni.mac,
        source_check: eni.source_dest_check,
        advertised: eni.in_ipv6_subnet,
        boot: eni.is_primary.then(|| boot(eni)),
    };
    enis.into_iter().map(link).collect()
}

fn boot(eni: &AttachedEni) -> Boot {
    let ipv6 = |net: &&IpNet| matches!(net, IpNet::V6(net) if net.prefix_len() == 128);
    let ipv4 = eni.ipv4.map(IpNet::V4).into_iter();
    Boot { addresses: ipv4.chain(eni.assigned.iter().filter(ipv6).copied()).collect() }
}

/// The entries that deliver exactly the ENI's addresses to it, and accept packets from it.
fn delivery(eni: &AttachedEni) -> Vec<Entry> {
    let device = fabric_device(eni.mac);
    let next_hop_v6 = link_local(eni.mac);
    let neighbour = |address| Entry::Neighbour { address, mac: eni.mac, device: device.clone() };
    let mut entries = Vec::new();
    let primary = eni.ipv4.map(|net| IpAddr::from(net.addr()));
    if let Some(primary) = primary {
        entries.push(neighbour(primary));
        let hop = Hop::Direct { device: device.clone() };
        entries.push(Entry::Route { to: primary.into(), hop });
    }
    for &to in &eni.assigned {
        let address = match to {
            IpNet::V4(_) => primary.expect("only an ENI with a primary IPv4 address has more"),
            IpNet::V6(from) => {
                let from = if eni.source_dest_check { from } else { Ipv6Net::default() };
                entries.push(neighbour(next_hop_v6.into()));
                entries.push(Entry::Sender { from, device: device.clone() });
                next_hop_v6.into()
            }
        };
        entries.push(Entry::Route { to, hop: Hop::Via { address, device: device.clone() } });
    }
    entries
}

/// What no VPC has goes to the outside.
fn default_routes() -> [Entry; 2] {
    let device = Outside::device();
    let to_outside = |to: IpNet, address: IpAddr| Entry::Route {
        to,
        hop: Hop::Via { address, device: device.clone() },
    };
    [
        to_outside(Ipv4Net::default().into(), OUTSIDE_V4.addr().into()),
        to_outside(Ipv6Net::default().into(), link_local(OUTSIDE_MAC).into()),
    ]
}

pub(super) fn fabric_device(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("f-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
}

/// The name that a Nitro instance gives a device by its PCI slot: `ens5`, `ens6`, … on the first
/// network card.
fn instance_device(network_card: u16, device_index: u16) -> String {
    let slot = u32::from(device_index) + 5;
    match network_card {
        0 => format!("ens{slot}"),
        card => format!("enp{card}s{slot}"),
    }
}

/// The link-local address that a kernel derives from the MAC (RFC 4291, appendix A). It only names
/// the next hop; the neighbour entry holds its MAC.
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let [x, y, z, w] = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    Ipv6Addr::new(0xfe80, 0, 0, 0, x, y, z, w)
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.eni, self.netns, self.device)
    }
}

/// The text is not a [`Label`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoLabel;

impl FromStr for Label {
    type Err = NoLabel;

    fn from_str(text: &str) -> Result<Self, NoLabel> {
        let mut words = text.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(eni), Some(netns), Some(device), None) => Ok(Self {
                eni: eni.to_owned(),
                netns: netns.parse().map_err(|_| NoLabel)?,
                device: device.to_owned(),
            }),
            _ => Err(NoLabel),
        }
    }
}

/// Prints the entry as an argument list of `ip`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(address) => write!(f, "address {address} dev lo"),
            Self::Neighbour { address, mac, device } => {
                let [a, b, c, d, e, g] = mac;
                write!(f, "neighbour {address} lladdr ")?;
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} dev {device}")
            }
            Self::Route { to, hop: Hop::Blackhole } => write!(f, "route blackhole {to}"),
            Self::Route { to, hop: Hop::Direct { device } } => write!(f, "route {to} dev {device}"),
            Self::Route { to, hop: Hop::Via { address, device } } => {
                write!(f, "route {to} via {address} dev {device} onlink")
            }
            Self::Sender { from, device } => {
                write!(f, "rule from {from} iif {device} lookup main")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::gateway::Routing;

    fn eni(index: u16, assigned: &[&str]) -> AttachedEni {
        AttachedEni {
            id: format!("eni-{index}"),
            mac: [2, 0, 0, 0, 0, 0x10 + u8::try_from(index).unwrap()],
            network_card: 0,
            device_index: index,
            is_primary: index == 0,
            ipv4: Some(format!("10.0.1.{}/24", 10 + index).parse().unwrap()),
            assigned: assigned.iter().map(|net| net.parse().unwrap()).collect(),
            in_ipv6_subnet: false,
            source_dest_check: true,
        }
    }

    fn snapshot(enis: Vec<AttachedEni>) -> VpcSnapshot {
        VpcSnapshot {
            cidrs: BTreeSet::from(["10.0.0.0/16".parse().unwrap()]),
            instances: vec![Instance { netns: "node-a".parse().unwrap(), enis }],
            routing: Routing::default(),
        }
    }

    #[test]
    fn entries_follow_assigned_addresses() {
        let check = |enis: Vec<AttachedEni>, expect: &str| {
            let entries = KernelState::of(&snapshot(enis)).entries;
            let text: Vec<String> = entries.iter().map(Entry::to_string).collect();
            let expect: Vec<&str> = expect.lines().map(str::trim).collect();
            assert_eq!(text, expect);
        };
        check(
            vec![],
            "address 169.254.169.254 dev lo
             address fd00:ec2::254 dev lo
             route blackhole 10.0.0.0/16",
        );
        check(
            vec![eni(0, &[]), eni(1, &["10.0.1.50/32", "10.0.1.64/28", "2600:1f:0:1:a::/80"])],
            "address 10.0.1.1 dev lo
             address 169.254.169.254 dev lo
             address fd00:ec2::254 dev lo
             neighbour 10.0.1.10 lladdr 02:00:00:00:00:10 dev f-020000000010
             neighbour 10.0.1.11 lladdr 02:00:00:00:00:11 dev f-020000000011
             neighbour fe80::ff:fe00:11 lladdr 02:00:00:00:00:11 dev f-020000000011
             route blackhole 10.0.0.0/16
             route 10.0.1.10/32 dev f-020000000010
             route 10.0.1.11/32 dev f-020000000011
             route 10.0.1.50/32 via 10.0.1.11 dev f-020000000011 onlink
             route 10.0.1.64/28 via 10.0.1.11 dev f-020000000011 onlink
             route 2600:1f:0:1:a::/80 via fe80::ff:fe00:11 dev f-020000000011 onlink
             rule from 2600:1f:0:1:a::/80 iif f-020000000011 lookup main",
        );
    }

    #[test]
    fn outside_gets_what_no_vpc_has() {
        let mut snapshot = snapshot(vec![]);
        snapshot.routing.outside = Some(Outside {
            netns: "outside".parse().unwrap(),
            leaving: Default::default(),
            reachable: Default::default(),
            open: Default::default(),
        });
        let state = KernelState::of(&snapshot);
        let text: Vec<String> = state.entries.iter().map(Entry::to_string).collect();
        for expect in [
            "address 198.51.100.1 dev lo",
            "route 0.0.0.0/0 via 198.51.100.10 dev f-120000000001 onlink",
            "route ::/0 via fe80::1000:ff:fe00:1 dev f-120000000001 onlink",
            "route 2001:db8:ffff::10/128 via fe80::1000:ff:fe00:1 dev f-120000000001 onlink",
            "rule from ::/0 iif f-120000000001 lookup main",
        ] {
            assert!(text.iter().any(|entry| entry == expect), "{expect}: {text:#?}");
        }
        assert_eq!(state.links[0].label.to_string(), "outside outside ens5");
    }

    #[test]
    fn source_check_off_allows_any_sender() {
        let unchecked = AttachedEni { source_dest_check: false, ..eni(0, &["2600:1f:0:1:a::/80"]) };
        let body = KernelState::of(&snapshot(vec![unchecked]));
        let device = "f-020000000010".to_owned();
        assert_eq!(body.links[0].sysctls()[1], (format!("ipv4/conf/{device}/rp_filter"), "0"));
        assert!(body.entries.contains(&Entry::Sender { from: Ipv6Net::default(), device }));
    }

    #[test]
    fn only_primary_eni_is_booted() {
        let body = KernelState::of(&snapshot(vec![
            AttachedEni { in_ipv6_subnet: true, ..eni(1, &["2600:1f::7/128"]) },
            eni(0, &["10.0.1.50/32", "2600:1f::5/128", "2600:1f:0:1:a::/80"]),
        ]));
        let [primary, second] = &body.links[..] else { panic!("{:?}", body.links) };
        assert_eq!(primary.label.device, "ens5");
        let boot = primary.boot.as_ref().unwrap();
        let addresses: Vec<String> = boot.addresses.iter().map(IpNet::to_string).collect();
        assert_eq!(addresses, ["10.0.1.10/24", "2600:1f::5/128"]);
        let routers: Vec<String> = boot.routers().map(|it| it.to_string()).collect();
        assert_eq!(routers, ["10.0.1.1", "fe80:ec2::1"]);
        assert_eq!(second.label.device, "ens6");
        assert_eq!(second.boot, None);
        assert_eq!((primary.advertised, second.advertised), (false, true));
    }

    #[test]
    fn device_names_fit_kernel_limit() {
        const IFNAMSIZ: usize = 16;
        assert!(fabric_device([0xff; 6]).len() < IFNAMSIZ);
        assert_eq!(instance_device(0, 0), "ens5");
        assert_eq!(instance_device(0, 3), "ens8");
        assert_eq!(instance_device(2, 1), "enp2s6");
        assert!(instance_device(u16::MAX, u16::MAX).len() < IFNAMSIZ);
    }

    #[test]
    fn label_round_trips_as_alias() {
        let check = |text: &str, expect: bool| {
            let label = text.parse::<Label>();
            assert_eq!(label.is_ok(), expect, "{text:?}");
            if let Ok(label) = label {
                assert_eq!(label.to_string(), text);
            }
        };
        check("eni-0a node-a ens5", true);
        check("eni-0a node-a", false);
        check("eni-0a node-a ens5 x", false);
        check("eni-0a ../up ens5", false);
        check("", false);
    }
}
