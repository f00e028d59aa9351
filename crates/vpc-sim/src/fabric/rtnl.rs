//! The kernel's side: reads and changes links, and the entries of the fabric's tables, over a
//! netlink socket that was opened inside a namespace.
//!
//! Must not know pictures, nor decide what there should be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::{Stream, TryStreamExt};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::{IpVersion, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::runtime;
use tokio::task::JoinHandle;

use super::body::{Boot, Entry, Hop, Link, ROUTER_V6};
use super::error::KernelError;
use super::netns::Netns;

/// Interface index of `lo`, the same in every namespace.
const LOOPBACK: u32 = 1;

/// Jumbo frames, as every Nitro instance has them inside a VPC
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/network_mtu.html>).
const MTU: u32 = 9001;

/// Link group of the fabric's ends; any but 0, which all other devices are in.
const GROUP: u32 = 1;

/// The IPv6 policy rules, looked at in this order after the local table: what the fabric itself
/// sends; what a known sender sends; nothing else.
const RULE_OWN: u32 = 100;
const RULE_SENDER: u32 = 200;
const RULE_DROP: u32 = 300;

/// A device as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    /// Empty if none was set.
    pub(super) alias: String,
}

/// Devices by name, `lo` left out.
pub(super) type Devices = BTreeMap<String, Device>;

/// A netlink socket of one namespace. Must be made and used within a tokio runtime.
#[derive(Debug)]
pub(super) struct Rtnl {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Rtnl {
    pub(super) fn open(netns: &Netns) -> Result<Self, KernelError> {
        let runtime = runtime::Handle::current();
        let (connection, handle, _) = netns
            .run(|| {
                let _entered = runtime.enter();
                rtnetlink::new_connection()
            })?
            .map_err(KernelError::Socket)?;
        Ok(Self { handle, connection: runtime.spawn(connection) })
    }

    /// The alias of `lo`, empty if it has none.
    pub(super) async fn mark(&self) -> Result<String, KernelError> {
        let request = self.handle.link().get().match_index(LOOPBACK);
        let links = read("lo", request.execute()).await?;
        Ok(links.iter().map(alias).collect())
    }

    pub(super) async fn set_mark(&self, mark: &str) -> Result<(), KernelError> {
        let change = LinkUnspec::new_with_index(LOOPBACK).alias(mark).build();
        done(self.handle.link().set(change).execute().await, || format!("mark lo as {mark:?}"))
    }

    pub(super) async fn set_loopback_up(&self) -> Result<(), KernelError> {
        self.set_up("lo", LOOPBACK).await
    }

    async fn set_up(&self, name: &str, index: u32) -> Result<(), KernelError> {
        let change = LinkUnspec::new_with_index(index).up().build();
        done(self.handle.link().set(change).execute().await, || format!("set {name} up"))
    }

    pub(super) async fn devices(&self) -> Result<Devices, KernelError> {
        let links = read("links", self.handle.link().get().execute()).await?;
        let device = |link: &LinkMessage| {
            let index = link.header.index;
            (index != LOOPBACK).then(|| (name(link), Device { index, alias: alias(link) }))
        };
        Ok(links.iter().filter_map(device).collect())
    }

    /// Makes the pair, the instance's end straight in its namespace: moving an end there would
    /// take 15 ms and more. The fabric's end is up, the instance's end is down.
    ///
    /// `index` is that of the fabric's end. When both ends have the same one, the kernel takes a
    /// second to see that the link is up.
    pub(super) async fn add_link(
        &self,
        link: &Link,
        index: u32,
        instance: &Netns,
    ) -> Result<(), KernelError> {
        let peer = LinkUnspec::new_with_name(&link.label.device)
            .address(link.mac.to_vec())
            .mtu(MTU)
            .setns_by_fd(instance.raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(&link.name, &link.label.device)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .index(index)
            .link_group(GROUP)
            .mtu(MTU)
            .up()
            .build();
        let change = || format!("add device {} for {}", link.name, link.label);
        done(self.handle.link().add(pair).execute().await, change)
    }

    /// Lets the fabric's end speak for the IPv6 router.
    pub(super) async fn add_router_v6(&self, name: &str, index: u32) -> Result<(), KernelError> {
        let router = IpNet::new_assert(ROUTER_V6.into(), 64);
        self.add_address(router, name, index).await
    }

    pub(super) async fn set_alias(
        &self,
        name: &str,
        index: u32,
        alias: &str,
    ) -> Result<(), KernelError> {
        let change = LinkUnspec::new_with_index(index).alias(alias).build();
        done(self.handle.link().set(change).execute().await, || {
            format!("set alias {alias:?} of {name}")
        })
    }

    /// Deletes a pair by one of its ends.
    pub(super) async fn delete_link(&self, name: &str, index: u32) -> Result<(), KernelError> {
        done(self.handle.link().del(index).execute().await, || format!("delete device {name}"))
    }

    /// Deletes all pairs at once. One by one each takes the kernel some 40 ms.
    pub(super) async fn delete_links(&self) -> Result<(), KernelError> {
        let all = LinkMessageBuilder::<LinkUnspec>::new().link_group(GROUP).build();
        match self.handle.link().del_with_message(all).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is_no_device(&error) => Ok(()),
            result => done(result, || "delete all devices".to_owned()),
        }
    }

