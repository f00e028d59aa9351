//! Which attachments are being added: from the ADD until its caller hangs up. The plugin hangs up after
//! it has made the link, when it gives up, and when it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, Weak};

use ipam::id::AttachmentKey;
use tokio::net::unix::SocketAddr;
use tonic::transport::server::UdsConnectInfo;

/// The open ADDs, each with its connection.
///
/// tonic gives every request of a connection the same copy of the peer's address, and drops it with the
/// connection. The caller is connected as long as that copy exists.
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
