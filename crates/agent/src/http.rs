//! HTTP servers for programs that ask the daemon about itself. Each caller gets one answer, within bounds of time and
//! size. The number of callers at once is bounded too. A new caller never waits for slow ones: one of these is dropped.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

/// Callers that are served at once. Usually one or two programs ask.
const CALLERS_AT_ONCE: usize = 32;
/// Of these, callers with the same address. An answer takes milliseconds.
const CALLERS_OF_ONE_PEER: usize = 4;
/// The timeout of a whole connection. Prometheus gives up after ten seconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request's line and headers. Prometheus sends some hundred; hyper's own bound is 400 KiB.
const LARGEST_HEAD: usize = 16 * 1024;
/// The pause after a failed accept. A lack of file descriptors does not pass at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Where callers come in.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who calls. All callers on a Unix socket are one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    At(IpAddr),
    OnThisMachine,
}

/// Serves `router` on `listener`.
pub(crate) async fn serve_forever(listener: Listener, router: Router) -> Infallible {
    // The oldest first.
    let mut callers: Vec<(Peer, AbortHandle)> = Vec::new();
    loop {
        match listener.answer_next(&router).await {
            Ok((from, answering)) => {
                callers.retain(|(_, earlier)| !earlier.is_finished());
                let peers: Vec<_> = callers.iter().map(|(peer, _)| *peer).collect();
                if let Some(place) = to_drop(&peers, from) {
                    callers.remove(place).1.abort();
                }
                callers.push((from, answering));
            }
            Err(fault) => {
                tracing::warn!(%fault, "HTTP connection is not accepted");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
}

impl Listener {
    /// Begins to answer the next caller.
    async fn answer_next(&self, router: &Router) -> io::Result<(Peer, AbortHandle)> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (caller, from) = listener.accept().await?;
                (Peer::At(from.ip()), spawn(TokioIo::new(caller), router.clone()))
            }
            Listener::Unix(listener) => {
                let (caller, _nameless) = listener.accept().await?;
                (Peer::OnThisMachine, spawn(TokioIo::new(caller), router.clone()))
            }
        })
    }
}

/// Which of the present callers, the oldest first, is dropped for a new one: the oldest of the same peer, or of
/// the peer with the most callers. `None` if there is room for all.
fn to_drop(peers: &[Peer], new: Peer) -> Option<usize> {
    let n_of = |peer: Peer| peers.iter().filter(|other| **other == peer).count();
    if n_of(new) >= CALLERS_OF_ONE_PEER {
        return peers.iter().position(|peer| *peer == new);
    }
    let numbered = peers.iter().enumerate().rev();
    let greediest = || numbered.max_by_key(|(_, peer)| n_of(**peer)).map(|(place, _)| place);
    (peers.len() >= CALLERS_AT_ONCE).then(greediest)?
}

/// Answers one request. It is no error if the caller hangs up before its answer. A caller that is too slow gets none.
///
/// `axum::serve` is not used, since it bounds neither the number of connections nor the size of a request.
fn spawn(caller: impl Read + Write + Unpin + Send + 'static, router: Router) -> AbortHandle {
    let answering = async move {
        let connection = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(caller, TowerToHyperService::new(router));
        let _ = tokio::time::timeout(TIMEOUT, connection).await;
    };
    tokio::spawn(answering).abort_handle()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(n: u8) -> Peer {
        Peer::At(Ipv4Addr::new(10, 0, 0, n).into())
    }

    #[test]
    fn slow_callers_make_room_for_a_new_one() {
        let check = |peers: &[u8], new, expect| {
            let peers: Vec<_> = peers.iter().copied().map(peer).collect();
            assert_eq!(to_drop(&peers, peer(new)), expect, "{peers:?} {new}");
        };
        check(&[], 1, None);
        check(&[1, 1, 1], 1, None);
        check(&[2, 1, 1, 3, 1, 1], 1, Some(1));
        check(&[2, 1, 1, 3, 1, 1], 2, None);
        let crowd: Vec<u8> = (0..32).collect();
        check(&crowd, 99, Some(0));
        check(&crowd[..31], 99, None);
        let greedy: Vec<u8> = (0..29).chain([40, 40, 40]).collect();
        check(&greedy, 99, Some(29));
    }

    /// Whoever connects from wherever: the newest caller always has a place, and their number is bounded.
    #[test]
    fn newest_caller_is_always_served() {
        let mut peers = Vec::new();
        for n in 0..1000_u32 {
            let new = peer(u8::try_from(n * n % 37).unwrap());
            if let Some(place) = to_drop(&peers, new) {
                peers.remove(place);
            }
            peers.push(new);
            assert!(peers.len() <= CALLERS_AT_ONCE);
            assert!(peers.iter().filter(|peer| **peer == new).count() <= CALLERS_OF_ONE_PEER);
        }
    }
}
