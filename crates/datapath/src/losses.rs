//! The kernel's notifications that something of a pod's or an ENI's network has gone, or that an address has come.

use std::io;
use std::net::IpAddr;

use futures::{Stream, StreamExt as _};
use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;

use crate::RouteTable;
use crate::address;
use crate::link::Link;
use crate::route::Route;
use crate::rule::ListedRule;

/// What has gone or come. Whoever receives it reads the kernel before changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// A rule for the packets of one address.
    Rule(IpAddr),
    /// A route.
    Route {
        /// Its destination.
        destination: IpNet,
        /// Its table.
        table: RouteTable,
    },
    /// A link with a mark is down. Its routes go without further notifications.
    MarkedLinkDown,
    /// The host has got an address, of whatever link.
    HostAddress(IpAddr),
    /// Notifications were lost, because they came faster than they were read.
    Missed,
}

/// All losses in the calling thread's namespace from now on. The stream ends if the socket fails.
///
/// # Errors
///
/// If no netlink socket can be opened.
pub fn losses() -> io::Result<impl Stream<Item = Loss> + Send + Unpin> {
    let (connection, _, notifications) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ])?;
    tokio::spawn(connection);
    Ok(notifications.filter_map(|(message, _sender)| std::future::ready(read(message))))
}

fn read(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Loss> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRule(message)) => {
            ListedRule::from_message(&message).map(|listed| Loss::Rule(listed.rule.address()))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(message)) => {
            let Route { destination, table, .. } = Route::from_message(&message)?;
            Some(Loss::Route { destination, table })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
            let link = Link::from_message(&message);
            (link.owner.is_some() && !link.up).then_some(Loss::MarkedLinkDown)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
            address::global(&message).map(|(_, address)| Loss::HostAddress(address.addr()))
        }
        NetlinkPayload::Overrun(_) => Some(Loss::Missed),
        _ => None,
    }
}
