//! The kernel's notifications of what may disturb the network of a pod or an ENI: objects that have gone, and
//! addresses and default routes that have come.

mod sysctls;

use std::io;
use std::net::IpAddr;

use futures::{Stream, StreamExt as _};
use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;

use crate::RouteTable;
use crate::address;
use crate::host::kernel_rules;
use crate::link::Link;
use crate::nat::ListedMainRule;
use crate::route::Route;
use crate::rule::ListedRule;

/// What has gone or come. Whoever receives it reads the kernel before changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disturbance {
    /// A rule for the packets of one address has gone.
    RuleLost(IpAddr),
    /// A rule that leads marked packets or a range to the main table has gone.
    MainRuleLost,
    /// A rule has gone that leads all packets to a table of the kernel's own.
    KernelRuleLost,
    /// A route has gone.
    RouteLost {
        /// Its destination.
        destination: IpNet,
        /// Its table.
        table: RouteTable,
    },
    /// A link with a mark is down. Its routes go without further notifications.
    LinkDown,
    /// The host has got an address, of whatever link.
    HostAddress(IpAddr),
    /// An address of the host has gone, of whatever link.
    AddressLost(IpAddr),
    /// Somebody has changed how the host forwards, or how a device of it filters by the reverse path.
    Sysctl,
    /// The main table has got a default route.
    DefaultRoute,
    /// Notifications were lost, because they came faster than they were read.
    Missed,
}

/// All disturbances in the calling thread's namespace from now on. The stream ends if the socket fails.
///
/// # Errors
///
/// If no netlink socket can be opened.
pub fn disturbances() -> io::Result<impl Stream<Item = Disturbance> + Send + Unpin> {
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
    let objects = notifications.filter_map(|(message, _sender)| std::future::ready(read(message)));
    Ok(Box::pin(futures::stream::select(objects, sysctls::changes()?)))
}

fn read(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Disturbance> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRule(message)) => {
            let of_address = ListedRule::from_message(&message);
            let of_address = of_address.map(|it| Disturbance::RuleLost(it.rule.address()));
            let to_main = ListedMainRule::from_message(&message);
            let of_kernel = kernel_rules::is_own(&message).then_some(Disturbance::KernelRuleLost);
            to_main.map(|_| Disturbance::MainRuleLost).or(of_kernel).or(of_address)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(message)) => {
            let Route { destination, table, .. } = Route::from_message(&message)?;
            Some(Disturbance::RouteLost { destination, table })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(message)) => {
            let Route { destination, table, .. } = Route::from_message(&message)?;
            let is_default = destination.prefix_len() == 0 && table == RouteTable::MAIN;
            is_default.then_some(Disturbance::DefaultRoute)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
            let link = Link::from_message(&message);
            (link.owner.is_some() && !link.up && !link.is_retired())
                .then_some(Disturbance::LinkDown)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
            address::global(&message).map(|(_, address)| Disturbance::HostAddress(address.addr()))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message)) => {
            address::global(&message).map(|(_, address)| Disturbance::AddressLost(address.addr()))
        }
        NetlinkPayload::Overrun(_) => Some(Disturbance::Missed),
        _ => None,
    }
}
