//! The way to a collector by TLS and HTTP/2. tonic's own would build each client of TLS in the workspace anew, with other
//! features.

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

/// Of `https://`.
const PORT: u16 = 443;

/// Connects to the host of a URL.
#[derive(Clone)]
pub(crate) struct ByTls(TlsConnector);

impl ByTls {
    pub(crate) fn new(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(TlsConnector::from(Arc::new(config)))
    }
}

impl Service<Uri> for ByTls {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let stream = TcpStream::connect((&*host, uri.port_u16().unwrap_or(PORT))).await?;
            let name = ServerName::try_from(host);
            let name = name.map_err(|fault| Error::new(ErrorKind::InvalidInput, fault))?;
            Ok(TokioIo::new(connector.connect(name, stream).await?))
        })
    }
}
