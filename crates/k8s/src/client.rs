//! The client for the API server. Each answer is bounded in size and time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::Limited;
use hyper::{Response, Uri};
use kube::client::ClientBuilder;
use kube::{Api, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use tower::timeout::TimeoutLayer;
use tower::util::MapResponseLayer;

use crate::watching::Watched;

/// In bytes, one answer or all of one watch. A list of a node's pods has some megabytes at most.
const LONGEST_ANSWER: usize = 64 << 20;
/// A connection that carries nothing for this much longer than a watch lasts is given up.
const MARGIN: Duration = Duration::from_secs(15);

/// Where the API server is, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `https://HOST[:PORT]`, or `http://` without a service account.
    pub url: String,
    /// The directory with `token` and `ca.crt`. Both are read again about once a minute.
    pub service_account: PathBuf,
    /// How long the head of an answer may take. That of a watch comes at once, too.
    pub answer_within: Duration,
    /// How long one watch lasts, in whole seconds. Then it goes on with another request, so a connection that somebody has
    /// cut without a word is noticed a few seconds later.
    pub watch_for: Duration,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("parse the API server's address {url}: {problem}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificates cannot be read.
    #[error("read the certificates in {}", file.display())]
    Certificates {
        /// Their file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// The service account cannot be used.
    #[error("set up the client for the API server with {}", directory.display())]
    Account {
        /// The service account's directory.
        directory: PathBuf,
        /// What failed.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client for the API server. Clones share its connections.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: kube::Client,
    pub(crate) watch_for: Duration,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// The objects of `api`, to be watched.
    pub(crate) fn watched<K>(&self, api: Api<K>) -> Watched<K> {
        Watched { api, watch_for: self.watch_for }
    }

    /// A client, without a connection yet. Call it within a runtime of tokio.
    ///
    /// # Errors
    /// If the URL is none, or if the service account's files cannot be read.
    pub fn connect(access: &Access) -> Result<Self, ConnectError> {
        let Access { url, service_account, answer_within, watch_for } = access;
        let parsed = url.parse::<Uri>().map_err(|problem| ConnectError::Url {
            url: url.clone(),
            problem: format!("{problem}"),
        })?;
        let mut config = Config::new(parsed);
        config.read_timeout = Some(*watch_for + MARGIN);
        config.reset_reader_on_write = true;
        if url.starts_with("https://") {
            let token = service_account.join("token");
            config.auth_info.token_file = Some(token.display().to_string());
            let file = service_account.join("ca.crt");
            // Without them the client asks for those of the system, which an image need not have.
            config.root_cert = Some(certificates(&file)?);
            config.root_cert_file = Some(file);
        }
        let failed = |source| ConnectError::Account {
            directory: service_account.clone(),
            source: Box::new(source),
        };
        let bounded = MapResponseLayer::new(|answer: Response<_>| {
            answer.map(|body| Limited::new(body, LONGEST_ANSWER))
        });
        let builder = ClientBuilder::try_from(config).map_err(failed)?;
        let prompt = TimeoutLayer::new(*answer_within);
        let client = builder.with_layer(&bounded).with_layer(&prompt).build();
        Ok(Self { client, watch_for: *watch_for })
    }
}

/// The certificates of a file, in DER.
fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, ConnectError> {
    let read = CertificateDer::pem_file_iter(file).and_then(|found| {
        found.map(|found| found.map(|certificate| certificate.to_vec())).collect()
    });
    read.map_err(|source| ConnectError::Certificates { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn certificates_that_cannot_be_used_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let access = Access {
            url: "https://10.0.0.1".to_owned(),
            service_account: directory.path().to_owned(),
            answer_within: Duration::from_secs(1),
            watch_for: Duration::from_secs(60),
        };
        let file = directory.path().join("ca.crt");
        let cut = "-----BEGIN CERTIFICATE-----\nMIIB";
        for text in [None, Some(cut)] {
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            let error = Cluster::connect(&access).unwrap_err();
            assert!(matches!(&error, ConnectError::Certificates { .. }), "{text:?}: {error:?}");
            assert!(error.to_string().contains("ca.crt"), "{error}");
        }
    }
}
