//! Serves HTTP on a listener until it is told to stop.
//!
//! Not `axum::serve`: a reply that is lost on purpose must close its connection without a byte,
//! which that cannot. Must not know what is served.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// How long to wait after a failed accept: out of file descriptors does not pass at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Who sent a request; an extension of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// As a response: there is none, and the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed without an answer")]
pub struct Hangup;

impl IntoResponse for Hangup {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

/// Serves `router` to all who connect. Dropping the future closes every connection.
pub async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(serve_connection(stream, Peer(peer), router.clone()));
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "connection not accepted");
    tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
}

async fn serve_connection(stream: TcpStream, peer: Peer, router: Router) {
    let service = tower::service_fn(move |mut request: axum::http::Request<_>| {
        request.extensions_mut().insert(peer);
        answer(router.clone(), request.map(Body::new))
    });
    let served = Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        tracing::debug!(error = &*error, peer = %peer.0, "connection ended early");
    }
}

async fn answer(router: Router, request: Request) -> Result<Response, Hangup> {
    let response = match router.oneshot(request).await {
        Ok(response) => response,
        Err::<_, Infallible>(never) => match never {},
    };
    response.extensions().get::<Hangup>().map_or(Ok(()), |hangup| Err(*hangup))?;
    Ok(response)
}
