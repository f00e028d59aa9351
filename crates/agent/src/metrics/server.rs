//! The HTTP server for scrapes. Its port is open to the network, so each caller gets one answer, within bounds
//! of time and size. The number of callers at once is bounded too.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
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
use tokio::sync::Semaphore;

use super::page::CONTENT_TYPE as TEXT_FORMAT;
use super::{Counters, page};
use crate::handle::{Handle, Stopped};

/// The path of the metrics.
const PATH: &str = "/metrics";
/// Callers that are served at once. Usually one or two programs scrape.
const CALLERS_AT_ONCE: usize = 8;
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
    let places = Arc::new(Semaphore::new(CALLERS_AT_ONCE));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((caller, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    // A caller that is too slow gets no answer.
                    let _ = tokio::time::timeout(TIMEOUT, answer(caller, router)).await;
                    drop(place);
                });
            }
            Err(fault) => {
                tracing::warn!(%fault, "metrics connection is not accepted");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
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
