//! Serves HTTP on a listener until the future is dropped.
//!
//! `axum::serve` cannot close a connection without an answer, which a deliberately lost reply
//! needs. This module must not know what is served.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustix::net::{AddressFamily, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Pause after a failed accept. A lack of file descriptors does not pass at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// The sender of a request, as a request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The connection's socket, as a request extension.
#[derive(Debug, Clone)]
pub struct Socket(Arc<OwnedFd>);

impl Socket {
    /// Sets how many hops each packet may travel that is sent from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_hop_limit(&self, limit: u8) -> io::Result<()> {
        match sockopt::socket_domain(&self.0)? {
            AddressFamily::INET6 => sockopt::set_ipv6_unicast_hops(&self.0, Some(limit))?,
            _ => sockopt::set_ip_ttl(&self.0, limit.into())?,
        }
        Ok(())
    }
}

/// A response that closes the connection without an answer.
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

/// Serves `router` to every client. Dropping the future closes every connection.
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
    let socket = match stream.as_fd().try_clone_to_owned() {
        Ok(socket) => Socket(Arc::new(socket)),
        Err(error) => {
            tracing::warn!(%error, peer = %peer.0, "connection not served");
            return;
        }
    };
    let service = tower::service_fn(move |mut request: axum::http::Request<_>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(socket.clone());
        answer(router.clone(), request.map(Body::new))
    });
    let mut builder = Builder::new(TokioExecutor::new());
    // A client may close its sending side after the request, as `printf …
    // nc` does, and still wait for the answer.
    builder.http1().half_close(true);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = connection.await {
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn half_closed_client_is_answered() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let slow = get(async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            "here"
        });
        let _server = tokio::spawn(serve(listener, Router::new().route("/", slow)));
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        client.shutdown().await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        assert!(answer.ends_with("here"), "{answer:?}");
        Ok(())
    }
}
