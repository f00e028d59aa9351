//! Where Prometheus scrapes. The port is open to the network; [`crate::http`] bounds its callers.

use std::convert::Infallible;
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
use tokio::net::TcpListener;

use super::page::CONTENT_TYPE as TEXT_FORMAT;
use super::{Counters, Outlook, Scrape, page};
use crate::handle::{Handle, Stopped};
use crate::http::{self, Listener};
use crate::{Notes, wire};

/// The path of the metrics.
const PATH: &str = "/metrics";
/// The pause between two attempts to listen. Another daemon may have the port until it has stopped.
const AFTER_FAILED_BIND: Duration = Duration::from_secs(5);

/// What scrapes read.
#[derive(Debug, Clone)]
pub(crate) struct Scraped {
    pub(crate) handle: Handle,
    pub(crate) counters: Arc<Counters>,
    pub(crate) outlook: Arc<Outlook>,
    pub(crate) notes: Notes,
}

/// Serves on `port` of all addresses. If the port is taken, it warns once and keeps trying.
pub(crate) async fn serve_forever(port: u16, scraped: Scraped) -> Infallible {
    let listener = listen_with_retries(port).await;
    tracing::info!(port, path = PATH, "metrics are served");
    let router = Router::new().route(PATH, get(scrape)).with_state(scraped);
    http::serve_forever(Listener::Tcp(listener), router).await
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

async fn scrape(State(scraped): State<Scraped>) -> Result<impl IntoResponse, StatusCode> {
    let Scraped { handle, counters, outlook, notes } = scraped;
    let stopped = |Stopped| StatusCode::SERVICE_UNAVAILABLE;
    let view = handle.view().await.map_err(stopped)?;
    let now = handle.now();
    let scrape = Scrape {
        obstacles: wire::obstacles(&view, &notes),
        view,
        ready: handle.ready().await.map_err(stopped)?,
        exhaustion: outlook.exhaustion(now),
        now,
        n_tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
    };
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], page(&scrape, &counters)))
}