    /// Sets up the primary ENI as a cloud image does, from within the instance.
    pub(super) async fn boot(&self, name: &str, boot: &Boot) -> Result<(), KernelError> {
        let request = self.handle.link().get().match_name(name);
        let found = read("the primary ENI's device", request.execute()).await?;
        let index = found.first().map(|link| link.header.index).unwrap_or_default();
        self.set_loopback_up().await?;
        self.set_up(name, index).await?;
        for &address in &boot.addresses {
            self.add_address(address, name, index).await?;
        }
        for router in boot.routers() {
            self.add_default_route(router, name, index).await?;
        }
        Ok(())
    }

    /// The rules around those of [`Entry::Sender`].
    pub(super) async fn add_sender_frame(&self) -> Result<(), KernelError> {
        let mut own = rule(RULE_OWN, RuleAction::ToTable);
        own.attributes.push(RuleAttribute::Iifname("lo".to_owned()));
        for (rule, what) in [(own, "own traffic"), (rule(RULE_DROP, RuleAction::Blackhole), "drop")]
        {
            done(self.add_rule(rule).await, || format!("add IPv6 rule for {what}"))?;
        }
        Ok(())
    }

    /// All entries of the kinds that [`Entry`] knows, whoever made them.
    pub(super) async fn entries(&self, devices: &Devices) -> Result<BTreeSet<Entry>, KernelError> {
        let names: BTreeMap<u32, &str> =
            devices.iter().map(|(name, device)| (device.index, name.as_str())).collect();
        let addresses = read(
            "addresses",
            self.handle.address().get().set_link_index_filter(LOOPBACK).execute(),
        )
        .await?;
        let neighbours = read("neighbours", self.handle.neighbours().get().execute()).await?;
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut routes = read("IPv4 routes", self.handle.route().get(v4).execute()).await?;
        routes.extend(read("IPv6 routes", self.handle.route().get(v6).execute()).await?);
        let rules = read("IPv6 rules", self.handle.rule().get(IpVersion::V6).execute()).await?;
        Ok(addresses
            .iter()
            .filter_map(local)
            .chain(neighbours.iter().filter_map(|message| neighbour(message, &names)))
            .chain(routes.iter().filter_map(|message| route(message, &names)))
            .chain(rules.iter().filter_map(sender))
            .collect())
    }

    /// Adds an entry whose device, if it has one, has this index.
    pub(super) async fn add_entry(&self, entry: &Entry, index: u32) -> Result<(), KernelError> {
        let result = match entry {
            Entry::Local(address) => {
                return self.add_address(IpNet::from(*address), "lo", LOOPBACK).await;
            }
            Entry::Neighbour { address, mac, .. } => {
                self.handle
                    .neighbours()
                    .add(index, *address)
                    .link_layer_address(mac)
                    .replace()
                    .execute()
                    .await
            }
            Entry::Route { to, hop } => {
                self.handle.route().add(route_message(*to, hop, index)).execute().await
            }
            Entry::Sender { from, device } => self.add_rule(sender_rule(*from, device)).await,
        };
        done(result, || format!("add {entry}"))
    }

    /// Deletes an entry whose device, if it has one, has this index.
    pub(super) async fn delete_entry(&self, entry: &Entry, index: u32) -> Result<(), KernelError> {
        let result = match entry {
            Entry::Local(address) => {
                let message = self.address_message(IpNet::from(*address), LOOPBACK);
                self.handle.address().del(message).execute().await
            }
            Entry::Neighbour { address, .. } => {
                let message = self.handle.neighbours().add(index, *address).message_mut().clone();
                self.handle.neighbours().del(message).execute().await
            }
            Entry::Route { to, hop } => {
                self.handle.route().del(route_message(*to, hop, index)).execute().await
            }
            Entry::Sender { from, device } => {
                self.handle.rule().del(sender_rule(*from, device)).execute().await
            }
        };
        done(result, || format!("delete {entry}"))
    }

    async fn add_address(&self, net: IpNet, name: &str, index: u32) -> Result<(), KernelError> {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len());
        *request.message_mut() = self.address_message(net, index);
        done(request.execute().await, || format!("add address {net} dev {name}"))
    }

