//! Which attachments are being added: from the ADD until its caller hangs up. The plugin hangs up after
//! it has made the link, when it gives up, and when it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, Weak};

use ipam::id::AttachmentKey;
use tokio::net::unix::SocketAddr;
use tonic::transport::server::UdsConnectInfo;

/// The open ADDs, each with its connections: a runtime may ask twice for one attachment, and a plugin asks
/// again over a new connection.
///
/// tonic gives every request of a connection the same copy of the peer's address, and drops it with the
/// connection. The caller is connected as long as that copy exists.
#[derive(Debug, Default)]
pub(crate) struct Adding(Mutex<BTreeMap<AttachmentKey, Vec<Weak<SocketAddr>>>>);

impl Adding {
    /// Notes that `key` is being added over `connection`.
    pub(crate) fn begin(&self, key: AttachmentKey, connection: Option<&UdsConnectInfo>) {
        let Some(peer) = connection.and_then(|info| info.peer_addr.as_ref()) else { return };
        let mut adds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        adds.retain(|_, peers| {
            peers.retain(|peer| peer.strong_count() > 0);
            !peers.is_empty()
        });
        adds.entry(key).or_default().push(std::sync::Arc::downgrade(peer));
    }

    /// Container id and interface name of each attachment that is being added.
    pub(crate) fn attachments(&self) -> BTreeSet<(String, String)> {
        let adds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |peers: &[Weak<SocketAddr>]| peers.iter().any(|peer| peer.strong_count() > 0);
        let open = adds.iter().filter(|(_, peers)| is_open(peers));
        open.map(|(key, _)| (key.container.clone(), key.ifname.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::UnixStream;

    use super::*;

    fn connection() -> UdsConnectInfo {
        let (stream, _) = UnixStream::pair().unwrap();
        let peer_addr = Some(Arc::new(stream.peer_addr().unwrap()));
        UdsConnectInfo { peer_addr, peer_cred: None }
    }

    #[tokio::test]
    async fn add_stays_open_if_a_second_one_hangs_up() {
        let (adding, first, second) = (Adding::default(), connection(), connection());
        let key = AttachmentKey {
            network: "net".into(),
            container: "c1".to_owned(),
            ifname: "eth0".to_owned(),
        };
        adding.begin(key.clone(), Some(&first));
        adding.begin(key, Some(&second));
        drop(second);
        assert_eq!(adding.attachments().len(), 1);
        drop(first);
        assert_eq!(adding.attachments().len(), 0);
    }
}
