//! By which certificates EC2, STS and proxies are trusted. It must not know what is asked of them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::http::ConnectError;

/// The longest file of certificates, in bytes. The system's own has about 200 KB.
const LONGEST_BUNDLE: u64 = 4 << 20;
/// The roots of Amazon Trust Services, by which AWS's endpoints are certified. They end in 2037 or later.
/// Source: AWS, <https://www.amazontrust.com/repository/>.
const AMAZON: &[u8] = include_bytes!("roots.pem");

/// The certificates that are trusted, and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Those in a file.
    Bundle(PathBuf),
    /// Those of the system, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    System,
    /// Amazon's own, since the system has none.
    Amazon,
}

impl Roots {
    /// Those in `bundle` if there is one. Otherwise the system's; without these Amazon's.
    #[must_use]
    pub fn of(bundle: Option<PathBuf>) -> Self {
        match bundle {
            Some(file) => Self::Bundle(file),
            None if system_has_some() => Self::System,
            None => Self::Amazon,
        }
    }

    /// TLS for a service that is none of AWS's, by these certificates. Amazon's own stand in for the system's there too, which
    /// fits few services.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no list of certificates.
    pub fn client(&self) -> Result<ClientConfig, ConnectError> {
        let roots = match self {
            Self::System => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
            Self::Amazon => store(AMAZON, Path::new("roots.pem"))?,
            Self::Bundle(file) => store(&text(file)?, file)?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|fault| ConnectError::Malformed {
            file: PathBuf::from("TLS"),
            problem: fault.to_string(),
        })?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// # Errors
    ///
    /// If the file cannot be read, or is no list of certificates.
    pub(crate) fn context(&self) -> Result<TlsContext, ConnectError> {
        match self {
            Self::System => Ok(TlsContext::default()),
            Self::Amazon => trust(AMAZON.to_vec(), Path::new("roots.pem")),
            Self::Bundle(file) => trust(text(file)?, file),
        }
    }
}

/// Whether the system has a certificate that can be used. Without one each connection would fail as untrusted.
fn system_has_some() -> bool {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let (valid, _invalid) = RootCertStore::empty().add_parsable_certificates(certificates);
    valid > 0
}

/// Trusts the certificates in `text`, and no others. The SDK panics at bad ones.
fn trust(text: Vec<u8>, file: &Path) -> Result<TlsContext, ConnectError> {
    store(&text, file)?;
    let store = TrustStore::empty().with_pem_certificate(text);
    let context = TlsContext::builder().with_trust_store(store).build();
    context.map_err(|fault| ConnectError::Malformed {
        file: file.to_owned(),
        problem: fault.to_string(),
    })
}

/// The certificates in `text`, at least one.
fn store(text: &[u8], file: &Path) -> Result<RootCertStore, ConnectError> {
    let malformed = |problem| ConnectError::Malformed { file: file.to_owned(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|fault| malformed(fault.to_string()))?;
        roots.add(certificate).map_err(|fault| malformed(fault.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(malformed("it has none".to_owned())),
        false => Ok(roots),
    }
}

fn text(file: &Path) -> Result<Vec<u8>, ConnectError> {
    read(file).map_err(|source| ConnectError::Read { file: file.to_owned(), source })
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = Vec::new();
    File::open(file)?.take(LONGEST_BUNDLE + 1).read_to_end(&mut text)?;
    match text.len() as u64 > LONGEST_BUNDLE {
        true => Err(io::Error::other(format!("it is longer than {LONGEST_BUNDLE} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_amazon_are_five_certificates() {
        assert_eq!(CertificateDer::pem_slice_iter(AMAZON).filter_map(Result::ok).count(), 5);
        assert!(Roots::Amazon.context().is_ok());
    }
}
