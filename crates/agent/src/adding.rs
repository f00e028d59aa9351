//! Which attachments are being added: from their Add on until its caller hangs up. The plugin does
//! so when the link is made, when it has given up, and when it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, Weak};

use ipam::id::AttachmentKey;
use tokio::net::unix::SocketAddr;
use tonic::transport::server::UdsConnectInfo;

/// The open Adds, each with its connection.
///
/// tonic gives every request of a connection the same copy of the peer's address and drops it with
/// the connection, so that copy tells whether the caller is still there.
#[derive(Debug, Default)]
pub(crate) struct Adding(Mutex<BTreeMap<AttachmentKey, Weak<SocketAddr>>>);

impl Adding {
    /// Notes that `key` is being added over `connection`.
    pub(crate) fn begin(&self, key: AttachmentKey, connection: Option<&UdsConnectInfo>) {
        let Some(peer) = connection.and_then(|info| info.peer_addr.as_ref()) else { return };
        let mut adds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        adds.retain(|_, peer| peer.strong_count() > 0);
        adds.insert(key, std::sync::Arc::downgrade(peer));
    }

    /// Container id and interface name of each attachment that is being added.
    pub(crate) fn attachments(&self) -> BTreeSet<(String, String)> {
        let adds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = adds.iter().filter(|(_, peer)| peer.strong_count() > 0);
        open.map(|(key, _)| (key.container.clone(), key.ifname.clone())).collect()
    }
}
