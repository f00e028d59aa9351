//! Which links there are, and the kernel's news of them, so that a device is taken care of when it appears.

use std::collections::BTreeSet;
use std::io;

use futures::{Stream, StreamExt as _};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;

use crate::link::{self, Link};
use crate::netlink::Netlink;
use crate::{KernelError, MacAddr};

/// What happened to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// It is there: new, or something of it has changed.
    Present {
        /// Its name.
        name: String,
        /// Its hardware address, or [`MacAddr::NONE`].
        mac: MacAddr,
        /// Whether it was set up.
        up: bool,
    },
    /// It has gone.
    Gone {
        /// Its name.
        name: String,
        /// Its hardware address, or [`MacAddr::NONE`].
        mac: MacAddr,
    },
    /// Some news was lost because it came faster than it was read. Whoever follows the links must
    /// look at all of them.
    Missed,
}

/// Why the links are not known.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel does not list them.
    #[error("list the links")]
    List(#[source] KernelError),
}

/// The names of all links in the calling thread's namespace.
///
/// # Errors
///
/// [`NamesError`] if the kernel does not tell.
pub async fn names() -> Result<BTreeSet<String>, NamesError> {
    let netlink = Netlink::open().map_err(NamesError::Socket)?;
    let links = link::list(&netlink).await.map_err(NamesError::List)?;
    Ok(links.into_iter().map(|link| link.name).collect())
}

/// All changes of links in the calling thread's namespace from now on. Ends if the socket fails.
///
/// # Errors
///
/// If no netlink socket can be opened.
pub fn changes() -> io::Result<impl Stream<Item = LinkChange> + Send + Unpin> {
    let (connection, _, news) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    Ok(news.filter_map(|(message, _sender)| std::future::ready(read(message))))
}

fn read(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<LinkChange> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
            let Link { name, mac, up, .. } = Link::from_message(&message);
            Some(LinkChange::Present { name, mac, up })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
            let Link { name, mac, .. } = Link::from_message(&message);
            Some(LinkChange::Gone { name, mac })
        }
        NetlinkPayload::Overrun(_) => Some(LinkChange::Missed),
        _ => None,
    }
}
