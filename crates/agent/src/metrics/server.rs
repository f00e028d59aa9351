//! Answers those who collect metrics. The port is open to the network, so a caller gets little: one
//! answer, within a bound, beside few others.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Counters, page, text};
use crate::handle::{Handle, Stopped};

/// Where the metrics are.
const PATH: &str = "/metrics";
/// Who scrapes is one or two.
const CALLERS_AT_ONCE: usize = 8;
/// For a whole connection; Prometheus gives up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Another daemon may have the port until it has stopped.
const AFTER_FAILED_BIND: Duration = Duration::from_secs(5);
/// Out of file descriptors does not pass at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Serves on `port` of all addresses. Where that is taken, it says so once and goes on trying.
pub(crate) async fn serve_forever(port: u16, handle: Handle, counters: Arc<Counters>) {
    let listener = listen_at_last(port).await;
    tracing::info!(port, path = PATH, "metrics are served");
    let places = Arc::new(Semaphore::new(CALLERS_AT_ONCE));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((caller, _)) => {
                let (handle, counters) = (handle.clone(), Arc::clone(&counters));
                tokio::spawn(async move {
                    // One that is too slow has no claim to an answer.
                    let _ = tokio::time::timeout(PATIENCE, answer(caller, handle, counters)).await;
                    drop(place);
                });
            }
            Err(fault) => {
                tracing::warn!(%fault, "who wants metrics is not accepted");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
}

async fn listen_at_last(port: u16) -> TcpListener {
    let mut told = false;
    loop {
        match listen(port).await {
            Ok(listener) => return listener,
            Err(fault) if !told => {
                let help = "free the port, or set DISABLE_METRICS=true";
                tracing::warn!(port, %fault, help, again_every = ?AFTER_FAILED_BIND, "no metrics");
                told = true;
            }
            Err(_told) => {}
        }
        tokio::time::sleep(AFTER_FAILED_BIND).await;
    }
}

/// On the addresses of both families, or, where the kernel has no IPv6, on those of IPv4.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(fault) if fault.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        result => result,
    }
}

/// Reads one request and answers it. A caller that goes away before is no fault.
async fn answer(caller: TcpStream, handle: Handle, counters: Arc<Counters>) {
    let service = service_fn(|request| {
        let (handle, counters) = (handle.clone(), Arc::clone(&counters));
        async move { Ok::<_, Infallible>(respond(&request, &handle, &counters).await) }
    });
    let connection =
        http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(caller), service);
    let _ = connection.await;
}

async fn respond(
    request: &Request<Incoming>,
    handle: &Handle,
    counters: &Counters,
) -> Response<Full<Bytes>> {
    let status = match (request.method(), request.uri().path()) {
        (&Method::GET, PATH) => match scrape(handle, counters).await {
            Ok(text) => {
                let mut response = Response::new(Full::from(text));
                let content_type = text::CONTENT_TYPE.parse().expect("it is visible ASCII");
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                return response;
            }
            Err(Stopped) => StatusCode::SERVICE_UNAVAILABLE,
        },
        (_, PATH) => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::NOT_FOUND,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

async fn scrape(handle: &Handle, counters: &Counters) -> Result<String, Stopped> {
    let (view, ready) = (handle.view().await?, handle.ready().await?);
    let n_tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    Ok(page(&view, ready, n_tasks, &counters.read()))
}
