//! The names of all links, and the kernel's notifications of their changes.

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
    /// The link is new, or one of its properties has changed.
    Present {
        /// Its name.
        name: String,
        /// Its hardware address, or [`MacAddr::NONE`].
        mac: MacAddr,
        /// Whether it was set up.
        up: bool,
    },
    /// A pod's link waits for removal, see [`crate::retired`].
    Retired {
        /// Its name.
        name: String,
    },
    /// The link has gone.
    Gone {
        /// Its name.
        name: String,
        /// Its hardware address, or [`MacAddr::NONE`].
        mac: MacAddr,
    },
    /// Notifications were lost, because they came faster than they were read. The receiver must
    /// read all links anew.
    Missed,
}

/// Why the links could not be listed.
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
/// [`NamesError`] if the kernel does not list them.
pub async fn names() -> Result<BTreeSet<String>, NamesError> {
    let netlink = Netlink::open().map_err(NamesError::Socket)?;
    let links = link::list(&netlink).await.map_err(NamesError::List)?;
    Ok(links.into_iter().map(|link| link.name).collect())
}

/// All changes of links in the calling thread's namespace from now on. The stream ends if the socket
/// fails.
///
/// # Errors
///
/// If no netlink socket can be opened.
pub fn changes() -> io::Result<impl Stream<Item = LinkChange> + Send + Unpin> {
    let (connection, _, notifications) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    Ok(notifications.filter_map(|(message, _sender)| std::future::ready(read(message))))
}

fn read(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<LinkChange> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
            let link = Link::from_message(&message);
            let retired = link.is_retired();
            let Link { name, mac, up, .. } = link;
            Some(match retired {
                true => LinkChange::Retired { name },
                false => LinkChange::Present { name, mac, up },
            })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
            let Link { name, mac, .. } = Link::from_message(&message);
            Some(LinkChange::Gone { name, mac })
        }
        NetlinkPayload::Overrun(_) => Some(LinkChange::Missed),
        _ => None,
    }
}
