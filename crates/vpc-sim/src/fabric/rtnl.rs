//! A netlink socket inside a namespace: reads and changes devices and the fabric's tables.
//!
//! This module must not know snapshots, nor decide what the kernel must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use futures::{Stream, StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::{IpVersion, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::runtime;
use tokio::task::JoinHandle;

use super::error::KernelError;
use super::kernel_state::{Boot, Entry, Link, ROUTER_V6};
use super::message::{self, LOOPBACK, Names};
use super::netns::Netns;

/// Jumbo frames, as on every Nitro instance inside a VPC
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/network_mtu.html>).
const MTU: u32 = 9001;

/// Link group of the fabric's ends. Any number but 0, the group of all other devices.
const GROUP: u32 = 1;

/// Flags of an addition: it fails if the object exists.
const ADD: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A device in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    /// Empty if the device has no alias.
    pub(super) alias: String,
}

/// Devices by name.
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

    /// The devices made by [`Rtnl::add_link`]. Other devices, such as the tunnels that some kernels
    /// put into every new namespace, are left alone.
    pub(super) async fn devices(&self) -> Result<Devices, KernelError> {
        let links = read("links", self.handle.link().get().execute()).await?;
        let ours =
            links.iter().filter(|link| link.attributes.contains(&LinkAttribute::Group(GROUP)));
        Ok(ours
            .map(|link| (name(link), Device { index: link.header.index, alias: alias(link) }))
            .collect())
    }

    /// Makes the pair, with the instance's end directly in its namespace: moving an end there would
    /// take 15 ms or more. The fabric's end is up, the instance's end is down.
    ///
    /// `index` is the interface index of the fabric's end. If both ends had the same index, the
    /// kernel would take a second to notice that the link is up.
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

    /// Adds the IPv6 router's address to the fabric's end.
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

    /// Deletes all pairs at once. Deleting them one by one would take the kernel about 40 ms each.
    pub(super) async fn delete_links(&self) -> Result<(), KernelError> {
        let all = LinkMessageBuilder::<LinkUnspec>::new().link_group(GROUP).build();
        match self.handle.link().del_with_message(all).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is_no_device(&error) => Ok(()),
            result => done(result, || "delete all devices".to_owned()),
        }
    }

    /// Configures the primary ENI as a cloud image does, from within the instance.
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
            let route = message::default_route(router, name, index);
            self.request(RouteNetlinkMessage::NewRoute(route), ADD, || {
                format!("add route default via {router} dev {name}")
            })
            .await?;
        }
        Ok(())
    }

    /// Drops all IPv6 packets except the fabric's own and those that an [`Entry::Sender`] allows.
    pub(super) async fn add_source_check_rules(&self) -> Result<(), KernelError> {
        for rule in message::source_check_rules() {
            let change = || "add an IPv6 source check rule".to_owned();
            self.request(RouteNetlinkMessage::NewRule(rule), ADD, change).await?;
        }
        Ok(())
    }

    /// All entries of the kinds in [`Entry`], whoever made them, except those of other devices.
    pub(super) async fn entries(&self, devices: &Devices) -> Result<BTreeSet<Entry>, KernelError> {
        let names: Names<'_> =
            devices.iter().map(|(name, device)| (device.index, name.as_str())).collect();
        let addresses = self.handle.address().get().set_link_index_filter(LOOPBACK);
        let addresses = read("addresses", addresses.execute()).await?;
        let neighbours = read("neighbours", self.handle.neighbours().get().execute()).await?;
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v4 = read("IPv4 routes", self.handle.route().get(v4).execute()).await?;
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let v6 = read("IPv6 routes", self.handle.route().get(v6).execute()).await?;
        let rules = read("IPv6 rules", self.handle.rule().get(IpVersion::V6).execute()).await?;
        let addresses = addresses.iter().filter_map(message::read_address);
        let neighbours = neighbours.iter().filter_map(|it| message::read_neighbour(it, &names));
        let routes = v4.iter().chain(&v6).filter_map(|it| message::read_route(it, &names));
        let rules = rules.iter().filter_map(message::read_rule);
        Ok(addresses.chain(neighbours).chain(routes).chain(rules).collect())
    }

    /// Adds an entry. `index` is its device's interface index, if it has a device.
    pub(super) async fn add_entry(&self, entry: &Entry, index: u32) -> Result<(), KernelError> {
        self.request(message::add(entry, index), ADD, || format!("add {entry}")).await
    }

    /// Deletes an entry. `index` is its device's interface index, if it has a device.
    pub(super) async fn delete_entry(&self, entry: &Entry, index: u32) -> Result<(), KernelError> {
        self.request(message::delete(entry, index), 0, || format!("delete {entry}")).await
    }

    async fn add_address(&self, net: IpNet, name: &str, index: u32) -> Result<(), KernelError> {
        let address = RouteNetlinkMessage::NewAddress(message::address(net, index));
        self.request(address, ADD, || format!("add address {net} dev {name}")).await
    }

    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        change: impl FnOnce() -> String,
    ) -> Result<(), KernelError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        done(acknowledged(self.handle.clone(), request).await, change)
    }
}

async fn acknowledged(
    mut handle: rtnetlink::Handle,
    request: NetlinkMessage<RouteNetlinkMessage>,
) -> Result<(), rtnetlink::Error> {
    let mut replies = handle.request(request)?;
    while let Some(reply) = replies.next().await {
        // An error message without a code is the acknowledgement.
        if let NetlinkPayload::Error(error) = reply.payload
            && error.code.is_some()
        {
            return Err(rtnetlink::Error::NetlinkError(error));
        }
    }
    Ok(())
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