    /// Usable at once: nobody else in the VPC can have it, so there is nothing to detect.
    fn address_message(&self, net: IpNet, index: u32) -> AddressMessage {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len());
        let message = request.message_mut();
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        message.clone()
    }

    async fn add_default_route(
        &self,
        router: IpAddr,
        name: &str,
        index: u32,
    ) -> Result<(), KernelError> {
        let default = match router {
            IpAddr::V4(_) => IpNet::from(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::from(Ipv6Net::default()),
        };
        let hop = Hop::Via { address: router, device: name.to_owned() };
        let route = route_message(default, &hop, index);
        done(self.handle.route().add(route).execute().await, || {
            format!("add route default via {router} dev {name}")
        })
    }

    async fn add_rule(&self, rule: RuleMessage) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule;
        request.execute().await
    }
}

async fn read<T>(
    what: &'static str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, KernelError> {
    stream.try_collect().await.map_err(|source| KernelError::Read { what, source })
}

fn done(
    result: Result<(), rtnetlink::Error>,
    change: impl FnOnce() -> String,
) -> Result<(), KernelError> {
    result.map_err(|source| KernelError::Change { change: change(), source })
}

fn is_no_device(error: &ErrorMessage) -> bool {
    error.to_io().raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn name(link: &LinkMessage) -> String {
    let name = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    };
    link.attributes.iter().find_map(name).unwrap_or_default()
}

fn alias(link: &LinkMessage) -> String {
    let alias = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.clone()),
        _ => None,
    };
    link.attributes.iter().find_map(alias).unwrap_or_default()
}

fn local(message: &AddressMessage) -> Option<Entry> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) if !address.is_loopback() => {
            Some(Entry::Local(*address))
        }
        _ => None,
    })
}

fn neighbour(message: &NeighbourMessage, names: &BTreeMap<u32, &str>) -> Option<Entry> {
    let device = (*names.get(&message.header.ifindex)?).to_owned();
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
    (message.header.state == NeighbourState::Permanent).then_some(())?;
    Some(Entry::Neighbour { address: address?, mac: mac?, device })
}

fn route(message: &RouteMessage, names: &BTreeMap<u32, &str>) -> Option<Entry> {
    let header = &message.header;
    // Other tables and protocols are the kernel's own doing.
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
    let to = IpNet::new(to?, header.destination_prefix_length).ok()?;
    let hop = match (header.kind, gateway) {
        (RouteType::BlackHole, _) => Hop::Blackhole,
        (_, None) => Hop::Direct { device: device? },
        (_, Some(address)) => Hop::Via { address, device: device? },
    };
    Some(Entry::Route { to, hop })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::from(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::from(*v6)),
        _ => None,
    }
}

fn route_message(to: IpNet, hop: &Hop, index: u32) -> RouteMessage {
    match (to, hop) {
        (IpNet::V4(to), hop) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.addr(), to.prefix_len());
            with_hop(route, hop, index)
        }
        (IpNet::V6(to), hop) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.addr(), to.prefix_len());
            with_hop(route, hop, index)
        }
    }
}

fn with_hop<T>(route: RouteMessageBuilder<T>, hop: &Hop, index: u32) -> RouteMessage {
    match hop {
        Hop::Blackhole => route.kind(RouteType::BlackHole).build(),
        Hop::Direct { .. } => route
            .output_interface(index)
            .scope(netlink_packet_route::route::RouteScope::Link)
            .build(),
        Hop::Via { address, .. } => {
            let mut message = route.output_interface(index).onlink().build();
            message.attributes.push(RouteAttribute::Gateway((*address).into()));
            message
        }
    }
}

fn sender(message: &RuleMessage) -> Option<Entry> {
    let (mut priority, mut from, mut device) = (0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Source(IpAddr::V6(address)) => from = Some(*address),
            RuleAttribute::Iifname(name) => device = Some(name.clone()),
            _ => {}
        }
    }
    let from = Ipv6Net::new(from?, message.header.src_len).ok()?;
    (priority == RULE_SENDER).then_some(Entry::Sender { from, device: device? })
}

fn sender_rule(from: Ipv6Net, device: &str) -> RuleMessage {
    let mut message = rule(RULE_SENDER, RuleAction::ToTable);
    message.header.src_len = from.prefix_len();
    message.attributes.push(RuleAttribute::Source(from.addr().into()));
    message.attributes.push(RuleAttribute::Iifname(device.to_owned()));
    message
}

fn rule(priority: u32, action: RuleAction) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = netlink_packet_route::AddressFamily::Inet6;
    if action == RuleAction::ToTable {
        message.header.table = RouteHeader::RT_TABLE_MAIN;
    }
    message.header.action = action;
    message.attributes.push(RuleAttribute::Priority(priority));
    message
}
