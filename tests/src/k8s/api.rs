//! The API server through `kubectl proxy`: requests without a process for each.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// Where the API server is reached.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
}

impl Api {
    /// By the socket of a `kubectl proxy`.
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Fails as long as the API server does not serve.
    pub(super) async fn is_ready(&self) -> Result<()> {
        self.send(Method::GET, "/readyz").await.map(|_| ())
    }

    /// Reads an object or a list.
    ///
    /// # Errors
    ///
    /// If the API server refuses or is away.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let body = self.send(Method::GET, path).await?.into_body().collect();
        let body = body.await.with_context(|| format!("read {path}"))?.to_bytes();
        serde_json::from_slice(&body).with_context(|| format!("read {path} as JSON"))
    }

    /// The items of a list.
    ///
    /// # Errors
    ///
    /// If the API server refuses or is away.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut list = self.get(path).await?;
        serde_json::from_value(list["items"].take()).with_context(|| format!("{path} is no list"))
    }

    /// Deletes an object, as `kubectl delete --wait=false` does.
    ///
    /// # Errors
    ///
    /// If the API server refuses or is away.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.send(Method::DELETE, path).await.map(|_| ())
    }

    /// An answer that may be endless.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming> {
        Ok(self.send(Method::GET, path).await?.into_body())
    }

    async fn send(&self, method: Method, path: &str) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.context("connect to kubectl proxy")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("speak HTTP")?;
        // It ends with the answer.
        tokio::spawn(connection);
        let request =
            hyper::Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.body(Full::new(Bytes::new()))?;
        let answer =
            sender.send_request(request).await.with_context(|| format!("ask for {path}"))?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        Ok(answer)
    }
}
