//! The HTTP server for scrapes. Its port is open to the network, so each caller gets one answer, within bounds
//! of time and size. The number of callers at once is bounded too. A new caller never waits for slow ones: one of
//! these is dropped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::page::CONTENT_TYPE as TEXT_FORMAT;
use super::{Counters, page};
use crate::handle::{Handle, Stopped};

/// The path of the metrics.
const PATH: &str = "/metrics";
/// Callers that are served at once. Usually one or two programs scrape.
const CALLERS_AT_ONCE: usize = 32;
/// Of these, callers with the same address. A scrape takes milliseconds.
const CALLERS_OF_ONE_PEER: usize = 4;
/// The timeout of a whole connection. Prometheus gives up after ten seconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request's line and headers. Prometheus sends some hundred; hyper's own bound is 400 KiB.
const LARGEST_HEAD: usize = 16 * 1024;
/// The pause between two attempts to listen. Another daemon may have the port until it has stopped.
const AFTER_FAILED_BIND: Duration = Duration::from_secs(5);
/// The pause after a failed accept. A lack of file descriptors does not pass at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Serves on `port` of all addresses. If the port is taken, it warns once and keeps trying.
pub(crate) async fn serve_forever(port: u16, handle: Handle, counters: Arc<Counters>) {
    let listener = listen_with_retries(port).await;
    tracing::info!(port, path = PATH, "metrics are served");
    let router = Router::new().route(PATH, get(scrape)).with_state((handle, counters));
    // The oldest first.
    let mut callers: Vec<(IpAddr, AbortHandle)> = Vec::new();
    loop {
        match listener.accept().await {
            Ok((caller, from)) => {
                callers.retain(|(_, answering)| !answering.is_finished());
                let peers: Vec<_> = callers.iter().map(|(peer, _)| *peer).collect();
                if let Some(place) = to_drop(&peers, from.ip()) {
                    callers.remove(place).1.abort();
                }
                let router = router.clone();
                // A caller that is too slow gets no answer.
                let answering = tokio::time::timeout(TIMEOUT, answer(caller, router));
                callers.push((from.ip(), tokio::spawn(answering).abort_handle()));
            }
            Err(fault) => {
                tracing::warn!(%fault, "metrics connection is not accepted");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
}

/// Which of the present callers, the oldest first, is dropped for a new one: the oldest of the same peer, or of
/// the peer with the most callers. `None` if there is room for all.
fn to_drop(peers: &[IpAddr], new: IpAddr) -> Option<usize> {
    let n_of = |peer: IpAddr| peers.iter().filter(|other| **other == peer).count();
    if n_of(new) >= CALLERS_OF_ONE_PEER {
        return peers.iter().position(|peer| *peer == new);
    }
    let numbered = peers.iter().enumerate().rev();
    let greediest = || numbered.max_by_key(|(_, peer)| n_of(**peer)).map(|(place, _)| place);
    (peers.len() >= CALLERS_AT_ONCE).then(greediest)?
}

async fn listen_with_retries(port: u16) -> TcpListener {
    let mut warned = false;
    loop {
        match listen(port).await {
            Ok(listener) => return listener,
            Err(fault) if !warned => {
                let help = "free the port, or set DISABLE_METRICS=true";
                tracing::warn!(port, %fault, help, again_every = ?AFTER_FAILED_BIND, "metrics cannot be served");
                warned = true;
            }
            Err(_again) => {}
        }
        tokio::time::sleep(AFTER_FAILED_BIND).await;
    }
}

/// Listens on the addresses of both families, or only of IPv4 if the kernel has no IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(fault) if fault.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        result => result,
    }
}

/// Answers one request. It is no error if the caller hangs up before its answer.
///
/// `axum::serve` is not used, since it bounds neither the number of connections nor the size of a request.
async fn answer(caller: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(caller), TowerToHyperService::new(router));
    let _ = connection.await;
}

async fn scrape(
    State((handle, counters)): State<(Handle, Arc<Counters>)>,
) -> Result<impl IntoResponse, StatusCode> {
    let stopped = |Stopped| StatusCode::SERVICE_UNAVAILABLE;
    let (view, ready) =
        (handle.view().await.map_err(stopped)?, handle.ready().await.map_err(stopped)?);
    let n_tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], page(&view, ready, n_tasks, &counters)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, n).into()
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
    fn newest_metrics_caller_is_always_served() {
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
