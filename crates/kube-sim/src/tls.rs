//! TLS in front of the server. Each handshake is a task of its own: a client that does not trust the certificate, or that says
//! nothing, must not hold up the others.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that nobody has taken yet.
const BACKLOG: usize = 64;

type Secured = (TlsStream<TcpStream>, SocketAddr);

/// The connections whose handshake has succeeded.
#[derive(Debug)]
pub(crate) struct SecuredListener {
    address: SocketAddr,
    connections: mpsc::Receiver<Secured>,
}

impl SecuredListener {
    /// Listens on `address`, with the certificate in `directory`.
    pub(crate) async fn bind(address: SocketAddr, directory: PathBuf) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, connections) = mpsc::channel(BACKLOG);
        tokio::spawn(accept(listener, directory, sender));
        Ok(Self { address, connections })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Listener for SecuredListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Secured {
        match self.connections.recv().await {
            Some(secured) => secured,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(listener: TcpListener, directory: PathBuf, secured: mpsc::Sender<Secured>) {
    while let Ok((stream, peer)) = listener.accept().await {
        let (directory, secured) = (directory.clone(), secured.clone());
        tokio::spawn(async move {
            let Ok(acceptor) = acceptor(&directory) else { return };
            let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                // If nobody takes it, the server has ended.
                let _ = secured.send((stream, peer)).await;
            }
        });
    }
}

fn acceptor(directory: &Path) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(directory.join("tls.crt"))
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(Error::other)?;
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).map_err(Error::other)?;
    // Of its own, since a process may have several providers and no default.
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
